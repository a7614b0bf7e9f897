"""Resident memory of the node inside a booted board: idle, and while it catches up with the foundation's 100 000 documents."""

import re
import time

from .guest import free_port
from .kinds import kind
from .neighbour import Neighbour
from .pair import PATIENCE, ROWS
from .say import check, say, wait
from .site import ROWS as ROWS_FILE
from .site import Site, install_node, new_key, package, sums

IDLE_KB_MAX = {"arm64": 6 * 1024}
# So many times the year of temperatures: 105 108 documents.
YEARS = 12


def status(board, field):
    text = board.do("cat /proc/$(systemctl show -p MainPID --value cbddc)/status")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


def figures(board):
    return ", ".join(f"{field} {status(board, field)} kB" for field in ("VmRSS", "RssAnon", "RssFile", "VmHWM"))


def whole(board):
    """How many years the board has all of."""
    answer = board.api.try_json("/v1/collections") or {"collections": []}
    return sum(each["documents"] == ROWS for each in answer["collections"])


def memory(which="arm64"):
    model = kind(which)
    budget = model.budget_mib * 1024
    with Site("memory", [package(model.arch)]) as site:
        link_port, key = free_port(), new_key()
        # All that is to be caught up with is there before the board is.
        neighbour = Neighbour(site.folder / "neighbour", key, link_port)
        with neighbour:
            for number in range(YEARS):
                neighbour.do("import", f"year{number:02}", str(ROWS_FILE), "--key", "date")
        board = site.board("fresh", model, forwards={link_port: 5000}).boot()
        install_node(board, key)
        check(model.name in board.do("cbddc config show | grep -i '^board'; journalctl -u cbddc -o cat --no-pager | grep board="), "another board's budget is in force")
        time.sleep(20)
        idle, limit = status(board, "VmRSS"), IDLE_KB_MAX.get(model.arch, budget)
        say(f"{model.name} idle: at most {limit} kB; {figures(board)}; of the board {board.do('free -k | grep Mem').strip()}")
        check(idle <= limit, f"the idle node takes {idle} kB, at most {limit} are allowed")
        pid = board.do("systemctl show -p MainPID --value cbddc")
        with neighbour:
            began, told = time.monotonic(), 0
            while told < YEARS:
                told = wait(f"the board has more than {told} years", PATIENCE, lambda: (years := whole(board)) > told and years)
                say(f"{told} of {YEARS} years: {figures(board)}")
            took = time.monotonic() - began
            peak = status(board, "VmHWM")
            say(f"{model.name} has caught up with {YEARS * ROWS} documents in {took:.0f} s: {peak} kB at most, its budget is {budget}")
            check(peak <= budget, f"the node took {peak} kB, the budget of {model.name} is {budget}")
            check(board.do("systemctl show -p MainPID --value cbddc") == pid, "the node was started again in between")
            for collection in ("year00", f"year{YEARS - 1:02}"):
                here, there = neighbour.sums(collection), sums(board, collection)
                check(there == here and here[0] == ROWS, f"{model.arch} and x86-64 differ: {there}, {here}")
            say(f"{model.arch} and x86-64 hold the same: {here[1][:16]}; afterwards {figures(board)}")
