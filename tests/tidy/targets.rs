//! The targets that are built: the boards, the documents and cargo's configuration name those of `cross/targets` and no
//! others, and what emulated tests leave out are tests that there are. Builds and runs nothing for them.

use crate::repository::{files, read};

/// The lines of a table of `cross/`, in words, comments left out.
fn table(path: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

fn targets() -> Vec<String> {
    table("cross/targets").into_iter().map(|words| words[0].clone()).collect()
}

#[test]
fn every_target_of_a_board_is_built_and_every_built_target_serves_a_board() {
    let (built, mut served) = (targets(), Vec::new());
    for board in files().into_iter().filter(|file| file.path.starts_with("boards/") && file.path.ends_with(".toml")) {
        let list = board.text.lines().find_map(|line| line.strip_prefix("targets = "));
        let list = list.unwrap_or_else(|| panic!("{} has no targets", board.path));
        for target in list.split('"').skip(1).step_by(2) {
            assert!(built.iter().any(|built| built == target), "{}: cross/targets does not build {target}", board.path);
            served.push(target.to_string());
        }
    }
    // `generic` is every machine that no other file names, and says so by an empty list: x86-64 is no board's.
    for target in built.iter().filter(|target| !target.starts_with("x86_64")) {
        assert!(served.contains(target), "{target} of cross/targets is for no board");
    }
}

#[test]
fn every_target_for_another_machine_has_its_runner_and_its_row() {
    let (configuration, readme) = (read(".cargo/config.toml"), read("cross/README.md"));
    for words in table("cross/targets") {
        let (target, emulator) = (&words[0], &words[2]);
        assert_eq!(words.len(), 7, "cross/targets: {target} has an empty column");
        assert!(readme.contains(&format!("`{target}`")), "cross/README.md does not tell of {target}");
        let runner = format!("[target.{target}]\n");
        let section = configuration.split(&runner).nth(1).map(|rest| rest.split("\n[").next().unwrap_or(rest));
        let names = section.is_some_and(|section| section.contains(&format!("[\"cross/emulate\", \"{target}\"]")));
        assert_eq!(names, emulator != "-", "{target}: its runner in .cargo/config.toml");
    }
}

#[test]
fn what_emulated_tests_leave_out_exists_and_has_its_reason() {
    let (built, rust) = (targets(), files());
    for words in table("cross/differences") {
        assert!(words.len() > 4, "cross/differences: say why: {}", words.join(" "));
        let place = words[0].as_str();
        assert!(["static", "dynamic"].contains(&place) || built.contains(&words[0]), "cross/differences: {place}");
        let name = words[1].rsplit("::").next().unwrap_or(&words[1]);
        let found = rust.iter().any(|file| file.path.ends_with(".rs") && file.text.contains(&format!("fn {name}()")));
        assert!(found, "cross/differences: there is no test {name}");
    }
}
