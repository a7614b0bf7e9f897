"""Resident memory of the node inside a booted board: idle, and while it catches up with a neighbour."""

import hashlib
import json
import re
import subprocess
import time
import tomllib

from .base import TOP
from .guest import BOOT_PATIENCE, free_port
from .node import TOKEN, Api
from .pair import PATIENCE, ROWS, holds
from .say import check, run, say, wait
from .site import ROWS as ROWS_FILE
from .site import Site, install_node, new_key, package, sums

IDLE_KB_MAX = {"arm64": 6 * 1024}
BOARDS = {"arm64": "qemu-virt-arm64", "armhf": "qemu-virt-armv7", "amd64": "generic"}


def status(board, field):
    text = board.do("cat /proc/$(systemctl show -p MainPID --value cbddc)/status")
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1])


class Neighbour:
    """A node on this machine, of the amd64 package's program, that dials the board: no second board has to be emulated."""

    def __init__(self, folder, key, board_port):
        self.folder = folder
        run("dpkg-deb", "-x", str(package("amd64")), str(folder / "program"))
        (folder / "key").write_text(key + "\n")
        (folder / "key").chmod(0o600)
        (folder / "token").write_text(TOKEN + "\n")
        port = free_port()
        (folder / "settings.json").write_text(json.dumps({"CBDDC": {
            "Cluster": {"KeyFile": str(folder / "key"), "Peers": [f"127.0.0.1:{board_port}"]},
            "Persistence": {"DatabasePath": str(folder / "data" / "cbddc.db"), "BackupPath": str(folder / "backups")},
            "Network": {"EnableDiscovery": False, "ListenAddress": "127.0.0.1", "TcpPort": 0},
            "Api": {"HttpAddress": f"127.0.0.1:{port}", "TokenFile": str(folder / "token")},
        }}))
        self.api, self.process = Api(f"127.0.0.1:{port}"), None

    def __enter__(self):
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(self.line("run"), stdout=log, stderr=log)
        self.api.until_it_serves(BOOT_PATIENCE)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def line(self, *words):
        return [str(self.folder / "program/usr/bin/cbddc"), *words, "--config", str(self.folder / "settings.json")]

    def do(self, *words):
        return run(*self.line(*words), timeout=BOOT_PATIENCE)


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
        folder = site.folder / "neighbour"
        folder.mkdir()
        with Neighbour(folder, key, link_port) as neighbour:
            done = 0
            for number in range(4):
                neighbour.do("import", f"year{number}", str(ROWS_FILE), "--key", "date")
                wait(f"the board has year {number}", PATIENCE, lambda: holds(board, f"year{number}") == ROWS)
                done += ROWS
                peak, now = status(board, "VmHWM"), status(board, "VmRSS")
                say(f"{done} documents caught up with: {peak} kB at most, {now} kB now; the board's budget is {budget}")
                check(peak <= budget, f"the node took {peak} kB, the budget of {BOARDS[arch]} is {budget}")
            here = hashlib.sha256(neighbour.do("export", "year0").encode()).hexdigest()
            there = sums(board, "year0")
            check(there == (ROWS, here), f"{arch} and x86-64 differ: {there}, {here}")
            say(f"{arch} and x86-64 hold the same year: {here[:16]}")
