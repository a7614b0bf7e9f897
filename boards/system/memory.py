"""Resident memory of the node inside a booted board: idle, and while it catches up with a neighbour."""

import re
import time
import tomllib

from .base import TOP
from .guest import free_port
from .neighbour import Neighbour
from .pair import PATIENCE, ROWS, holds
from .say import check, say, wait
from .site import ROWS as ROWS_FILE
from .site import Site, install_node, new_key, package, sums

IDLE_KB_MAX = {"arm64": 6 * 1024}
BOARDS = {"arm64": "qemu-virt-arm64", "armhf": "qemu-virt-armv7", "amd64": "generic"}


def status(board, field):
    text = board.do("cat /proc/$(systemctl show -p MainPID --value cbddc)/status")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def memory(arch="arm64"):
    with open(TOP / "boards" / f"{BOARDS[arch]}.toml", "rb") as file:
        budget = tomllib.load(file)["budget"]["ram_mib"] * 1024
    with Site("memory", [package(arch)]) as site:
        link_port, key = free_port(), new_key()
        board = site.board("fresh", arch, forwards={link_port: 5000}).boot()
        install_node(board, key)
        time.sleep(20)
        idle = status(board, "VmRSS")
        limit = IDLE_KB_MAX.get(arch, budget)
        parts = ", ".join(f"{field} {status(board, field)} kB" for field in ("RssAnon", "RssFile", "VmHWM"))
        say(f"idle: {idle} kB resident, at most {limit}; {parts}")
        check(idle <= limit, f"the idle node takes {idle} kB")
        # One year of rows is there when the two meet, three more come while they are linked.
        with Neighbour(site.folder / "neighbour", key, link_port) as neighbour:
            done = 0
            for number in range(4):
                neighbour.do("import", f"year{number}", str(ROWS_FILE), "--key", "date")
                wait(f"the board has year {number}", PATIENCE, lambda: holds(board, f"year{number}") == ROWS)
                done += ROWS
                peak, now = status(board, "VmHWM"), status(board, "VmRSS")
                say(f"{done} documents caught up with: {peak} kB at most, {now} kB now; the board's budget is {budget}")
                check(peak <= budget, f"the node took {peak} kB, the budget of {BOARDS[arch]} is {budget}")
            here, there = neighbour.sums("year0"), sums(board, "year0")
            check(there == here and here[0] == ROWS, f"{arch} and x86-64 differ: {there}, {here}")
            say(f"{arch} and x86-64 hold the same year: {here[1][:16]}")
