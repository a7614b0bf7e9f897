"""What an emulated board boots: a Debian system made by mmdebstrap, its kernel, and an initramfs with few drivers.

Made once for each architecture and recipe and kept in target/boards; a board gets a disk of its own on top of it.
"""

import hashlib
import inspect
import os
import shutil
import subprocess
from pathlib import Path

from .say import Failure, attempt, run, say

TOP = Path(__file__).resolve().parents[2]
PLACE = TOP / "target" / "boards"
SUITE = "bookworm"
DISK_MIB = 768
# Beside what every Debian has: systemd as the first process, devices, addresses, and a look at processes. The one that says
# that /usr is merged, which it is from the start, stands in for the one that merges it, with the whole of Perl.
PACKAGES = "systemd-sysv,udev,iproute2,procps,usr-is-merged"
LEFT_OUT = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"]
KERNELS = {"arm64": "linux-image-arm64", "armhf": "linux-image-armmp", "amd64": "linux-image-cloud-amd64"}
# In the order in which they are wanted; what one needs, modules.dep says. One that is built in is not there.
MODULES = [
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng", "af_packet", "crc32c_generic",
    "ext4",
]


def mirror():
    """Where Debian comes from: as the variable says, else where this machine has its own packages from."""
    told = os.environ.get("CBDDC_DEBIAN_MIRROR")
    if told:
        return told
    known = run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages").split()
    plain = [address for address in known if address.rstrip("/").endswith("/debian")]
    if not plain:
        raise Failure("apt knows no mirror of Debian here: name one in CBDDC_DEBIAN_MIRROR")
    return plain[0].rstrip("/")


INIT = r"""#!/bin/busybox sh
# Drivers, the root file system, the addresses that the tests gave on the kernel's command line; then Debian's own init.
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module 2>/dev/null; done
root= lan=
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${word#root=} ;; lan=*) lan=${word#lan=} ;; esac
done
ip link set lo up
ip addr add 10.0.2.15/24 brd + dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
[ -n "$lan" ] && ip addr add $lan brd + dev eth1 && ip link set eth1 up
tries=0
until [ -b "$root" ] || [ $tries -ge 100 ]; do sleep 0.1; tries=$((tries + 1)); done
mount -t ext4 -o rw,noatime "$root" /system || { echo "no root file system on $root"; sleep 3; reboot -f; }
mount --move /dev /system/dev; umount /proc /sys
exec switch_root /system /sbin/init
"""

AGENT = r"""#!/bin/bash
# Carries out what the tests ask for over a virtio port: a command in base64 a line in, its exit code and output out.
while :; do
    # Not by its name below /dev/virtio-ports: that is made by udev, late.
    port=$(grep -lx agent /sys/class/virtio-ports/*/name 2>/dev/null | head -n 1)
    port=${port%/name}
    if [ -n "$port" ] && exec 3<>"/dev/${port##*/}"; then
        while IFS= read -r line <&3; do
            command=$(printf %s "$line" | base64 -d)
            output=$(timeout 3600 bash -c "$command" 2>&1 </dev/null 3<&- | base64 -w0; exit "${PIPESTATUS[0]}")
            printf '%s %s\n' "$?" "$output" >&3
        done
    fi
    sleep 0.1
done
"""

