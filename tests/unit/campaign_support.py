"""A small problem and quick settings for campaigns in tests."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernelwright.campaign import Budget, CampaignRequest
from kernelwright.errors import HarnessError
from kernelwright.evaluation import JudgeSettings
from kernelwright.model import Dtype, FrozenMap
from kernelwright.problems import parse_reference

SCALED_GATE = '''
import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(sizes={"cpu": [dict(T=256, H=512)]}, ranges=dict(T=(1, 2000), H=(1, 2000)))
def NAME(x: Float[Tensor, "T H"], w: Float[Tensor, "H"]) -> Float[Tensor, "T H"]:
    """Each row times its mean square, gated."""
    return x * torch.sigmoid(w) * x.square().mean(-1, keepdim=True)
'''


def problem_file(folder: Path, name: str = "scaled_gate") -> Path:
    """A problem file in a folder."""
    path = folder / f"{name}.py"
    path.write_text(SCALED_GATE.replace("NAME", name))
    return path


def quick() -> JudgeSettings:
    """Few rounds, and caches that are hardly flushed; intervals are wide."""
    return replace(JudgeSettings.quick(), heldout=1, heldout_timed=0, flush_factor=0.02)


def without_operator(patch: pytest.MonkeyPatch) -> None:
    """The winner's operator is not timed inside torch, which takes as long as all the rest."""

    def absent(*_: object) -> None:
        raise HarnessError("not timed in this test")

    patch.setattr(sys.modules["kernelwright.campaign.optimize"], "measure_operator", absent)


def small_request(path: Path, folder: Path, evaluations: int = 4) -> CampaignRequest:
    """A campaign of seconds."""
    return CampaignRequest(
        reference=parse_reference(str(path)),
        folder=folder,
        dtype=Dtype.F32,
        sizes=FrozenMap({"T": 256, "H": 512}),
        budget=Budget(evaluations, 3.0),
        baselines=("eager",),
    )
