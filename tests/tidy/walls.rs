//! What may be named where: clocks, sockets, files, threads and SQLite each have their rooms, and rooms use each other
//! as `docs/architecture.md` says.

use crate::repository::{Source, code, exists, is_word, read, rust, shipped};
use std::collections::{BTreeMap, BTreeSet};

/// Words that may be named in some rooms only. A room is a file, or a folder that ends with `/`; with its reason.
struct Wall {
    what: &'static str,
    words: &'static [&'static str],
    rooms: &'static [(&'static str, &'static str)],
    instead: &'static str,
}

const WALLS: &[Wall] = &[
    Wall {
        what: "SQLite",
        words: &["rusqlite", "libsqlite3_sys"],
        rooms: &[("src/store.rs", "the store"), ("src/store/", "the store")],
        instead: "ask the storage threads: a second place that knows SQL is a second place that can lose data",
    },
    Wall {
        what: "sockets",
        words: &[
            "async_net",
            "TcpListener",
            "TcpStream",
            "UdpSocket",
            "UnixListener",
            "UnixStream",
            "UnixDatagram",
            "socket2",
        ],
        rooms: &[
            ("src/net.rs", "the network"),
            ("src/net/", "the network"),
            ("src/cli/", "the client commands talk to the node"),
        ],
        instead: "pass bytes or addresses; `src/net` owns the sockets (std::net's address types are free to use)",
    },
    Wall {
        what: "files",
        words: &["fs", "async_fs", "tempfile"],
        rooms: &[
            ("src/store.rs", "the database, its folder and its backups"),
            ("src/store/", "the database, its folder and its backups"),
            ("src/config/load.rs", "finds and reads appsettings.json"),
            ("src/key.rs", "key files"),
            ("src/key/", "the token file"),
            ("src/log.rs", "the log file"),
            ("src/log/", "the log file and its rotation"),
            ("src/cli/", "import and export, token files"),
            ("src/node/start.rs", "reads the API's token file, once"),
            ("src/net/port_holder.rs", "reads /proc to say who holds a port"),
            ("src/net/interfaces.rs", "reads /sys to leave bridges and down links out"),
            ("src/net/http/listen.rs", "a Unix socket is a file: its mode, and the stale one of a dead node"),
        ],
        instead: "pass the content; what the program opens is decided in few places",
    },
    Wall {
        what: "clocks",
        words: &["Instant::now", "SystemTime::now", "elapsed", "clock_gettime"],
        rooms: &[("src/clock.rs", "the one place that asks")],
        instead: "take the time as an argument: every test is a replay",
    },
    Wall {
        what: "threads",
        words: &["thread::spawn", "thread::Builder", "thread::sleep", "unblock"],
        rooms: &[("src/store.rs", "the two storage threads"), ("src/store/", "the two storage threads")],
        instead: "spawn a task on the executor; a new thread needs its reason in docs/architecture.md",
    },
    Wall {
        what: "unfinished or unguarded code",
        words: &["todo!", "unimplemented!", "dbg!", ".unwrap()"],
        rooms: &[],
        instead: "finish it; a value that must be there is an `expect` that carries its proof",
    },
];

/// Code lines that are let through all the same: file, words of the line, reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

fn in_room(path: &str, room: &str) -> bool {
    path == room || room.ends_with('/') && path.starts_with(room)
}

/// Rooms of the pure half with a part that is built with the shell only: what that part uses, and why.
const SHELL_PARTS: &[(&str, &str, &str)] = &[(
    "retry",
    "error",
    "running an operation again ends in the error of its last attempt; the policy itself is pure",
)];

/// Whether a line names a word: not as a part of a longer one.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_word) || !before.is_some_and(is_word);
        let ends = !word.ends_with(is_word) || !after.is_some_and(is_word);
        starts && ends
    })
}

#[test]
fn clocks_sockets_files_threads_and_sqlite_stay_in_their_rooms() {
    let mut complaints = Vec::new();
    for (path, lines) in shipped() {
        for wall in WALLS.iter().filter(|wall| !wall.rooms.iter().any(|(room, _)| in_room(&path, room))) {
            for (number, line) in &lines {
                let excepted = EXCEPTIONS.iter().any(|(file, words, _)| *file == path && line.contains(words));
                let Some(word) = wall.words.iter().find(|word| names(line, word) && !excepted) else { continue };
                complaints.push(format!("{path}:{number}: `{word}` ({}): {}", wall.what, wall.instead));
            }
        }
    }
    assert!(
        complaints.is_empty(),
        "{}\n\nIf one is right where it stands, add its room or an exception with a reason to tests/tidy/walls.rs.",
        complaints.join("\n")
    );
}

#[test]
fn every_exception_is_still_needed() {
    let shipped = shipped();
    for (file, words, reason) in EXCEPTIONS.iter().filter(|(file, _, _)| exists(file)) {
        let needed =
            shipped.iter().any(|(path, lines)| path == file && lines.iter().any(|(_, line)| line.contains(words)));
        assert!(needed, "{file}: `{words}` ({reason}) is gone: take its exception off the list");
    }
}

