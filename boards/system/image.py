"""An image of boards/image, on two cards: it sets itself up at the first boot, and makes two nodes of one cluster."""

import subprocess

from .base import TOP, Base
from .lan import Lan
from .node import TOKEN
from .pair import converged, linked
from .say import check, run, say
from .site import Site, new_key, package, settings, together

TARGETS = {
    "arm64": "aarch64-unknown-linux-musl", "armhf": "armv7-unknown-linux-musleabihf", "amd64": "x86_64-unknown-linux-musl",
}
BOARDS = {"arm64": "qemu-virt-arm64", "armhf": "qemu-virt-armv7", "amd64": "generic"}


def refused(site, made, reason, *line):
    """Neither the image nor a part of it is left."""
    ran = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(ran.returncode != 0 and reason in ran.stdout, f"not refused for {reason}: {ran.stdout}")
    check(not list(site.folder.glob(f"{made.name}*")), "half an image is left behind")


def image(arch="arm64"):
    with Site("image", [package(arch)]) as site:
        site.lan = Lan(site.folder)
        key, config, made = (site.folder / name for name in ("key", "config", "card.raw"))
        secret = new_key()
        key.write_text(secret + "\n")
        config.write_text(settings(Api={"HttpAddress": "127.0.0.1:5080", "TokenFile": None}))
        base = str(Base(arch).made().disk)
        line = [str(TOP / "boards/image"), "--base", base, "--package", str(package(arch)), "-o", str(made), "--board"]
        wrong = site.folder / "wrong"
        wrong.write_text('{"CBDDC": {"Network": {"TcpPrt": 5000}}}')
        refused(site, made, f"is {TARGETS[arch]}", *line, "pi-zero-w")
        refused(site, made, "TcpPrt", *line, BOARDS[arch], "--config", str(wrong))
        say("a board that cannot run it and a wrong configuration are refused, and nothing is left behind")
        said = run(*line, BOARDS[arch], "--key", str(key), "--config", str(config))
        say(said.strip().splitlines()[-1])
        one, two = (site.board(name, arch, address=f"10.77.0.{n}/24", disk=made) for n, name in ((2, "card-a"), (3, "card-b")))
        together(one.boot, two.boot)
        for board in (one, two):
            board.wait_for("the node serves", "cbddc health --json >/dev/null; [ $? -le 1 ]", 600)
            check(board.do("dpkg-query -W -f '${Status}' cbddc") == "install ok installed", "the package is not set up")
            check(secret in board.do("cat /var/lib/cbddc/data/cluster.key"), "the image's key is not the node's")
            check(board.does("test -e /etc/systemd/system/multi-user.target.wants/cbddc-first-boot.service")[0] != 0, "it is set up at each boot")
            check(BOARDS[arch] in board.do("cbddc config show | grep -i board; journalctl -u cbddc -o cat | grep board="), "another board")
        devices = {board.do("sha256sum < /var/lib/cbddc/data/device.key") for board in (one, two)}
        machines = {board.do("cat /etc/machine-id") for board in (one, two)}
        check(len(devices) == 2 and len(machines) == 2, "two cards of one image are one device")
        linked(one, two.name)
        one.do("cbddc put notes a 1")
        two.do("cbddc put notes b 2")
        converged([one, two], "notes", 2)
        say("one image, two cards: two devices, one cluster, the same documents")
