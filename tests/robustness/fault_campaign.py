"""A campaign over `faults.family`: every kind of failure among good kernels."""

import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faults import FAULTS, SIZES, assassin, descendants, ending, family

from kernelwright.campaign import Budget, CampaignRequest, loop, optimize
from kernelwright.errors import HarnessError
from kernelwright.evaluation import JudgeSettings
from kernelwright.execution import Limits
from kernelwright.model import Dtype, Measured
from kernelwright.problems import parse_reference
from kernelwright.store import Archive
from kernelwright.testing.proposers import ScriptedProposer

PROBLEM = '''
import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(sizes={"cpu": [dict(T=64, H=48)]}, ranges=dict(T=(1, 300), H=(1, 300)))
def scaled_gate(x: Float[Tensor, "T H"], w: Float[Tensor, "H"]) -> Float[Tensor, "T H"]:
    """Each row times its mean square, gated."""
    return x * torch.sigmoid(w) * x.square().mean(-1, keepdim=True)
'''


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a campaign."""

    document: dict[str, Any]
    wrong: list[tuple[str, int, Any]]
    """Fault, salt and ending of every verdict that is not what the fault must get."""
    endings: Counter[tuple[str, Any]]
    judged: int
    values: int
    """Good candidates whose value is in the archive."""
    seconds: float
    left: set[int]
    """Processes that are still there."""


def settings() -> JudgeSettings:
    """Few rounds, a short limit, little flushed: times are not the point."""
    limits = Limits(call_s=1.0, memory_bytes=512 << 20)
    return replace(
        JudgeSettings.quick(), limits=limits, flush_factor=0.02, heldout=1, heldout_timed=0,
        accept_seconds=2.0, confirm_seconds=1.0,
    )  # fmt: skip


def request(folder: Path, evaluations: int, seed: int = 0) -> CampaignRequest:
    """A campaign in a folder, its problem beside it."""
    path = folder / "scaled_gate.py"
    path.write_text(PROBLEM)
    return CampaignRequest(
        reference=parse_reference(str(path)),
        folder=folder / "run",
        dtype=Dtype.F32,
        sizes=SIZES,
        budget=Budget(evaluations, 600.0),
        strategy="random",
        proposers=("scripted",),
        baselines=("eager",),
        seed=seed,
    )


def evaluations_of(salts: int, good: int) -> int:
    """How many candidates the family has."""
    return salts * (len(FAULTS) - 1) + good


def script(patch: Any, salts: int, good: int) -> None:
    """Let campaigns have the faulty family, and go on to the end of their budget."""
    patch.setattr(loop, "proposer_named", lambda name: ScriptedProposer([family(salts, good)]))
    patch.setattr(loop, "PATIENCE", 1 << 30)


def without_operator(patch: Any) -> None:
    """The winner's operator is not timed inside torch."""

    def absent(*_: object) -> None:
        raise HarnessError("not timed in this test")

    patch.setattr(sys.modules["kernelwright.campaign.optimize"], "measure_operator", absent)


def run(folder: Path, salts: int, good: int, patch: Any, seed: int = 0) -> Report:
    """Judge the faulty family completely, in random order, and read what the archive holds.

    Args:
        folder: empty; gets the problem and the run.
        salts: candidates of each fault.
        good: candidates without one.
        patch: a `pytest.MonkeyPatch`.
        seed: of the order.
    """
    script(patch, salts, good)
    without_operator(patch)
    before, started = descendants(), time.monotonic()
    evaluations = evaluations_of(salts, good)
    with assassin(patch):
        document = optimize(request(folder, evaluations, seed), settings=settings())
    seconds = time.monotonic() - started
    with Archive.open(folder / "run", read_only=True) as archive:
        candidates = archive.candidates()
        stored = archive.verdicts()
    wrong: list[tuple[str, int, Any]] = []
    endings: Counter[tuple[str, Any]] = Counter()
    judged: Counter[str] = Counter()
    for item in stored:
        if isinstance(item.verdict, Measured) and item.value is None:
            continue  # an acceptance
        tunables = candidates[item.candidate].tunables
        fault, found = FAULTS[int(tunables["FAULT"])], ending(item.verdict)
        judged[item.candidate] += 1
        endings[fault.name, found] += 1
        if found != fault.ending or (fault.ending is None) != (item.value is not None):
            text = getattr(item.verdict, "diagnostic", "")[:300]
            wrong.append((fault.name, int(tunables["SALT"]), (found, text)))
    values = sum(item.value is not None for item in stored)
    return Report(
        document, wrong, endings, len(judged), values, seconds, descendants() - before
    )  # fmt: skip
