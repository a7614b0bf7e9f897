"""What the tests share: packages, keys, settings, and boards that have the node installed from its package."""

import json
import secrets
import shutil
import threading
from pathlib import Path

from .base import PLACE, TOP
from .guest import BOOT_PATIENCE, Board, install, packages_disk
from .node import TOKEN
from .say import Failure

PACKAGES = TOP / "target" / "packages"
ROWS = TOP / "tests" / "data" / "sf-temps.csv"
SETTINGS = {
    "Cluster": {"KeyFile": "/var/lib/cbddc/data/cluster.key"},
    "Persistence": {"DatabasePath": "/var/lib/cbddc/data/cbddc.db", "BackupPath": "/var/lib/cbddc/backups"},
    # Reached through the emulator's own network; beyond loopback a token is needed.
    "Api": {"HttpAddress": "0.0.0.0:5080", "TokenFile": "/etc/cbddc/api.token"},
    # Equal digests are said there.
    "Logging": {"Level": "Debug"},
}


def new_key():
    return secrets.token_hex(32)


def settings(**sections):
    merged = {name: {**SETTINGS.get(name, {}), **sections.get(name, {})} for name in {**SETTINGS, **sections}}
    return json.dumps({"CBDDC": merged})


def package(arch, version=None):
    """The package of this version, 0.1.0 say, as boards/package/make left it; the newest where none is named."""
    found = sorted(PACKAGES.glob(f"cbddc_{version or '*'}-*_{arch}.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise Failure(f"no package {version or 'of any version'} of {arch} in {PACKAGES}: boards/package/make {arch} {version or ''}".rstrip() + " makes it")
    return found[-1]


class Site:
    """Boards in a folder of their own, gone after the test; kept where it failed, for whoever looks into it."""

    def __init__(self, name, files):
        self.folder = PLACE / "run" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.disk = packages_disk(self.folder, files)
        self.boards, self.lan = [], None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind:
            for board in self.boards:
                if board.agent:
                    print(f"--- {board.name}\n{board.journal()}", flush=True)
        for board in self.boards:
            board.cut_power()
        if self.lan:
            self.lan.close()
        if not kind:
            shutil.rmtree(self.folder, ignore_errors=True)

    def board(self, name, arch, **more):
        made = Board(self.folder, name, arch, lan=self.lan, extra=[self.disk], **more)
        self.boards.append(made)
        return made


def together(*works):
    """All at once; the first failure is everybody's."""
    failures = []

    def guarded(work):
        try:
            work()
        except Exception as failure:  # Told by whoever waits below.
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def install_node(board, key, name=None, **sections):
    """Installed as a person does it, and serving."""
    board.write("/etc/cbddc/api.token", TOKEN + "\n", "644")
    install(board, name or package(board.arch).name, key, settings(**sections))
    board.wait_for("the service is active", "systemctl is-active -q cbddc")
    board.api.until_it_serves(BOOT_PATIENCE)


def sums(board, collection):
    """How many documents a collection has on a board, and one checksum over all of them."""
    lines, checksum = board.do(f"cbddc export {collection} > /run/out; wc -l < /run/out; sha256sum < /run/out").split()[:2]
    return int(lines), checksum


def halves(folder):
    """The year of temperatures in two files, each with the header."""
    lines = ROWS.read_text().splitlines(keepends=True)
    middle = len(lines) // 2
    made = []
    for number, part in enumerate((lines[1:middle], lines[middle:]), 1):
        path = Path(folder) / f"temps-{number}.csv"
        path.write_text(lines[0] + "".join(part))
        made.append(path)
    return made
