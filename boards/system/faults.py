"""Bad input: a card that is wrong, a clock that is wrong, a card twice. The board says so, and does not run hot."""

import json
import re
import shutil

from .guest import BOOT_PATIENCE
from .kinds import kind
from .lan import Lan
from .node import TOKEN
from .pair import converged
from .say import Failure, check, run, say, wait
from .site import Site, install_node, new_key, package, settings, together


def starts(board):
    """How often the service has been started since the board's boot."""
    return int(board.do("journalctl -b -u cbddc -o cat --no-pager | grep -c 'Starting cbddc.service\\|Starting .*CBDDC edge node' || true"))


def broken_configuration(model):
    with Site("broken", [package(model.arch)]) as site:
        board = site.board("broken", model).boot()
        board.do("mkdir -p /media/packages && mount -o ro /dev/vdb /media/packages")
        board.write("/etc/cbddc/appsettings.json", '{"CBDDC": {"Network": {"TcpPrt": 5000}}}')
        board.does(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{package(model.arch).name}")
        board.wait_for("the service has failed for good", "systemctl is-failed -q cbddc")
        board.wait_for("the failure is told", "systemctl show -p Result --value cbddc-failure | grep -q success && journalctl -u cbddc-failure -o cat | grep -q TcpPrt")
        text = board.console.read_text(errors="replace")
        check("cbddc does not run" in text and "error[CONFIG_ERROR]" in text and "TcpPrt" in text, f"not on the console:\n{text[-3000:]}")
        board.do("sleep 15")
        check(starts(board) == 1, f"tried {starts(board)} times")
        say("a broken configuration: told on the console and in the journal, tried once")
        board.write("/etc/cbddc/appsettings.json", settings())
        board.write("/etc/cbddc/api.token", "x\n")
        board.do("systemctl restart cbddc && cbddc health --token-file /etc/cbddc/api.token")
        say("mended and restarted: it serves")


FSTAB = "/dev/vdc /var/lib/cbddc ext4 {access},noatime,nofail,x-systemd.device-timeout={patience}s 0 2"
# For a disk that is there: an emulated board on a busy machine takes ten seconds alone to go through its devices.
DEVICE_PATIENCE = 180


def superblocks(disk):
    """Where a file system has its superblock and the copies of it: offsets in bytes."""
    told = run("dumpe2fs", str(disk))
    size = int(re.search(r"Block size:\s+(\d+)", told)[1])
    return [1024 if int(block) * size < 4096 else int(block) * size for block in re.findall(r"(?:Primary|Backup) superblock at (\d+)", told)], 1024


def first_inodes(disk):
    """Where its first group of inodes lies, the root directory's and the journal's among them."""
    told = run("dumpe2fs", str(disk))
    size = int(re.search(r"Block size:\s+(\d+)", told)[1])
    first, last = re.search(r"Inode table at (\d+)-(\d+)", told).groups()
    return [int(first) * size], (int(last) - int(first) + 1) * size


def spoil(disk, places):
    """Overwrites parts of a file system that holds a node's data."""
    offsets, length = places(disk)
    with open(disk, "r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(b"\xa5" * length)


def left_alone(board, what):
    """The board is up with all that does not need the partition, the node is not started, and nothing is in its place."""
    board.wait_for("the boot is over", "systemctl is-active -q multi-user.target && [ -z \"$(systemctl list-jobs --no-legend)\" ]")
    state = board.does("systemctl is-active cbddc")[1].strip()
    check(state == "inactive" and starts(board) == 0, f"{what}: the service is {state}, {starts(board)} starts")
    check(board.does("mountpoint -q /var/lib/cbddc")[0] != 0, f"{what}: it is mounted")
    check(board.do("ls -A /var/lib/cbddc").strip() == "", f"{what}: the empty mount point was written to")
    told = board.do("journalctl -b -o cat --no-pager | grep -E 'Dependency failed for (cbddc|CBDDC)|Dependency failed for .*cbddc|vdc|var-lib-cbddc' | sort -u | head -n 8")
    check("Dependency failed for" in told, f"{what}: not told in the journal:\n{told}")
    say(f"a data partition that is {what}: the board is up, the node not started, nothing written below its mount point; the journal:\n{told.rstrip()}")


def partition(model):
    """The data on a partition of its own, as docs/install.md sets it up, that is read-only at a boot, not there, or damaged."""
    with Site("partition", [package(model.arch)]) as site:
        disk, kept = (site.folder / name for name in ("data.raw", "kept.raw"))
        with open(disk, "wb") as file:
            file.truncate(192 * 1024 * 1024)
        run("mke2fs", "-q", "-t", "ext4", str(disk))
        board = site.board("parted", model, udev=True)
        board.data = [disk]
        board.boot()
        board.do(f"mkdir -p /var/lib/cbddc; echo '{FSTAB.format(access='rw', patience=DEVICE_PATIENCE)}' >> /etc/fstab; systemctl daemon-reload; mount /var/lib/cbddc")
        install_node(board, new_key())
        check(board.do("cbddc put notes kept 1").startswith("created"), "not stored")
        check("/dev/vdc" in board.do("df /var/lib/cbddc/data/cbddc.db"), "the data is not on its partition")

        def access(word, patience=DEVICE_PATIENCE):
            board.do(f"sed -i '$d' /etc/fstab; echo '{FSTAB.format(access=word, patience=patience)}' >> /etc/fstab; sync")

        # Read-only from the boot on: what the node finds is told, and tried again without haste.
        access("ro")
        board.reboot()
        told = board.wait_for("the read-only partition is told", "journalctl -b -u cbddc -o cat --no-pager | grep -i -m2 'read-only'")
        first = starts(board)
        board.do("sleep 30")
        more = starts(board) - first
        check(more <= 7, f"it runs hot on a read-only partition: {more} starts in 30 s")
        say(f"a read-only data partition: told, {more} more starts in 30 s: {told.strip()}")
        access("rw")
        board.do("mount -o remount,rw /var/lib/cbddc")
        board.wait_for("it starts by itself once it may write", "systemctl is-active -q cbddc")
        check(board.do("cbddc get notes kept").strip() == "1", "the document is gone")
        say("writable again: it serves by itself, with its document")
        access("rw", 10)
        board.shut_down()
        run("cp", "--sparse=always", str(disk), str(kept))

        board.data = []
        board.boot()
        left_alone(board, "missing")
        access("rw")
        board.shut_down()
        board.data = [disk]
        for places, what in ((superblocks, "damaged in its superblocks"), (first_inodes, "damaged in its first inodes")):
            run("cp", "--sparse=always", str(kept), str(disk))
            spoil(disk, places)
            board.boot()
            left_alone(board, what)
            board.shut_down()
        run("cp", "--sparse=always", str(kept), str(disk))
        board.boot()
        board.api.until_it_serves(BOOT_PATIENCE)
        check(board.do("cbddc get notes kept").strip() == "1", "the document is gone")
        say("the partition is back: it serves, with its document")


def waiting(board):
    """How many operations wait in the offline queue."""
    return board.api.json("/v1/status")["queue"]["length"]


def health(board, entry):
    """What the health report says of one thing: its status, and the sentence."""
    said = board.api.json("/health")["entries"][entry]
    return said["status"], said["description"]


def no_space(model):
    with Site("full", [package(model.arch)]) as site:
        board = site.board("full", model).boot()
        # Room for the package in what the file system keeps for root, none for the node; then less than it leaves to others.
        board.do("fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 4096)) /var/filler; dd if=/dev/zero of=/var/filler2 bs=1M 2>/dev/null; truncate -s -12M /var/filler2; sync")
        board.do("mkdir -p /media/packages; mount -o ro /dev/vdb /media/packages")
        board.write("/etc/cbddc/api.token", TOKEN + "\n")
        board.write("/etc/cbddc/appsettings.json", settings())
        board.does(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{package(model.arch).name}")
        told = board.wait_for("no room for the database is told", "journalctl -u cbddc -o cat --no-pager | grep -i -m1 'no space\\|disk is full\\|DiskFull'")
        board.do("sleep 20")
        check(starts(board) <= 10, f"it runs hot on a full card: {starts(board)} starts")
        say(f"no room at all at the first boot: told, not hot: {told.strip()}")

        # Less than MinFreeMb: what the store refuses waits in the offline queue, and that is said.
        board.do("rm /var/filler2; truncate -s -24M /var/filler; sync")
        board.wait_for("it starts by itself once it has room for a database", "systemctl is-active -q cbddc")
        board.api.until_it_serves(BOOT_PATIENCE)
        said = board.do("cbddc put notes a 1").strip()
        check(said == "queued, not on disk yet", f"a put on a full card says: {said}")
        check(waiting(board) == 1, f"{waiting(board)} operations wait")
        status, headers, body = board.api.whole("GET", "/v1/collections/notes/documents/a")
        check((status, body, headers.get("CBDDC-Queued"), headers.get("ETag")) == (200, b"1", "true", None), f"{status} {body!r} {headers}")
        check(board.do("cbddc get notes a").strip() == "1", "what waits is not shown")
        code, report = board.does("cbddc health")
        storage, queue = health(board, "storage"), health(board, "queue")
        check(code == 2 and storage[0] == "Unhealthy" and queue == ("Degraded", "1 operations wait until the store takes them"), f"{code} {storage} {queue} {report}")
        say(f"room for the database and no more: '{said}'; health: {storage[1]}; {queue[1]}")
        board.do("systemctl restart cbddc")
        board.api.until_it_serves(BOOT_PATIENCE)
        check(waiting(board) == 1 and board.do("cbddc get notes a").strip() == "1", "a restart on the full card has lost what waited")
        say("restarted on the full card: it still waits")

        # Nobody asks for it again.
        board.do("rm /var/filler")
        wait("what waited is carried out", BOOT_PATIENCE, lambda: waiting(board) == 0)
        status, headers, _ = board.api.whole("GET", "/v1/collections/notes/documents/a")
        check(status == 200 and "CBDDC-Queued" not in headers and headers.get("ETag"), f"not on disk: {status} {headers}")
        board.wait_for("health is Healthy", "cbddc health")
        board.cut_power()
        board.boot()
        board.api.until_it_serves(BOOT_PATIENCE)
        check(board.do("cbddc get notes a").strip() == "1", "what was said to be on disk is gone after a power cut")
        say("room again: on disk by itself, and there after a power cut")


def clock(model):
    """1970 at every boot: the order of versions goes on, nothing is refused."""
    with Site("clock", [package(model.arch)]) as site:
        board = site.board("clockless", model)
        early = ["-rtc", "base=1970-01-01T00:00:10"]
        board.boot(early)
        install_node(board, new_key())
        stamps, years = [], set()
        for number in range(3):
            # systemd itself moves the clock to the date of its own release, as it does on every board without one.
            years.add(board.do("date +%Y").strip())
            believed = board.api.json("/health")["entries"]["clock"]["data"]
            check(believed == {"believed": False, "synchronised": False}, f"a clock that nobody has set: {believed}")
            # The first 16 digits of a version are its stamp.
            stamps.append(int(json.loads(board.do(f"cbddc put notes clock {number} --json"))["version"].split("-")[0], 16))
            check(board.do("cbddc get notes clock").strip() == str(number), "an older value won")
            if number < 2:
                board.shut_down()
                board.boot(early)
                board.api.until_it_serves(BOOT_PATIENCE)
        check(stamps == sorted(set(stamps)), f"the stamps of three boots do not rise: {stamps}")
        board.wait_for("health is Healthy", "cbddc health")
        say(f"a clock that begins in 1970 at every boot, which systemd makes {' and '.join(sorted(years))}: not believed, and the stamps"
            f" rise: {' < '.join(f'{stamp:016x}' for stamp in stamps)}")


def cloned(board):
    """What a board's log says of being one of two."""
    words = "another device has this device.s key|disk was rolled back or cloned"
    return board.do(f"journalctl -b -u cbddc -o cat --no-pager | grep -E '{words}' || true").strip()


def twice(model):
    """The card of a node that has run, on two boards: they notice, one takes a new identity, and nothing is lost."""
    with Site("twice", [package(model.arch)]) as site:
        site.lan = Lan(site.folder)
        first = site.board("first", model, address="10.77.0.2/24").boot()
        key = new_key()
        install_node(first, key)
        first.do("cbddc put notes before 1")
        first.shut_down()
        second = site.board("second", model, address="10.77.0.3/24")
        shutil.copy(first.disk, second.disk)
        together(first.boot, second.boot)
        boards = (first, second)
        for board in boards:
            board.api.until_it_serves(BOOT_PATIENCE)
        wait("one of the two says that it has a new key", BOOT_PATIENCE, lambda: any("key" in cloned(board) for board in boards))
        first.do("cbddc put notes first 1")
        second.do("cbddc put notes second 1")
        converged(boards, "notes", 3)
        # Each with an identity of its own, in the order in which it is looked for: the device, the name, the writer of versions.
        devices = {board.do("sha256sum < /var/lib/cbddc/data/device.key") for board in boards}
        said = [board.api.json("/v1/status") for board in boards]
        check(len(devices) == 2, "two cards are one device")
        for field in ("nodeId", "replicaId"):
            check(said[0][field] != said[1][field], f"two cards have one {field}: {said[0][field]}")
        renamed = [board for board in boards if "key" in cloned(board)]
        check(len(renamed) == 1, f"{len(renamed)} of two took another key")
        told = [error["message"] for error in renamed[0].api.json("/v1/status")["recentErrors"]]
        check(any("another device had this device's key" in text for text in told), f"its status does not tell: {told}")
        for board, other in zip(boards, reversed(said)):
            board.wait_for("the other one is its peer", f"cbddc peers | grep -q {other['nodeId']}")
        for board in boards:
            say(f"{board.name} says: {cloned(board)}")
        say(f"a running card on two boards: {said[0]['nodeId']} and {said[1]['nodeId']}, one set of documents")


def faults(which="arm64", names=()):
    """All of them, or those that are named."""
    tests = {each.__name__: each for each in (broken_configuration, clock, no_space, partition, twice)}
    if unknown := set(names) - set(tests):
        raise Failure(f"{', '.join(sorted(unknown))}: there are {', '.join(tests)}")
    for each in names or tests:
        tests[each](kind(which))
