"""The proposer's contract and what it may see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kernelwright.expr import Program
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    FrozenMap,
    Language,
    Machine,
    Signature,
    Target,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class ProblemView:
    """What a proposer knows: the computation and the machine, not the problem's name."""

    signature: Signature
    program: Program | None
    """The reference in expression form; None where it is outside of it."""
    dtype: Dtype
    sizes: FrozenMap[str, int]
    """The bench sizes that are optimised for; kernels must be right for every size."""
    machine: Machine
    entry: str = "kernel"
    """Name that the exported function must have."""
    target: Target = "cpu"
    """For `cuda` only families in the languages `cuda` and `triton` are of use."""
    language: Language | None = None
    """What was asked for; None: the target's own language, `cpp` or `cuda`."""


class Proposer(Protocol):
    """Proposes families of candidates."""

    name: str
    cost: str
    """What a proposal costs, for people: `milliseconds`, `model tokens`, ..."""

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Sequence[tuple[Candidate, Verdict]],
        count: int,
    ) -> tuple[Family, ...]:
        """At most `count` families, best guess first; empty when there is nothing to propose."""
        ...
