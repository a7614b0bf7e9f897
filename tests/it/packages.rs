//! What puts the node on a board: the scripts of the Debian package, in a folder that stands for `/`, and what `boards/image`
//! and `./release` refuse. The package on a booted board is tried by `boards/test service` and `image`.

use crate::process::Folder;
use crate::program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A folder in the place of `/`, and programs in the place of the machine's.
struct Board(Folder);

impl Board {
    fn new() -> Board {
        let folder = Folder::new();
        fs::create_dir_all(folder.path().join("bin")).unwrap();
        Board(folder)
    }
    fn path(&self, within: &str) -> PathBuf {
        self.0.path().join(within)
    }
    fn write(&self, within: &str, text: &str) {
        let path = self.path(within);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fn has(&self, program: &str, text: &str) {
        executable(&self.path("bin").join(program), &format!("#!/bin/sh\n{text}\n"));
    }
    /// Runs a script of the package as dpkg does, its absolute paths moved below the folder.
    fn runs(&self, script: &str, target: &str, argument: &str) -> Output {
        let text = fs::read_to_string(top().join("boards/package/debian").join(script)).unwrap();
        let root = self.0.path().display();
        let text = text.replace("@TARGET@", target);
        let text = text.replace("/var/lib/", &format!("{root}/var/lib/")).replace("/etc/", &format!("{root}/etc/"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        Command::new("sh").args(["-c", &text, script, argument]).env("PATH", path).output().unwrap()
    }
}

#[test]
fn an_armv7_package_refuses_an_armv6_processor_before_it_replaces_anything() {
    let board = Board::new();
    let (armv7, armv6) = ("armv7-unknown-linux-musleabihf", "arm-unknown-linux-musleabihf");
    for (machine, target, argument, refused) in [
        ("armv6l", armv7, "install", true),
        ("armv6l", armv7, "upgrade", true),
        ("armv6l", armv7, "abort-upgrade", false),
        ("armv6l", armv6, "upgrade", false),
        ("armv7l", armv7, "upgrade", false),
        ("aarch64", armv7, "install", false),
    ] {
        board.has("uname", &format!("echo {machine}"));
        let output = board.runs("preinst", target, argument);
        assert_eq!(!output.status.success(), refused, "{target} on {machine}, {argument}: {}", said(&output));
        assert_eq!(said(&output).contains("armhf-armv6.deb"), refused, "{}", said(&output));
    }
}

#[test]
fn a_purge_of_data_on_a_partition_of_its_own_is_carried_through() {
    let board = Board::new();
    // As it is with a mount point: emptied, never removed.
    board.has("rmdir", "case $1 in */var/lib/cbddc) echo busy >&2; exit 1 ;; *) exec /bin/rmdir \"$@\" ;; esac");
    let own = "etc/systemd/system/cbddc.service.d/board.conf";
    for file in
        ["var/lib/cbddc/data/cbddc.db", "var/lib/cbddc/.hidden", "etc/cbddc/cluster.key", "etc/cbddc/api.token", own]
    {
        board.write(file, "x");
    }
    let kept = board.runs("postrm", "", "remove");
    assert!(kept.status.success() && board.path("var/lib/cbddc/data/cbddc.db").exists(), "only a purge deletes");
    let purged = board.runs("postrm", "", "purge");
    assert!(purged.status.success(), "{}", said(&purged));
    assert_eq!(fs::read_dir(board.path("var/lib/cbddc")).unwrap().count(), 0, "something is left");
    assert!(!board.path("etc/cbddc").exists(), "the key is left");
    assert!(!board.path("etc/systemd/system/cbddc.service.d").exists(), "the memory limit is left");
    // Again, with nothing there any more.
    assert!(board.runs("postrm", "", "purge").status.success());
}

#[test]
fn the_memory_limit_of_a_package_is_that_of_the_board_and_nobody_elses_is_replaced() {
    let board = Board::new();
    let shown = |name: &str| {
        let mut node = program::node();
        node.args(["config", "show"]).env("CBDDC__Board", name).current_dir(board.0.path());
        let output = node.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        board.write("shown", &text);
        board.has("cbddc", &format!("cat '{}'", board.path("shown").display()));
    };
    let limit = || fs::read_to_string(board.path("etc/systemd/system/cbddc.service.d/board.conf")).unwrap_or_default();
    for (name, mib) in [("pi-zero-w", 80), ("gateway-armv7-128", 40), ("pi-5", 240)] {
        shown(name);
        assert!(board.runs("postinst", "", "configure").status.success());
        assert!(limit().ends_with(&format!("[Service]\nMemoryMax={mib}M\n")) && limit().contains(name), "{}", limit());
    }
    // Nobody knows the board where the configuration is wrong; the installation goes on, and what was known stays.
    let before = limit();
    board.has("cbddc", "exit 78");
    assert!(board.runs("postinst", "", "configure").status.success());
    assert_eq!(limit(), before);
    board.write("etc/systemd/system/cbddc.service.d/board.conf", "# Written by boards/image for the board pi-4b.\n");
    shown("pi-5");
    assert!(board.runs("postinst", "", "configure").status.success());
    assert!(limit().contains("boards/image"), "{}", limit());
}

#[test]
fn an_image_is_not_begun_with_what_cannot_be_right() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (name, text) in [("base", "x"), ("there", "mine"), ("short", "abc")] {
        fs::write(path(name), text).unwrap();
    }
    for (arguments, reason) in [
        (vec!["--board", "pi-4b", "-o", "there"], "is there already"),
        (vec!["--board", "../boards/pi-4b", "-o", "out"], "is no board"),
        (vec!["--board", "pi-9", "-o", "out"], "is no board"),
        (vec!["--board", "pi-4b", "--key", "missing", "-o", "out"], "the key, is not there"),
        (vec!["--board", "pi-4b", "--key", "short", "-o", "out"], "holds no key"),
        (vec!["--board", "pi-4b", "--config", "missing", "-o", "out"], "the configuration, is not there"),
    ] {
        let output = Command::new(top().join("boards/image"))
            .args(["--base", "base"])
            .args(&arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(!output.status.success() && said(&output).contains(reason), "{arguments:?}: {}", said(&output));
        assert_eq!(said(&output).lines().count(), 1, "one line says it: {}", said(&output));
    }
    assert_eq!(fs::read_to_string(path("there")).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "something was left behind");
}

#[test]
fn a_release_of_programs_with_planted_bugs_is_refused() {
    let folder = Folder::new();
    let targets = fs::read_to_string(top().join("cross/targets")).unwrap();
    for target in targets.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.contains("musl"))
    {
        let place = folder.path().join(target).join("dist");
        fs::create_dir_all(&place).unwrap();
        executable(&place.join("cbddc"), "\0CBDDC_MUTANT\0");
    }
    // In the place of the real one, which is not on every machine.
    let tools = folder.path().join("bin");
    fs::create_dir(&tools).unwrap();
    executable(&tools.join("lintian"), "#!/bin/sh\n");
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let output = Command::new(top().join("release")).arg(folder.path()).env("PATH", path).output().unwrap();
    assert!(!output.status.success() && said(&output).contains("planted bugs"), "{}", said(&output));
}

#[test]
fn the_data_partition_of_the_install_page_lets_a_board_boot_without_it() {
    let (page, unit) = ("docs/install.md", "boards/package/cbddc.service");
    let [page, unit] = [page, unit].map(|file| fs::read_to_string(top().join(file)).unwrap());
    let line = page.lines().find(|line| line.starts_with("/dev/") && line.contains(" /var/lib/cbddc "));
    let options = line.and_then(|line| line.split_whitespace().nth(3)).expect("a line of fstab");
    assert!(options.split(',').any(|option| option == "nofail"), "an emergency mode that nobody reaches: {options}");
    // And nothing is written below the mount point then.
    assert!(unit.contains("\nRequiresMountsFor=/var/lib/cbddc\n"));
}