#[test]
fn every_clock_that_clippy_refuses_is_refused_here_too() {
    let clippy = read("clippy.toml");
    for clock in ["Instant::now", "SystemTime::now", "clock_gettime"] {
        assert!(clippy.contains(clock), "clippy.toml must disallow {clock}");
        assert!(WALLS.iter().any(|wall| wall.words.contains(&clock)));
    }
}

#[test]
fn unsafe_code_stands_in_one_module_of_the_tests_and_never_in_what_is_shipped() {
    for shipped in ["src/lib.rs", "src/main.rs"] {
        assert!(read(shipped).contains("#![forbid(unsafe_code)]"), "{shipped} must forbid unsafe code");
    }
    assert!(read("Cargo.toml").contains("unsafe_code = \"deny\""), "Cargo.toml must deny it in every other target");
    let room = "tests/cuts/vfs.rs";
    for Source { path, text } in rust().iter().filter(|source| source.path != room) {
        let code = code(text);
        let found = code.lines().find(|line| names(line, "unsafe") || line.contains("allow(unsafe_code"));
        assert!(found.is_none(), "{path}: unsafe code has one room, {room}: {found:?}");
    }
}

// ---- who uses whom ----

/// The rooms of the table in docs/architecture.md, and whom each may use.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = read("docs/architecture.md");
    let section = text.split("## Who uses whom").nth(1).expect("docs/architecture.md says who uses whom");
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let mut rooms = BTreeMap::new();
    for line in section.split("\n## ").next().unwrap_or("").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        assert!(cells.len() >= 2, "docs/architecture.md: a row without a second cell: {line}");
        for room in words(cells[0]) {
            rooms.insert(room, words(cells[1]).into_iter().collect());
        }
    }
    rooms
}

/// The room that a file of `src` belongs to: its top-level module.
fn room_of(path: &str) -> &str {
    let inside = path.trim_start_matches("src/");
    inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
}

/// The first names that a line says after `crate::`.
fn used(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list).split(',').collect(),
            None => vec![rest],
        };
        let word = |name: &str| name.trim().chars().take_while(|c| is_word(*c)).collect::<String>();
        names.extend(list.into_iter().map(word));
    }
    names
}

/// The room behind each name that src/lib.rs gives to the whole crate, and behind each room's own name.
fn rooms_by_name(lib: &str) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    for line in lib.lines().map(str::trim) {
        let module =
            line.rsplit("mod ").next().and_then(|rest| rest.strip_suffix(';')).filter(|_| line.contains("mod "));
        if let Some(module) = module {
            rooms.insert(module.to_string(), module.to_string());
        }
        let Some((room, names)) = line.strip_prefix("pub use ").and_then(|rest| rest.split_once("::")) else {
            continue;
        };
        for name in names.split(|c| !is_word(c)).filter(|name| !name.is_empty()) {
            rooms.insert(name.to_string(), room.to_string());
        }
    }
    rooms
}

#[test]
fn rooms_use_each_other_as_the_architecture_says() {
    let documented = documented();
    let rooms = rooms_by_name(&read("src/lib.rs"));
    let mut complaints = BTreeSet::new();
    for module in rooms.values().filter(|module| !documented.contains_key(*module)) {
        complaints.insert(format!("`{module}` of src/lib.rs has no line in docs/architecture.md, \"Who uses whom\""));
    }
    for (path, lines) in shipped() {
        let room = room_of(&path);
        let Some(may_use) = documented.get(room) else { continue };
        for (number, line) in lines {
            for other in used(&line).iter().filter_map(|name| rooms.get(name)).filter(|other| *other != room) {
                if !may_use.contains(other) {
                    complaints.insert(format!(
                        "{path}:{number}: `{room}` uses `{other}`; docs/architecture.md knows nothing of it"
                    ));
                }
            }
        }
    }
    let all: Vec<String> = complaints.into_iter().collect();
    assert!(all.is_empty(), "{}\n\nMove the code, or change the table and say why there.", all.join("\n"));
}

#[test]
fn the_pure_half_uses_nothing_of_the_shell() {
    let documented = documented();
    let text = read("src/lib.rs");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_shell = |name: &str| {
        let declaration = |line: &&str| line.ends_with(&format!("mod {name};"));
        let Some(at) = lines.iter().position(declaration) else { return false };
        lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#["))
            .any(|line| line.contains("feature = \"std\""))
    };
    for (room, others) in
        documented.iter().filter(|(room, _)| !is_shell(room) && !["main", "lib"].contains(&room.as_str()))
    {
        let declared = lines.iter().any(|line| line.ends_with(&format!("mod {room};")));
        let excused = |other: &str| SHELL_PARTS.iter().any(|(part, used, _)| part == room && *used == other);
        let wrong = others.iter().find(|other| declared && is_shell(other) && !excused(other));
        assert!(wrong.is_none(), "docs/architecture.md lets the pure `{room}` use `{wrong:?}` of the shell");
    }
}

#[test]
fn words_are_found_whole() {
    assert!(names("use std::fs;", "fs") && names("fs::read(x)", "fs") && !names("offsets.fsync()", "fs"));
    assert!(names("Instant::now()", "Instant::now") && names("x.unwrap()", ".unwrap()"));
    assert_eq!(used("use crate::{id, wire::Message};"), ["id", "wire"]);
    assert_eq!(used("let x: crate::row::Row = crate::id::dot();"), ["row", "id"]);
}
