"""One emulated board: a QEMU process with a disk of its own, a console that is kept, and an agent that carries out commands."""

import base64
import os
import shlex
import shutil
import socket
import subprocess
import time

from .base import Base
from .kinds import kind
from .node import Api
from .say import Failure, check, run, say, wait

# Emulated, on a machine that does something else as well: a boot takes 20 s alone and minutes where everybody builds.
BOOT_PATIENCE = int(os.environ.get("CBDDC_BOARDS_PATIENCE", "900"))
BOOT_ATTEMPTS = 2

EMULATORS = {"arm64": "qemu-system-aarch64", "armhf": "qemu-system-arm", "amd64": "qemu-system-x86_64"}
CONSOLES = {"arm64": "ttyAMA0", "armhf": "ttyAMA0", "amd64": "ttyS0"}


# Of the kernel's own checks and hardenings those that an emulated processor pays for at every boot.
PLAIN = "nokaslr audit=0 lsm= selinux=0 mitigations=off init_on_alloc=0 cryptomgr.notests rcupdate.rcu_expedited=1"
# Off on a board that is booted again and again (`quick`): it mends its files after every cut.
JOURNAL = [
    "systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket",
    "systemd-journal-flush.service",
]
# Only where a disk is to be waited for: it goes through all devices at every boot.
UDEV = ["systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udev-trigger.service"]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Board:
    """A machine. Off at first; `boot` and `cut_power` as often as wanted, always with the same disk. `which`: the name of a board
    file, or a package architecture."""

    def __init__(self, folder, name, which, lan=None, address=None, disk=None, extra=(), udev=False, quick=False, forwards=()):
        self.folder, self.name, self.kind = folder / name, name, kind(which)
        self.arch = arch = self.kind.arch
        self.lan, self.address = lan, address
        # Disks beside its own, raw: those that are only read, then those of `data`.
        self.extra, self.data = list(extra), []
        # Ports of this machine that lead to ports of the board.
        self.udev, self.quick, self.forwards = udev, quick, dict(forwards)
        self.base = Base(arch).made()
        self.folder.mkdir(parents=True)
        self.disk = self.folder / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk or self.base.disk), str(self.disk))
        self.console = self.folder / "console.log"
        self.machine = self.agent = self.answers = None
        self.api = None

    def command(self, port):
        # Where the file system below has no O_DIRECT, writethrough is as strict and slower.
        cache = "none" if direct_io(self.folder) else "writethrough"
        words = f"root=/dev/vda1 console={CONSOLES[self.arch]} net.ifnames=0 quiet loglevel=4 systemd.hostname={self.name} panic=-1 {PLAIN}"
        masked = [*([] if self.udev else UDEV), *(JOURNAL if self.quick else [])]
        words += "".join(f" systemd.mask={unit}" for unit in masked)
        if self.address:
            words += f" lan={self.address}"
        disks = [f"file={self.disk},if=none,id=disk0,format=qcow2,cache={cache}"]
        disks += [f"file={path},if=none,id=disk{n},format=raw,readonly=on" for n, path in enumerate(self.extra, 1)]
        disks += [f"file={path},if=none,id=disk{n},format=raw,cache={cache}" for n, path in enumerate(self.data, len(disks))]
        forwards = ",".join(f"hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in {port: 5080, **self.forwards}.items())
        line = [
            EMULATORS[self.arch], "-M", self.kind.machine, "-cpu", self.kind.cpu, "-m", str(self.kind.memory_mib), "-nographic", "-no-reboot", "-nodefaults",
            "-kernel", str(self.base.kernel), "-initrd", str(self.base.initramfs), "-append", words,
            "-serial", f"file:{self.console}",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,path={self.folder}/agent.sock,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=agent", "-device", "virtio-rng-pci",
            "-netdev", f"user,id=net0,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net0,romfile=",
        ]
        for number, disk in enumerate(disks):
            line += ["-drive", disk, "-device", f"virtio-blk-pci,drive=disk{number}"]
        if self.lan:
            line += [
                "-netdev", f"stream,id=net1,server=off,addr.type=unix,addr.path={self.lan.path}",
                "-device", f"virtio-net-pci,netdev=net1,romfile=,mac=52:54:00:77:00:{int(self.address.split('/')[0].split('.')[3]):02x}",
            ]
        return line

    def boot(self, more=()):
        """Until the agent answers. A boot that does not come is tried once more; what is proved comes after it."""
        for attempt in range(BOOT_ATTEMPTS):
            try:
                return self.boot_once(more)
            except Failure as failure:
                self.cut_power()
                if attempt + 1 == BOOT_ATTEMPTS:
                    raise Failure(f"{failure}\n{self.tail()}") from None
                say(f"{self.name} boots again, since: {failure}")

    def start(self, more=()):
        """Switched on, and not waited for."""
        port = free_port()
        (self.folder / "agent.sock").unlink(missing_ok=True)
        log = open(self.folder / "qemu.log", "ab")
        self.machine = subprocess.Popen([*self.command(port), *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        self.api = Api(f"127.0.0.1:{port}")

    def boot_once(self, more):
        began = time.monotonic()
        self.start(more)

        def connected():
            self.check_alive()
            agent = socket.socket(socket.AF_UNIX)
            try:
                agent.connect(str(self.folder / "agent.sock"))
                return agent
            except OSError:
                agent.close()
                return None

        self.agent = wait(f"{self.name} has an agent's socket", 60, connected)
        self.answers = self.agent.makefile("rb")
        self.agent.settimeout(BOOT_PATIENCE)
        try:
            self.send("true")
            self.receive()
        except (Failure, OSError):
            time.sleep(0.2)
            self.check_alive()
            raise Failure(f"{self.name} did not boot within {BOOT_PATIENCE} s") from None
        say(f"{self.name} ({self.arch}, {self.kind.memory_mib} MiB) has booted after {time.monotonic() - began:.1f} s")
        return self

    def check_alive(self):
        if self.machine.poll() is not None:
            said = (self.folder / "qemu.log").read_text(errors="replace")[-2000:]
            raise Failure(f"QEMU of {self.name} ended with {self.machine.returncode}: {said}")

    def send(self, command):
        self.agent.sendall(base64.b64encode(command.encode()) + b"\n")

    def receive(self):
        line = self.answers.readline()
        if not line:
            raise Failure(f"{self.name} is off")
        code, _, output = line.decode().strip().partition(" ")
        return int(code), base64.b64decode(output).decode(errors="replace")

    def does(self, command, patience=BOOT_PATIENCE):
        """Carries out a shell command on the board; its exit code and what it wrote."""
        self.agent.settimeout(patience)
        self.send(command)
        try:
            return self.receive()
        except TimeoutError:
            raise Failure(f"{self.name}: not done after {patience} s: {command}\n{self.tail()}") from None

    def do(self, command, patience=BOOT_PATIENCE):
        """The same; it must succeed."""
        code, output = self.does(command, patience)
        check(code == 0, f"{self.name}: exit code {code} of: {command}\n{output}")
        return output

    def write(self, path, text, mode="644"):
        encoded = base64.b64encode(text.encode()).decode()
        self.do(f"mkdir -p $(dirname {path}); (umask 077; echo {encoded} | base64 -d > {path}); chmod {mode} {path}")

    def wait_for(self, what, command, patience=BOOT_PATIENCE):
        """Until a command succeeds."""

        def poll():
            code, output = self.does(command)
            return (output or " ") if code == 0 else None

        try:
            return wait(f"{self.name}: {what}", patience, poll)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.journal()}") from None

    def journal(self, lines=60):
        command = "cat /run/cbddc.log" if self.quick else "journalctl -u cbddc -o cat --no-pager"
        try:
            return self.does(f"{command} | tail -n {lines}", 60)[1]
        except (Failure, OSError):
            return self.tail()

    def tail(self):
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "console: " + "\n".join(text.splitlines()[-25:])

    def cut_power(self):
        """SIGKILL: what the guest had not given to its disk is gone."""
        if self.machine:
            self.machine.kill()
            self.machine.wait()
        for end in (self.answers, self.agent):
            if end:
                end.close()
        self.machine = self.agent = self.answers = None

    def shut_down(self):
        """In order, as a person does it."""
        self.send("systemctl poweroff")
        try:
            self.machine.wait(BOOT_PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} does not stop\n{self.tail()}") from None
        self.cut_power()

    def reboot(self):
        self.shut_down()
        self.boot()

    def remove(self):
        self.cut_power()
        shutil.rmtree(self.folder, ignore_errors=True)


def install(board, package, key=None, settings=None):
    """The package from the second disk, with a key and settings in place before the first start, as docs/install.md says."""
    board.do("mkdir -p /media/packages /etc/cbddc && (mountpoint -q /media/packages || mount -o ro /dev/vdb /media/packages)")
    if key:
        board.write("/etc/cbddc/cluster.key", key + "\n", "600")
    if settings is not None:
        board.write("/etc/cbddc/appsettings.json", settings)
    board.do(f"DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /media/packages/{shlex.quote(package)}")


def packages_disk(folder, files):
    """A read-only disk with files on it."""
    tree, disk = folder / "packages", folder / "packages.raw"
    tree.mkdir(parents=True)
    total = 0
    for file in files:
        shutil.copy(file, tree / file.name)
        total += file.stat().st_size
    with open(disk, "wb") as made:
        made.truncate(max(16, total // 1024 // 1024 * 2 + 8) * 1024 * 1024)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk))
    shutil.rmtree(tree)
    return disk


def direct_io(folder):
    probe = folder / "direct"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT))
        return True
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
