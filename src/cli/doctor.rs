//! `cbddc doctor`: the deployment checklist, tried on the spot. Each point says what was found, and what to do where that is
//! not well. Changes nothing: what it writes to try a folder it takes away again.

mod disk;
mod machine;
mod network;
mod running;

use super::args::Options;
use super::tables::table;
use super::{DONE, FAILED, absolute, say};
use crate::Error;
use crate::config::Config;
use serde::Serialize;
use smol::LocalExecutor;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

/// How a point stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// It works, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

/// One point of the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Point {
    point: &'static str,
    state: State,
    found: String,
    /// Empty where nothing is to be done.
    todo: String,
}

impl Point {
    fn ok(point: &'static str, found: impl Into<String>) -> Point {
        Point { point, state: State::Ok, found: found.into(), todo: String::new() }
    }
    fn warn(point: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Point {
        Point { point, state: State::Warn, found: found.into(), todo: todo.into() }
    }
    fn fail(point: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Point {
        Point { point, state: State::Fail, found: found.into(), todo: todo.into() }
    }
}

/// Tries everything; fails where a point does.
pub(super) fn run(options: &Options) -> Result<u8, Error> {
    let config = Config::load(options.config.as_deref())?;
    let executor = Rc::new(LocalExecutor::new());
    let points = smol::block_on(executor.run(try_all(&config, options, executor.clone())));
    let failed = points.iter().any(|point| point.state == State::Fail);
    if options.json {
        say(&format!("{}\n", serde_json::json!({ "ok": !failed, "points": points })))?;
    } else {
        say(&told(&points)?)?;
    }
    Ok(if failed { FAILED } else { DONE })
}

async fn try_all(config: &Config, options: &Options, executor: Rc<LocalExecutor<'static>>) -> Vec<Point> {
    let running = running::look(config, options, executor).await;
    let mut points = Vec::from([configuration(config), machine::board(config), machine::clock()]);
    points.extend(disk::points(config));
    points.extend(machine::keys(config));
    points.extend(network::points(config, running.as_ref()).await);
    points.push(running::point(running.as_ref()));
    points
}

fn configuration(config: &Config) -> Point {
    let place = match &config.file {
        Some(file) => absolute(file).display().to_string(),
        None => "no configuration file, built-in values".to_string(),
    };
    match config.warnings.as_slice() {
        [] => Point::ok("configuration", place),
        warnings => {
            Point::warn("configuration", format!("{place}: {}", warnings.join("; ")), "see 'cbddc config show'")
        }
    }
}

fn told(points: &[Point]) -> Result<String, Error> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    for Point { point, state, found, .. } in points {
        let state = match state {
            State::Ok => "ok",
            State::Warn => "look",
            State::Fail => "FAIL",
        };
        lines.push(Vec::from([state.to_string(), (*point).to_string(), found.clone()]));
    }
    let mut text = table(&lines)?;
    let todo: Vec<Vec<String>> = points
        .iter()
        .filter(|point| point.state > State::Ok && !point.todo.is_empty())
        .map(|point| Vec::from([point.point.to_string(), point.todo.clone()]))
        .collect();
    if !todo.is_empty() {
        text.push_str("\nwhat to do:\n");
        text.push_str(&table(&todo)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_stands_below_with_what_to_do() {
        let points = [
            Point::ok("clock", "synchronised"),
            Point::fail("free space", "3 MiB", "make room"),
            Point::warn("interfaces", "none", "name peers"),
        ];
        let text = told(&points).unwrap();
        assert!(
            text.starts_with("ok    clock       synchronised\nFAIL  free space  3 MiB\nlook  interfaces"),
            "{text}"
        );
        assert!(text.ends_with("\nwhat to do:\nfree space  make room\ninterfaces  name peers\n"), "{text}");
    }
}