AGENT_UNIT = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/usr/local/sbin/agent
Restart=always
RestartSec=1
StandardInput=null
[Install]
WantedBy=sysinit.target
"""

HOOK = r"""#!/bin/sh
# Runs while the lists of packages are still there: the kernel and a static shell for the initramfs, and the packages of the
# system itself, all of them unpacked by the caller.
set -e
mkdir "$1/system"
mv "$3"/var/cache/apt/archives/*.deb "$1/system/"
cd "$1"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends "$2" | sed -n 's/.*Depends: \(linux-image-[0-9][^ :]*\).*/\1/p' | head -n 1)
apt-get download "$kernel" busybox-static
"""


def recipe():
    """What the result depends on, as a few digits: another recipe makes another base."""
    said = [INIT, AGENT, AGENT_UNIT, HOOK, PACKAGES, SUITE, DISK_MIB, MODULES, LEFT_OUT, KERNELS, UNITS_OFF, GENERATORS_OFF]
    said += [inspect.getsource(each) for each in (Base.make_in, Base.make_initramfs, unsigned, module_order, finish_root, make_disk)]
    return hashlib.sha256(repr(said).encode()).hexdigest()[:10]


class Base:
    """The files that a board of one architecture starts from."""

    def __init__(self, arch):
        self.arch = arch
        self.folder = PLACE / f"{arch}-{recipe()}"
        self.disk, self.kernel, self.initramfs = (self.folder / name for name in ("disk.raw", "kernel", "initramfs"))

    def made(self):
        """Itself, made if it was not there."""
        if not (self.folder / "done").exists():
            if os.geteuid() != 0:
                raise Failure("the base of the boards is made as root")
            say(f"making the {self.arch} base: Debian {SUITE} by mmdebstrap, some minutes")
            attempt(3, lambda: self.make())
        return self

    def make(self):
        """In memory, since dpkg syncs each file that it writes. What this machine can do itself is not emulated: packages
        are fetched and unpacked here, and only their own scripts run in the new system."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        work = self.folder / "work"
        work.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=3G", "tmpfs", str(work))
        try:
            self.make_in(work)
        finally:
            run("umount", "-R", "-l", str(work))
        work.rmdir()
        (self.folder / "done").touch()

    def make_in(self, work):
        root, fetched, modules = (work / name for name in ("root", "fetched", "modules"))
        fetched.mkdir()
        hook = work / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        merged = 'cd "$1" && for name in bin sbin lib lib32 lib64 libx32; do mkdir -p usr/$name; ln -s usr/$name $name; done'
        excludes = [f"path-exclude={path}" for path in LEFT_OUT]
        run(
            "mmdebstrap", "--quiet", "--format=directory", "--mode=root", "--variant=extract", f"--architectures={self.arch}",
            "--include=?essential", f"--include={PACKAGES}", "--skip=chroot/mount,cleanup/apt",
            f"--setup-hook={merged}", *(f"--dpkgopt={exclude}" for exclude in excludes),
            f"--extract-hook={hook} {fetched} {KERNELS[self.arch]} {root}",
            SUITE, str(root), f"deb {mirror()} {SUITE} main", timeout=1800,
        )
        # mmdebstrap has only laid out the files. What dpkg knows of them, and each package's own set-up, come here.
        unpacked = sorted(str(package) for package in (fetched / "system").glob("*.deb"))
        dpkg = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
        run(*dpkg, "dpkg", f"--root={root}", "--force-all", *(f"--{exclude}" for exclude in excludes), "--unpack", *unpacked, timeout=1800)
        run("mount", "-t", "proc", "proc", str(root / "proc"))
        run(*dpkg, "chroot", str(root), "dpkg", "--force-unsafe-io", "--configure", "-a", timeout=3600)
        run("umount", str(root / "proc"))
        for package in fetched.glob("*.deb"):
            run("dpkg-deb", "-x", str(package), str(modules))
        shutil.copy(next(modules.glob("boot/vmlinuz-*")), self.kernel)
        self.make_initramfs(modules, work / "tree")
        finish_root(root)
        make_disk(root, self.disk)

    def make_initramfs(self, unpacked, tree):
        version = next(unpacked.glob("lib/modules/*")).name
        run("depmod", "-b", str(unpacked), version)
        for name in ("bin", "proc", "sys", "dev", "system", "modules"):
            (tree / name).mkdir(parents=True)
        shutil.copy(unpacked / "bin" / "busybox", tree / "bin" / "busybox")
        order = module_order(unpacked / "lib" / "modules" / version)
        for module in order:
            # Without its signature, which an emulated processor takes its time to verify.
            (tree / "modules" / module.name).write_bytes(unsigned(module.read_bytes()))
        (tree / "modules" / "order").write_text("\n".join(module.name for module in order) + "\n")
        (tree / "init").write_text(INIT)
        (tree / "init").chmod(0o755)
        names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
        archive = subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True
        ).stdout
        self.initramfs.write_bytes(archive)


