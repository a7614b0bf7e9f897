"""Resident memory of the node inside a booted board: idle, and while it catches up with a neighbour."""

import re
import tempfile
import time
import tomllib

from .base import TOP
from .lan import Lan
from .pair import PATIENCE, ROWS, converged
from .say import check, say
from .site import Site, halves, install_node, new_key, package

IDLE_KB_MAX = {"arm64": 6 * 1024}
BOARDS = {"arm64": "qemu-virt-arm64", "armhf": "qemu-virt-armv7", "amd64": "generic"}


def status(board, field):
    text = board.do("cat /proc/$(systemctl show -p MainPID --value cbddc)/status")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def memory(arch="arm64", other="arm64"):
    with open(TOP / "boards" / f"{BOARDS[arch]}.toml", "rb") as file:
        budget = tomllib.load(file)["budget"]["ram_mib"] * 1024
    with tempfile.TemporaryDirectory() as parts, Site("memory", [package(arch), package(other)] + halves(parts)) as site:
        site.lan = Lan(site.folder)
        fresh = site.board("fresh", arch, address="10.77.0.2/24")
        full = site.board("full", other, address="10.77.0.3/24")
        key = new_key()
        fresh.boot()
        install_node(fresh, key)
        time.sleep(20)
        idle = status(fresh, "VmRSS")
        limit = IDLE_KB_MAX.get(arch, budget)
        parts_of = ", ".join(f"{field} {status(fresh, field)} kB" for field in ("RssAnon", "RssFile", "VmHWM"))
        say(f"idle: {idle} kB resident, at most {limit}; {parts_of}")
        check(idle <= limit, f"the idle node takes {idle} kB")
        # The neighbour gets all rows before the two know each other.
        site.lan.cut = True
        full.boot()
        install_node(full, key)
        for number in (1, 2):
            full.do(f"cbddc import temps /media/packages/temps-{number}.csv --key date", PATIENCE)
        for copy in range(3):
            full.do(f"(cat /media/packages/temps-1.csv; tail -n +2 /media/packages/temps-2.csv) > /run/all.csv && cbddc import copy{copy} /run/all.csv --key date", PATIENCE)
        site.lan.cut = False
        for collection in ("temps", "copy0", "copy1", "copy2"):
            converged([fresh, full], collection, ROWS)
        peak, after = status(fresh, "VmHWM"), status(fresh, "VmRSS")
        say(f"catching up with {4 * ROWS} documents: {peak} kB at most, {after} kB after it; the board's budget is {budget}")
        check(peak <= budget, f"the node took {peak} kB, the budget of {BOARDS[arch]} is {budget}")
