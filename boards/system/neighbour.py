"""A node on the machine that builds, x86-64 and at its full speed: a member of the site that has not to be emulated."""

import hashlib
import json
import subprocess

from .guest import BOOT_PATIENCE, free_port
from .node import TOKEN, Api
from .say import run
from .site import package


def unpacked(folder):
    run("dpkg-deb", "-x", str(package("amd64")), str(folder / "program"))
    return folder / "program/usr/bin/cbddc"


class Neighbour:
    """Dials the board through a port of this machine. Of the amd64 package's program, where no other is named."""

    def __init__(self, folder, key, board_port, program=None):
        self.folder = folder
        folder.mkdir()
        self.program = program or unpacked(folder)
        (folder / "key").write_text(key + "\n")
        (folder / "key").chmod(0o600)
        (folder / "token").write_text(TOKEN + "\n")
        port = free_port()
        (folder / "settings.json").write_text(json.dumps({"CBDDC": {
            "Cluster": {"NodeId": "neighbour", "KeyFile": str(folder / "key"), "Peers": [f"127.0.0.1:{board_port}"]},
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
        return [str(self.program), *words, "--config", str(self.folder / "settings.json")]

    def do(self, *words):
        return run(*self.line(*words), timeout=BOOT_PATIENCE)

    def sums(self, collection):
        """How many documents a collection has here, and one checksum over all of them."""
        text = self.do("export", collection)
        return text.count("\n"), hashlib.sha256(text.encode()).hexdigest()