SIGNED = b"~Module signature appended~\n"


def unsigned(module):
    """A kernel module without what stands behind it: the signature, twelve bytes whose last four are its length, a mark."""
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    return module[: end - 12 - int.from_bytes(module[end - 4 : end], "big")]


def module_order(folder):
    """The wanted modules, each behind those that it needs."""
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    plain = lambda path: Path(path).name.split(".")[0].replace("-", "_")
    by_name = {plain(path): path for path in needs}
    order = []
    for name in MODULES:
        path = by_name.get(name.replace("-", "_"))
        if path is None:
            continue
        # modules.dep names the farthest need last.
        for each in [*reversed(needs[path]), path]:
            if folder / each not in order:
                order.append(folder / each)
    return order


# What a board without a screen, a login or a bus has no use for. Each is a program that is started, or looked for, at every boot,
# and an emulated one takes its time.
UNITS_OFF = [
    "apt-daily-upgrade.timer", "apt-daily.timer", "dbus.socket", "dev-hugepages.mount", "dev-mqueue.mount", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty-static.service", "getty@tty1.service", "kmod-static-nodes.service",
    "modprobe@.service", "proc-sys-fs-binfmt_misc.automount", "procps.service", "serial-getty@ttyAMA0.service",
    "serial-getty@ttyS0.service", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-binfmt.service",
    "systemd-logind.service", "systemd-modules-load.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service",
    "systemd-random-seed.service", "systemd-remount-fs.service", "systemd-sysctl.service", "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service", "systemd-tmpfiles-setup.service", "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service", "systemd-user-sessions.service",
]
GENERATORS_OFF = [
    "bless-boot", "cryptsetup", "getty", "gpt-auto", "hibernate-resume", "integritysetup", "rc-local", "run", "system-update", "sysv",
    "veritysetup",
]


def finish_root(root):
    """What makes of a fresh system a board of the tests: the agent, a journal that stays, nothing that waits for anybody."""
    agent = root / "usr/local/sbin/agent"
    agent.write_text(AGENT)
    agent.chmod(0o755)
    units, generators = root / "etc/systemd/system", root / "etc/systemd/system-generators"
    (units / "agent.service").write_text(AGENT_UNIT)
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    generators.mkdir(exist_ok=True)
    links = {units / unit: "/dev/null" for unit in UNITS_OFF}
    links |= {generators / f"systemd-{name}-generator": "/dev/null" for name in GENERATORS_OFF}
    links[units / "sysinit.target.wants" / "agent.service"] = "../agent.service"
    for path, target in links.items():
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    (root / "etc/fstab").write_text("/dev/vda1 / ext4 rw,noatime 0 0\n")
    (root / "etc/machine-id").write_text("")
    (root / "var/log/journal").mkdir(exist_ok=True)
    (root / "etc/hostname").unlink(missing_ok=True)
    # Packages are tried here, not dpkg's own care for the power.
    (root / "etc/dpkg/dpkg.cfg.d/boards").write_text("force-unsafe-io\n")
    # Says that what an update of /usr brings has been set up: else systemd looks at every boot.
    for folder in ("etc", "var"):
        (root / folder / ".updated").touch()


def make_disk(root, disk):
    """A raw image with one partition, as one writes it on a card."""
    start = 1024 * 1024
    partition = disk.with_suffix(".part")
    size = DISK_MIB * 1024 * 1024
    with open(partition, "wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(partition))
    with open(disk, "wb") as file:
        file.truncate(start + size)
    run("sfdisk", "-q", str(disk), stdin="label: dos\nstart=2048, type=83\n")
    run("dd", f"if={partition}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none")
    partition.unlink()
