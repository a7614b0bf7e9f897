"""Power cuts: a board acknowledges writes over the network while its machine is killed, and must have every one of them."""

import json
import os
import random
import shutil
import threading
import time
from pathlib import Path

from .base import TOP
from .guest import BOOT_PATIENCE
from .kinds import kind
from .node import GONE
from .say import Failure, check, run, say
from .site import PACKAGES, Site, install_node, new_key, package

ROUNDS = int(os.environ.get("CBDDC_POWER_ROUNDS", "10"))
SEED = int(os.environ.get("CBDDC_POWER_SEED", str(int(time.time()))))
WRITERS = 4
# A node that does not sync loses something at the first cut or the second.
WEAK_ROUNDS_MAX = 5
# Fewer than these in a round would prove little on a slow machine.
ACKNOWLEDGED_MIN = 20
# What costs an emulated board seconds at every boot and has no part in what is proved here: the journal, whose files are mended
# after each cut, the filters of system calls, and a file system of the service's own. boards/test service has all of it.
OFF = {
    "": ("SystemCallFilter", "SystemCallArchitectures", "RestrictAddressFamilies", "LoadCredential", "SetCredential"),
    "no": (
        "NoNewPrivileges", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "LockPersonality",
        "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "PrivateDevices",
        "ProtectSystem", "ProtectHome", "ProtectControlGroups", "PrivateTmp",
    ),
    "auto": ("DevicePolicy",),
    "default": ("ProtectProc",),
}
QUICK = "[Service]\nStandardOutput=truncate:/run/cbddc.log\nStandardError=inherit\n" + "".join(
    f"{setting}={value}\n" for value, settings in OFF.items() for setting in settings
)


class Writer(threading.Thread):
    """Writes until the board is gone; remembers what was answered. One key is written again and again, others once."""

    def __init__(self, api, number, round_number):
        super().__init__(daemon=True)
        self.api, self.number, self.round = api, number, round_number
        self.stored, self.last, self.odd = {}, 0, []

    def run(self):
        count = 0
        while True:
            count += 1
            once, again = f"{of_round(self.round)}w{self.number}-{count}", f"again-{self.number}"
            value = {"round": self.round, "writer": self.number, "count": count, "filling": "x" * (count * 37 % 900)}
            mark = self.round * 1_000_000 + count
            try:
                for key, body in ((once, value), (again, {"mark": mark})):
                    status, answer = self.api.ask("PUT", f"/v1/collections/power/documents/{key}", json.dumps(body), patience=30)
                    if status in (200, 201):
                        if key == once:
                            self.stored[once] = value
                        else:
                            self.last = mark
                    elif status != 202:
                        self.odd.append((status, answer[:200]))
            except GONE:
                return


def of_round(number):
    """What the keys of a round begin with."""
    return f"r{number:04}-"


def documents(api, prefix):
    """All documents of the collection whose key begins so, page by page."""
    found, after = {}, ""
    while True:
        page = api.json(f"/v1/collections/power/documents?limit=1000&prefix={prefix}&after={after}")
        found.update((document["key"], document["value"]) for document in page["documents"])
        after = page.get("next")
        if not after:
            return found


def lost(api, stored, last, prefixes):
    """What was acknowledged, has a key that begins so, and is not there as it was written."""
    found = documents(api, "again-")
    missing = [key for key, mark in last.items() if found.get(key, {}).get("mark", 0) < mark]
    for prefix in prefixes:
        found = documents(api, prefix)
        missing += [key for key, value in stored.items() if key.startswith(prefix) and found.get(key) != value]
    return missing


