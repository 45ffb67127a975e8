"""What a campaign is asked to do, and what it says while it runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kernelwright.llm import Limits
from kernelwright.model import Dtype, Family, FrozenMap, Language, Target
from kernelwright.problems import ProblemReference


@dataclass(frozen=True, slots=True)
class Budget:
    """When a campaign ends, whichever comes first."""

    evaluations: int = 60
    """Candidates built and judged, rejected ones included."""
    minutes: float = 5.0
    """Wall-clock minutes for search; acceptance follows and has its own limit."""


@dataclass(frozen=True, slots=True)
class CampaignRequest:
    """One problem, one dtype, one set of sizes on one machine."""

    reference: ProblemReference
    folder: Path
    """The run folder; an existing one is resumed."""
    dtype: Dtype | None = None
    """None: the first that the problem declares."""
    sizes: FrozenMap[str, int] | None = None
    """None: the first bench sizes that the problem declares for the target."""
    budget: Budget = field(default_factory=Budget)
    strategy: str = "default"
    proposers: tuple[str, ...] = ("recipes", "generate")
    own: tuple[Family, ...] = ()
    """The user's kernels: first candidates, and baselines of the result."""
    baselines: tuple[str, ...] | None = None
    """None: `eager`, `compile` and every peer."""
    seed: int = 0
    target: Target = "cpu"
    """Where the kernel will run."""
    models: tuple[str, ...] = ()
    """Language models as `PROVIDER:NAME`, for proposers that ask them."""
    limits: Limits = field(default_factory=Limits)
    """Of what the models may take."""
    language: Language | None = None
    """What kernels are written in; None: the target's own language, `cpp` or `cuda`."""
    profile: bool = True
    """Look for what limits the winner."""


@dataclass(frozen=True, slots=True)
class CampaignStatus:
    """Where a campaign stands, after each evaluation."""

    evaluations: int
    budget: Budget
    best_us: float | None
    best_speedup: float | None
    """Against the best baseline, from unpaired medians: for watching, not a claim."""
    best_baseline: str | None
    fraction_of_bound: float | None
    rejected: FrozenMap[str, int]
    """Count by stage."""
    seconds_left: float


class Progress(Protocol):
    """Told what happens, in order; must not raise."""

    def stage(self, text: str) -> None:
        """A new phase begins, such as `measuring baselines`."""
        ...

    def update(self, status: CampaignStatus) -> None:
        """An evaluation ended."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line, such as a new best."""
        ...


class Silent:
    """Progress that goes nowhere."""

    def stage(self, text: str) -> None:
        """Ignore."""

    def update(self, status: CampaignStatus) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""
