"""What the tests say, how they run programs, and how they fail."""

import subprocess
import sys
import time

BEGAN = time.monotonic()


class Failure(Exception):
    """A test failed, or could not be tried; the text says what and why."""


def say(text):
    print(f"[{time.monotonic() - BEGAN:7.1f} s] {text}", flush=True)


def run(*command, stdin=None, timeout=600):
    """Runs a program to its end and gives what it wrote; its failure is ours, with all that it said."""
    try:
        done = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
        )
    except FileNotFoundError:
        raise Failure(f"{command[0]} is missing; 'boards/test setup' installs what is needed") from None
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(command)}: not done after {timeout} s") from None
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def attempt(times, work):
    """Tries again what depends on a network or a busy machine; never what is to be proved."""
    for left in reversed(range(times)):
        try:
            return work()
        except (Failure, OSError) as error:
            if left == 0:
                raise
            print(f"again, since: {error}", file=sys.stderr, flush=True)
            time.sleep(5)


def wait(what, patience, poll):
    """Polls until it gives something; fails after `patience` seconds."""
    deadline, pause = time.monotonic() + patience, 0.25
    while True:
        found = poll()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failure(f"waited {patience} s in vain: {what}")
        # What is asked of an emulated board takes time from what is waited for.
        time.sleep(pause)
        pause = min(2.0, pause * 1.3)


def check(holds, text):
    if not holds:
        raise Failure(text)