def rounds(site, board, count, random_numbers):
    """So many cuts; yields what each has lost. What was written before the last cut but one is read again each tenth time."""
    stored, last = {}, {}
    for number in range(1, count + 1):
        began = time.monotonic()
        writers = [Writer(board.api, writer, number) for writer in range(WRITERS)]
        for writer in writers:
            writer.start()
        deadline = time.monotonic() + BOOT_PATIENCE
        while sum(len(writer.stored) for writer in writers) < ACKNOWLEDGED_MIN:
            check(time.monotonic() < deadline, f"round {number}: hardly anything was acknowledged in {BOOT_PATIENCE} s")
            time.sleep(0.05)
        time.sleep(random_numbers.uniform(0.0, 3.0))
        board.cut_power()
        for writer in writers:
            writer.join(60)
            check(not writer.is_alive(), "a writer still waits for a machine that is gone")
            check(not writer.odd, f"round {number}: {writer.odd[:3]}")
            stored.update(writer.stored)
            last[f"again-{writer.number}"] = max(last.get(f"again-{writer.number}", 0), writer.last)
        # The node is asked and not the board: nothing else needs to be up for it to serve.
        board.start()
        served = board.api.until_it_serves(BOOT_PATIENCE, board.check_alive)
        whole = number % 10 == 0 or number == count
        missing = lost(board.api, stored, last, ["r"] if whole else [of_round(number), of_round(number - 1)])
        fresh = sum(len(writer.stored) for writer in writers)
        say(f"cut {number}: {fresh} writes acknowledged in it, {len(stored)} in all, {len(missing)} lost;"
            f" served {served:.1f} s after power-on, {time.monotonic() - began:.1f} s for all of it")
        yield missing


def power(which="arm64", count=None):
    """No acknowledged write is lost. The board is alone: nobody else could bring back what it forgot."""
    count = count or ROUNDS
    model = kind(which)
    say(f"{count} power cuts of {model.name}, seed {SEED}")
    with Site("power", [package(model.arch)]) as site:
        board = site.board("lonely", model, quick=True).boot()
        board.write("/etc/systemd/system/cbddc.service.d/quick.conf", QUICK)
        install_node(board, new_key(), Network={"EnableDiscovery": False})
        board.do("sync")
        for number, missing in enumerate(rounds(site, board, count, random.Random(SEED)), 1):
            check(not missing, f"seed {SEED}, cut {number}: {len(missing)} acknowledged writes are lost, as {missing[:5]}")
        status = board.api.json("/health")
        check(status["entries"]["storage"]["status"] == "Healthy", f"storage is not well after the cuts: {status}")
    say(f"{count} power cuts, no acknowledged write lost, every boot served")


def weak_program(model):
    """The node with planted bugs that can be switched on, built in a folder of its own: releases and packages are taken from
    where everybody's node is built, and never see this one."""
    target, everybodys = model.target, Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")).resolve()
    place, tools = everybodys / "weak", everybodys / "weak/cross"
    place.mkdir(parents=True, exist_ok=True)
    # cross/table.sh looks for its tools where it builds.
    tools.unlink(missing_ok=True)
    tools.symlink_to(everybodys / "cross")
    run("env", f"CARGO_TARGET_DIR={place}", str(TOP / "cross/build"), target, "--features", "mutants", timeout=3600)
    PACKAGES.mkdir(parents=True, exist_ok=True)
    made = PACKAGES / f"cbddc-weak-{model.arch}"
    shutil.copy(place / target / "dist/cbddc", made)
    return made


def weak(which="arm64"):
    """The same with nodes that sync too little: the cuts must find them out, or they prove nothing."""
    model = kind(which)
    program = weak_program(model)
    for mutant in ("SynchronousNormal", "SynchronousOff"):
        with Site(f"weak-{mutant.lower()}", [package(model.arch), program]) as site:
            board = site.board("weak", model, quick=True).boot()
            board.write("/etc/systemd/system/cbddc.service.d/quick.conf", f"{QUICK}Environment=CBDDC_MUTANT={mutant}\n")
            install_node(board, new_key(), Network={"EnableDiscovery": False})
            board.do(f"systemctl stop cbddc && install /media/packages/{program.name} /usr/bin/cbddc && systemctl start cbddc && sync")
            board.api.until_it_serves(BOOT_PATIENCE)
            for missing in rounds(site, board, WEAK_ROUNDS_MAX, random.Random(SEED)):
                if missing:
                    say(f"{mutant}: {len(missing)} acknowledged writes lost, as it must be")
                    break
            else:
                raise Failure(f"{mutant} lost nothing in {WEAK_ROUNDS_MAX} cuts: these cuts prove nothing")
