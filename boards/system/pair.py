"""Two boards of two architectures find each other and hold the same; a third one, x86-64, joins them."""

import os
import tempfile
import time

from .guest import BOOT_PATIENCE, free_port
from .kinds import EDGE, kind, kinds
from .lan import Lan
from .neighbour import Neighbour
from .say import Failure, check, say, wait
from .site import Site, halves, install_node, new_key, package, sums, together

ROWS = 8759
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
# The x86-64 node that joins two boards, where it is not the amd64 package's: one that has been built for this machine already.
OWN_PROGRAM = os.environ.get("CBDDC_BOARDS_OWN_PROGRAM")
# For a year of rows on emulated boards, on a machine that does something else as well.
PATIENCE = 2 * BOOT_PATIENCE


def holds(board, collection):
    """How many documents the board says it has of a collection; None where its API is not reached from outside."""
    answer = board.api.try_json("/v1/collections")
    if answer is None:
        return None
    return next((each["documents"] for each in answer["collections"] if each["name"] == collection), 0)


def converged(boards, collection, documents, patience=PATIENCE):
    """Until all boards hold so many documents, the same ones; their checksum. Counted first: an export is work for a board."""
    seen = {}

    def same():
        seen.update((board.name, holds(board, collection)) for board in boards)
        if any(count not in (None, documents) for count in seen.values()):
            time.sleep(2)
            return False
        seen.update((board.name, sums(board, collection)) for board in boards)
        return len(set(seen.values())) == 1 and next(iter(seen.values()))[0] == documents

    try:
        wait(f"{documents} documents of {collection}, the same everywhere", patience, same)
    except Failure as failure:
        raise Failure(f"{failure}; at last {seen}") from None
    return next(iter(seen.values()))[1]


def linked(one, name, how="discovery"):
    line = one.wait_for(f"a link to {name}", f"journalctl -u cbddc -o cat --no-pager | grep -m1 -E 'peer linked node={name}(-| )'")
    say(f"{how}: {one.name} says: {line.strip()}")


def two(alpha, beta, lan, key):
    """Two boards, from the package to the same documents: discovery, the first document, a year of rows, a cut cable."""
    together(alpha.boot, beta.boot)
    together(lambda: install_node(alpha, key), lambda: install_node(beta, key))
    linked(alpha, beta.name)
    linked(beta, alpha.name)
    # The first document, there and back.
    alpha.do("cbddc put notes hello '{\"from\":\"alpha\"}'")
    beta.wait_for("alpha's first document", "cbddc get notes hello | grep -q alpha")
    say("first document: written on alpha, read on beta")
    beta.do("cbddc put notes answer '{\"from\":\"beta\"}'")
    alpha.wait_for("beta's answer", "cbddc get notes answer | grep -q beta")
    # A year of temperatures, half of it imported on each.
    together(
        lambda: say(alpha.do("cbddc import temps /media/packages/temps-1.csv --key date", PATIENCE).strip()),
        lambda: say(beta.do("cbddc import temps /media/packages/temps-2.csv --key date", PATIENCE).strip()),
    )
    say(f"both hold {ROWS} documents with the checksum {converged([alpha, beta], 'temps', ROWS)[:16]}")
    for board in (alpha, beta):
        line = board.wait_for("equal digests", "journalctl -u cbddc -o cat --no-pager | grep -m1 'sync equal digests'")
        say(f"equal digests: {board.name} says: {line.strip()}")
    # The cable is pulled, both go on, it is plugged in again.
    lan.cut = True
    alpha.do("cbddc put notes both '\"alpha\"' && cbddc put notes apart-a 1 && cbddc delete notes hello")
    beta.do("cbddc put notes both '\"beta\"' && cbddc put notes apart-b 2")
    lan.cut = False
    converged([alpha, beta], "notes", 4)
    say("apart and together again: the same notes")


def well(boards):
    for board in boards:
        board.wait_for("health is Healthy", "cbddc health")
        check("digests differ" not in board.journal(5000), f"{board.name}: digests differed")
    say(f"{boards[0].name}'s peers:\n{boards[0].do('cbddc peers')}")


def pair(*names):
    """The first two find each other, each other one joins them; a node on this machine does where no board is an x86-64 one.
    Where nothing is named: every board there is, and an emulated x86-64 machine."""
    models = [kind(name) for name in names or [*(each.name for each in kinds()), EDGE[0]]]
    if len(models) < 2:
        raise Failure("a pair is two boards or more")
    arches = list(dict.fromkeys(model.arch for model in models))
    with tempfile.TemporaryDirectory() as parts, Site("pair", [package(arch) for arch in arches] + halves(parts)) as site:
        site.lan, key, link_port = Lan(site.folder), new_key(), free_port()
        boards = [
            site.board(NAMES[n], model, address=f"10.77.0.{n + 2}/24",
                       forwards={} if n else {link_port: 5000})
            for n, model in enumerate(models)
        ]
        two(*boards[:2], site.lan, key)
        for more, board in enumerate(boards[2:], 3):
            board.boot()
            install_node(board, key)
            linked(board, "alpha")
            say(f"{board.kind.name} ({board.arch}) has joined, one checksum on {more} boards: {converged(boards[:more], 'temps', ROWS)[:16]}")
            converged(boards[:more], "notes", 4)
        if EDGE[0] not in arches:
            with Neighbour(site.folder / "neighbour", key, link_port, OWN_PROGRAM) as neighbour:
                joined(neighbour, boards[0])
                well(boards)
        else:
            well(boards)


def joined(neighbour, board):
    """A node on this machine, x86-64, outside of the boards' network: it dials the board that it was told, by TCP."""
    linked(board, "neighbour", "a fixed peer")
    wait("this machine has the year", PATIENCE, lambda: holds(neighbour, "temps") == ROWS)
    wait("this machine has the notes", PATIENCE, lambda: holds(neighbour, "notes") == 4)
    for collection in ("temps", "notes"):
        here, there = neighbour.sums(collection), sums(board, collection)
        check(here == there, f"{collection} differ: {here} here, {there} on {board.name}")
    say(f"x86-64 has joined, not emulated, by TCP: one checksum {neighbour.sums('temps')[1][:16]}")
