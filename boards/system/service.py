"""The package and its service on a booted board: start, watchdog, upgrade, downgrade, removal, purge."""

import re

from .base import TOP
from .guest import BOOT_PATIENCE, install
from .image import BOARDS
from .say import check, say
from .site import Site, install_node, new_key, package, settings

EXPOSURE_MAX = 2.0


def main_pid(board):
    return int(board.do("systemctl show -p MainPID --value cbddc"))


def restarted(board, before, patience=BOOT_PATIENCE):
    board.wait_for("another process serves", f"p=$(systemctl show -p MainPID --value cbddc); [ $p != 0 ] && [ $p != {before} ] && systemctl is-active -q cbddc", patience)
    board.api.until_it_serves(BOOT_PATIENCE)
    return main_pid(board)


def has_data(board):
    check(board.do("cbddc get notes kept").strip() == '"all the while"', f"{board.name}: the document is gone")


def identity(board):
    return board.do("sha256sum /var/lib/cbddc/data/device.key /var/lib/cbddc/data/cluster.key")


def service(arch="arm64"):
    older, newer = package(arch, "0.1.0"), package(arch, "0.99.0")
    with Site("service", [older, newer]) as site:
        board = site.board("served", arch).boot()
        key = new_key()
        contents = board.do(f"mkdir -p /media/packages && mount -o ro /dev/vdb /media/packages && dpkg -c /media/packages/{older.name}")
        check("key" not in contents and "/var/lib" not in contents, f"an identity in the package:\n{contents}")
        install_node(board, key)
        board.do("cbddc put notes kept '\"all the while\"'")
        check(key in board.do("cat /var/lib/cbddc/data/cluster.key"), "the credential did not become the key")
        who = identity(board)
        owner = board.do("stat -c %U:%a /var/lib/cbddc/data/cbddc.db; ps -o user= -p $(systemctl show -p MainPID --value cbddc)").split()
        check(owner == ["cbddc:600", "cbddc"], f"owner, mode and user: {owner}")
        health = board.do("cbddc health")
        check("Healthy" in health, health)
        say("installed: it serves, as a user of its own, with the key that it was handed")

        said = board.do("systemd-analyze security --no-pager cbddc.service | tail -n 2")
        exposure = float(re.search(r"([0-9]+\.[0-9]+) (OK|MEDIUM|SAFE|EXPOSED|UNSAFE)", said)[1])
        check(exposure <= EXPOSURE_MAX, f"systemd-analyze security: {said}")
        say(f"systemd-analyze security: {exposure}, at most {EXPOSURE_MAX}")

        pid = main_pid(board)
        board.do(f"kill -KILL {pid}")
        pid = restarted(board, pid)
        has_data(board)
        say("kill -9: started again")
        board.do(f"kill -STOP {pid}")
        pid = restarted(board, pid)
        check("watchdog" in board.journal(200).lower(), "the journal does not tell of the watchdog")
        has_data(board)
        say("SIGSTOP: started again by the watchdog")

        # Over a running node, up and down.
        for name, version in ((newer.name, "0.99.0"), (older.name, older.name.split("_")[1])):
            install(board, name)
            now = board.do("dpkg-query -W -f '${Version}' cbddc")
            check(now.startswith(version.split("-")[0]), f"{now} is installed, not {version}")
            pid = restarted(board, pid)
            has_data(board)
            check(identity(board) == who, f"another identity after the change to {version}")
            check(board.do("cat /etc/cbddc/appsettings.json").strip() == settings().strip(), "the configuration was replaced")
            say(f"{now} over the running node: data, identity and configuration are kept")

        board.do("dpkg -r cbddc")
        check(board.does("systemctl is-active -q cbddc")[0] != 0, "it runs although it was removed")
        check(identity(board) == who, "removal has taken the identity away")
        board.do("test -s /var/lib/cbddc/data/cbddc.db && test -s /etc/cbddc/appsettings.json")
        install(board, newer.name)
        board.api.until_it_serves(BOOT_PATIENCE)
        has_data(board)
        say("removed and installed again: data and configuration were kept")
        board.reboot()
        board.api.until_it_serves(BOOT_PATIENCE)
        has_data(board)
        say("started by itself after a boot")
        limit = board.do("systemctl show -p MemoryMax --value cbddc; cat /etc/systemd/system/cbddc.service.d/board.conf")
        # The budget of the board, and a quarter.
        ram_mib = int(re.search(r"\nram_mib = (\d+)", (TOP / "boards" / f"{BOARDS[arch]}.toml").read_text())[1])
        check(limit.startswith(f"{ram_mib * 5 // 4 * 1024 * 1024}\n"), f"the memory limit is not that of {BOARDS[arch]}: {limit}")
        say(f"the memory limit is that of the board: {ram_mib * 5 // 4} MiB")
        purged(board)
        say("purged: nothing is left")
        # The layout of docs/install.md, where the folder cannot be removed.
        board.do("mkdir /var/lib/cbddc && mount -t tmpfs -o size=64m tmpfs /var/lib/cbddc")
        install_node(board, key, older.name)
        board.do("cbddc put notes apart 1 && test -s /var/lib/cbddc/data/cbddc.db")
        purged(board)
        say("purged with the data on a file system of its own: nothing is left on it")


def purged(board):
    board.do("dpkg -P cbddc")
    left = board.do("ls -A /var/lib/cbddc /etc/cbddc /etc/systemd/system/cbddc.service.d 2>/dev/null || true; dpkg-query -W -f '${db:Status-Status}' cbddc 2>/dev/null || true")
    lines = [line for line in left.splitlines() if line and not line.endswith(":")]
    check(lines in ([], ["not-installed"]), f"purge left {lines}")
    check(board.does("test -e /etc/systemd/system/multi-user.target.wants/cbddc.service")[0] != 0, "purge left the service enabled")
