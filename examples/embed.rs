//! A program that embeds a node: typed documents in, typed documents out, and a stop in order.
//!
//! `cargo run --example embed -- FOLDER` keeps the database and both keys in that folder. Every other device that is
//! given the same `cluster.key` holds the same documents; this program need not know that they exist.

use cbddc::document::{Condition, Query};
use cbddc::{Config, Error, Node};
use serde::{Deserialize, Serialize};
use smol::LocalExecutor;
use std::rc::Rc;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Reading {
    sensor: String,
    celsius: f64,
}

fn main() -> Result<(), Error> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "data".to_string());
    // Everything that `appsettings.json` can say; a program that wants the user's file begins with `Config::load`.
    let config = Config::builder().data_directory(folder).http_address(None).build()?;
    run(config)
}

/// The node lives on this thread's executor, beside whatever else the program does there.
fn run(config: Config) -> Result<(), Error> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let node = Node::start(executor.clone(), config).await?;
        println!("{} accepts links at {}", node.node_id(), node.link_address());
        let worked = work(&node).await;
        // Also where the work failed: the peers hear goodbye, and the database is closed in order.
        node.shutdown().await?;
        worked
    }))
}

async fn work(node: &Node) -> Result<(), Error> {
    let readings = node.collection("readings");

    // On disk when it returns, and on its way to the peers.
    let reading = Reading { sensor: "boiler".to_string(), celsius: 61.5 };
    let stored = readings.put("2026-01-15T10:20:00Z", &reading).await?;
    println!("stored as version {}", stored.version);
    readings.put("2026-01-15T10:21:00Z", &Reading { celsius: 61.9, ..reading.clone() }).await?;

    let found: Option<Reading> = readings.get("2026-01-15T10:20:00Z").await?;
    assert_eq!(found, Some(reading.clone()));

    // Only if nobody, here or on a peer heard meanwhile, has changed it.
    let warmer = Reading { celsius: 62.0, ..reading };
    let unchanged = Condition::At(stored.version);
    readings.put_if("2026-01-15T10:20:00Z", &warmer, unchanged).await?;
    match readings.put_if("2026-01-15T10:20:00Z", &warmer, unchanged).await {
        Err(Error::Concurrency { key, .. }) => println!("{key} has another version now"),
        other => println!("expected a conflict, got {other:?}"),
    }

    // Keys come in byte order, a page at a time.
    let mut query = Query { prefix: "2026-01-15".to_string(), limit: 1, ..Query::default() };
    loop {
        let page = readings.list(&query).await?;
        for document in &page.documents {
            let Reading { sensor, celsius } = document.parse()?;
            println!("{} {sensor} {celsius} degrees", document.key);
        }
        match page.next {
            Some(key) => query.after = Some(key),
            None => break,
        }
    }

    let existed = readings.delete("2026-01-15T10:21:00Z").await?;
    println!("deleted: {existed}");
    println!("health: {:?}", node.health().await.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_runs_from_start_to_stop_and_again() {
        let folder = std::env::temp_dir().join(format!("cbddc-embed-{}", std::process::id()));
        let config = || {
            let builder = Config::builder().data_directory(&folder).node_id("embedded");
            builder.tcp_port(0).discovery(false).http_address(None).build().unwrap()
        };
        run(config()).unwrap();
        // The second run finds the documents of the first; the database had been closed in order.
        run(config()).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
