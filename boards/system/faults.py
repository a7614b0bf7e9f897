"""Bad input: a card that is wrong, a clock that is wrong, a card twice. The board says so, and does not run hot."""

import re

from .lan import Lan
from .guest import BOOT_PATIENCE, install
from .pair import converged, linked
from .say import check, run, say
from .site import Site, install_node, new_key, package, settings, together


def starts(board):
    """How often the service has been started since the board's boot."""
    return int(board.do("journalctl -b -u cbddc -o cat --no-pager | grep -c 'Starting cbddc.service\\|Starting .*CBDDC edge node' || true"))


def broken_configuration(arch="arm64"):
    with Site("broken", [package(arch)]) as site:
        board = site.board("broken", arch).boot()
        board.do("mkdir -p /media/packages && mount -o ro /dev/vdb /media/packages")
        board.write("/etc/cbddc/appsettings.json", '{"CBDDC": {"Network": {"TcpPrt": 5000}}}')
        board.does(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{package(arch).name}")
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


def partition(arch="arm64"):
    """The data on a partition of its own that is read-only, damaged, or not there."""
    with Site("partition", [package(arch)]) as site:
        sound, damaged = (site.folder / name for name in ("sound.raw", "damaged.raw"))
        for disk in (sound, damaged):
            with open(disk, "wb") as file:
                file.truncate(8 * 1024 * 1024)
        run("mke2fs", "-q", "-t", "ext4", str(sound))
        board = site.board("parted", arch, udev=True)
        board.extra += [sound, damaged]
        board.boot()
        # The sound one is a disk that QEMU lets nobody write to: a card whose switch is on.
        board.do("mkdir -p /var/lib/cbddc; echo '/dev/vdc /var/lib/cbddc ext4 ro 0 0' >> /etc/fstab; systemctl daemon-reload; mount /var/lib/cbddc")
        board.write("/etc/cbddc/api.token", "x\n")
        board.does("mkdir -p /media/packages && mount -o ro /dev/vdb /media/packages")
        board.write("/etc/cbddc/appsettings.json", settings())
        board.does(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{package(arch).name}", BOOT_PATIENCE)
        board.wait_for("the read-only partition is told", "journalctl -u cbddc -o cat --no-pager | grep -i 'read-only file system'")
        board.do("sleep 20")
        check(starts(board) <= 10, f"it runs hot on a read-only partition: {starts(board)} starts")
        say("a read-only data partition: told, not hot")
        for disk, what in (("/dev/vdd", "damaged"), ("/dev/nonexistent", "missing")):
            board.do("systemctl stop cbddc; umount /var/lib/cbddc 2>/dev/null; sed -i '$d' /etc/fstab;"
                     f" echo '{disk} /var/lib/cbddc ext4 x-systemd.device-timeout=5 0 0' >> /etc/fstab; systemctl daemon-reload")
            code, said = board.does("systemctl restart cbddc", BOOT_PATIENCE)
            check(code != 0 and "ependency" in said, f"started on a partition that is {what}: {said}")
            check(board.do("ls -A /var/lib/cbddc").strip() == "", f"it wrote into the empty mount point of a {what} partition")
            say(f"a data partition that is {what}: not started, told, nothing written below its mount point")


def no_space(arch="arm64"):
    with Site("full", [package(arch)]) as site:
        board = site.board("full", arch).boot()
        # Room for the package in what the file system keeps for root, none for the node; then less than it leaves to others.
        board.do("fallocate -l $(($(df --output=avail -B1 / | tail -n 1) - 4096)) /var/filler; dd if=/dev/zero of=/var/filler2 bs=1M 2>/dev/null; truncate -s -12M /var/filler2; sync")
        board.do("mkdir -p /media/packages; mount -o ro /dev/vdb /media/packages")
        board.write("/etc/cbddc/api.token", "x\n")
        board.write("/etc/cbddc/appsettings.json", settings())
        board.does(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{package(arch).name}")
        told = board.wait_for("no room for the database is told", "journalctl -u cbddc -o cat --no-pager | grep -i -m1 'no space\\|disk is full\\|DiskFull'")
        board.do("sleep 20")
        check(starts(board) <= 10, f"it runs hot on a full card: {starts(board)} starts")
        say(f"no room at all at the first boot: told, not hot: {told.strip()}")
        board.do("rm /var/filler2; truncate -s -24M /var/filler; sync")
        board.wait_for("it starts by itself once it has room for a database", "systemctl is-active -q cbddc")
        code, said = board.does("cbddc put notes a 1 --token-file /etc/cbddc/api.token")
        check(code != 0 and "free" in said, f"a full card took a document: {said}")
        say(f"room for the database and no more: it serves, and refuses documents: {said.strip()}")
        board.do("rm /var/filler")
        board.wait_for("it takes documents once there is room", "cbddc put notes a 1 --token-file /etc/cbddc/api.token")
        say("takes them once there is room")


def clock(arch="arm64"):
    """1970 at every boot: the order of versions goes on, nothing is refused."""
    with Site("clock", [package(arch)]) as site:
        board = site.board("clockless", arch)
        early = ["-rtc", "base=1970-01-01T00:00:10"]
        board.boot(early)
        install_node(board, new_key())
        stamps = []
        for number in range(3):
            year = board.do("date +%Y").strip()
            # systemd itself moves the clock to the date of its own release, as it does on every board without one.
            stamps.append(board.do(f"cbddc put notes clock {number} --json").strip())
            check(board.do("cbddc get notes clock").strip() == str(number), "an older value won")
            if number < 2:
                board.shut_down()
                board.boot(early)
                board.api.until_it_serves(BOOT_PATIENCE)
        board.wait_for("health is Healthy", "cbddc health")
        say(f"a clock that begins in 1970 at every boot (the board believed it was {year}): each write wins over the one before")


def twice(arch="arm64"):
    """One image on two cards, before the first start and after it: two nodes of one cluster, never one."""
    import shutil

    with Site("twice", [package(arch)]) as site:
        site.lan = Lan(site.folder)
        first = site.board("first", arch, address="10.77.0.2/24").boot()
        key = new_key()
        install_node(first, key)
        first.do("cbddc put notes before 1")
        first.shut_down()
        second = site.board("second", arch, address="10.77.0.3/24")
        shutil.copy(first.disk, second.disk)
        together(first.boot, second.boot)
        for board in (first, second):
            board.api.until_it_serves(BOOT_PATIENCE)
        first.wait_for("the two have told each other apart",
                       "journalctl -b -u cbddc -o cat --no-pager | grep -q 'another device has this device\\|disk was rolled back or cloned\\|takes a new identity\\|peer linked'", 600)
        first.do("cbddc put notes first 1")
        second.do("cbddc put notes second 1")
        converged([first, second], "notes", 3)
        devices = {board.do("sha256sum < /var/lib/cbddc/data/device.key") for board in (first, second)}
        check(len(devices) == 2, "two cards are one device")
        say("a running card on two boards: two devices, one set of documents")


def faults(arch="arm64"):
    broken_configuration(arch)
    clock(arch)
    no_space(arch)
    partition(arch)
    twice(arch)
