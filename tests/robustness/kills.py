"""Campaigns whose process group is killed at random moments, and what is left then."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fault_campaign import evaluations_of, request
from faults import descendants

from kernelwright.store import Archive

_SUBREAPER = 36
_CODE = """
import sys
from pathlib import Path

import pytest

sys.path.insert(0, {here!r})
from fault_campaign import request, script, settings

from kernelwright.campaign import optimize

script(pytest.MonkeyPatch(), {salts}, {good})
print("started", flush=True)
optimize(request(Path({folder!r}), {evaluations}), settings=settings())
"""


@contextmanager
def orphans_adopted() -> Iterator[None]:
    """Make this process the parent of whatever below it loses its own, and bury it at the end."""
    system = ctypes.CDLL(None)
    system.prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        system.prctl(_SUBREAPER, 0, 0, 0, 0)
        reap()


def reap() -> None:
    """Bury the zombies that were adopted."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def shared_memory() -> set[str]:
    """Named shared memory of this user whose process is gone."""
    found = set()
    for name in os.listdir("/dev/shm"):
        pid = name.removesuffix(f"_{os.getuid()}").rpartition("_")[2]
        if name.endswith(f"_{os.getuid()}") and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            found.add(name)
    return found


@dataclass(slots=True)
class Outcome:
    """What came of one campaign that was killed again and again."""

    kills: int = 0
    early: int = 0
    """Kills before there was an archive."""
    finished: bool = False
    faults: list[str] = field(default_factory=list[str])
    """What was lost, counted twice or left behind."""
    moments_s: list[float] = field(default_factory=list[float])


def stored(run: Path) -> list[tuple[int, str, object, float | None]]:
    """All verdicts of a run; empty while there is no archive."""
    if not Archive.exists(run):
        return []
    with Archive.open(run, read_only=True) as archive:
        archive.candidates()
        return [(v.id, v.candidate, v.verdict, v.value) for v in archive.verdicts()]


def start(folder: Path, salts: int, good: int) -> "subprocess.Popen[str]":
    """The campaign in a session of its own; it has been asked to start when this returns."""
    code = _CODE.format(
        here=str(Path(__file__).parent), folder=str(folder), salts=salts, good=good,
        evaluations=evaluations_of(salts, good),
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


@orphans_adopted()
def killed_campaign(
    folder: Path, rng: random.Random, kills: int, longest_s: float, salts: int, good: int
) -> Outcome:
    """Kill a campaign up to so often, each time at a random moment; then let it come to its end.

    Args:
        folder: empty.
        rng: draws the moments.
        kills: how often at most; fewer when it finishes before.
        longest_s: moments are uniform from 0 to this, in seconds after the imports.
        salts: candidates of each fault.
        good: candidates without one.
    """
    outcome, before = Outcome(), descendants()
    shared = shared_memory()
    evaluations = evaluations_of(salts, good)
    run = request(folder, evaluations).folder
    known = stored(run)
    while not outcome.finished:
        process = start(folder, salts, good)
        try:
            moment = rng.uniform(0, longest_s) if outcome.kills < kills else 300.0
            told, _ = process.communicate(timeout=moment)
            outcome.finished = process.returncode == 0
            if not outcome.finished:
                outcome.faults.append(f"it ended with {process.returncode}: {told[-500:]}")
                return outcome
        except subprocess.TimeoutExpired:
            outcome.kills += 1
            outcome.moments_s.append(round(moment, 2))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        known = _examine(outcome, run, known, before)
    outcome.faults += [f"shared memory '{name}' is left" for name in shared_memory() - shared]
    _count(outcome, known, evaluations)
    return outcome


def _examine(
    outcome: Outcome, run: Path, known: list[tuple], before: set[int]
) -> list[tuple]:  # fmt: skip
    end = time.monotonic() + 5
    reap()
    while (left := descendants() - before) and time.monotonic() < end:
        time.sleep(0.05)
        reap()
    if left:
        words = [_command(pid) for pid in sorted(left)]
        outcome.faults.append(f"{len(left)} processes outlived kill {outcome.kills}: {words}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    outcome.early += not Archive.exists(run)
    now = stored(run)
    if now[: len(known)] != known:
        outcome.faults.append(f"verdicts were lost or changed by kill {outcome.kills}")
    return now


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return "gone"
    shown = [word.decode(errors="replace")[-40:] for word in words if b"/" in word][-4:]
    return f"{stat[0]} child of {stat[1]}: {len(words)} words, {' '.join(shown)}"


def _count(outcome: Outcome, known: list[tuple], evaluations: int) -> None:
    judged = [candidate for _, candidate, verdict, value in known
              if value is not None or type(verdict).__name__ == "Rejected"]  # fmt: skip
    if len(set(judged)) != evaluations:
        outcome.faults.append(f"{len(set(judged))} of {evaluations} candidates have a verdict")
    if len(judged) != len(set(judged)):
        outcome.faults.append(f"{len(judged) - len(set(judged))} candidates were judged twice")
