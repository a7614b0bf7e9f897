"""The boards that are booted, as their files describe them: those of tier `system` in boards/*.toml, read by cross/matrix."""

from dataclasses import dataclass

from .base import TOP
from .say import Failure, run

ARCHES = {
    "aarch64-unknown-linux-musl": "arm64", "armv7-unknown-linux-musleabihf": "armhf", "x86_64-unknown-linux-musl": "amd64",
}
# What the gateways have whose budget these boards share: boards/gateway-arm64-512.toml and boards/gateway-armv7-128.toml.
MEMORY_MIB = {"arm64": 512, "armhf": 128, "amd64": 512}


@dataclass(frozen=True)
class Kind:
    """One board file: what is emulated, which package serves it, how much memory the node may take."""

    name: str
    arch: str
    target: str
    machine: str
    cpu: str
    budget_mib: int

    @property
    def memory_mib(self):
        return MEMORY_MIB[self.arch]


# The x86-64 machine that joins the boards has no file of its own: `generic` is every machine. Emulated like the others: what a
# nested machine offers of its processor differs from host to host.
EDGE = ("amd64", "x86_64-unknown-linux-musl", "q35,accel=tcg", "qemu64")


def kinds(tier="system"):
    """All boards of the tier. One that cannot be booted is a failure, so that none is forgotten."""
    found = []
    for line in run(str(TOP / "cross/matrix"), tier).splitlines():
        _, name, target, machine, cpu, budget = line.split()
        if target not in ARCHES or "-" in (machine, cpu):
            raise Failure(f"boards/{name}.toml is of tier {tier} and cannot be booted: target {target}, machine {machine}, CPU {cpu}")
        found.append(Kind(name, ARCHES[target], target, machine, cpu, int(budget)))
    if not found:
        raise Failure(f"no board is of tier {tier}")
    return found


def kind(which):
    """The board of this name, or the first one of this package architecture."""
    if isinstance(which, Kind):
        return which
    found = kinds()
    for each in found:
        if which in (each.name, each.arch):
            return each
    arch, target, machine, cpu = EDGE
    if which in (arch, "generic"):
        budget = next(line.split()[5] for line in run(str(TOP / "cross/matrix")).splitlines() if line.split()[1] == "generic")
        return Kind("generic", arch, target, machine, cpu, int(budget))
    raise Failure(f"{which} is no board; there are {', '.join(each.name for each in found)}, and the architectures {', '.join(ARCHES.values())}")
