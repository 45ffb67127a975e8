"""What a campaign knows so far: families, outcomes, and who leads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kernelwright.build import Artifact
from kernelwright.errors import CandidateError
from kernelwright.model import (
    Candidate,
    Family,
    FrozenMap,
    Machine,
    Measured,
    Rejected,
    Signature,
    TunableValue,
    Verdict,
)
from kernelwright.search import FamilyView, Request, Tried, View
from kernelwright.space import Space


def bind(family: Family, values: FrozenMap[str, TunableValue]) -> Candidate:
    """The candidate that a family is at an assignment."""
    return Candidate(
        family.language, family.entry, family.source, values, family.name, family.lineage
    )


def space_of(
    family: Family, signature: Signature, sizes: Mapping[str, int], machine: Machine
) -> Space:
    """What a family's declared tunables may be at these sizes on this machine.

    Raises:
        CandidateError: its declarations cannot be read, or leave nothing valid.
    """
    toolchains = [toolchain.name for toolchain in machine.toolchains]
    if family.language == "cuda":
        toolchains = ["nvcc"]
    names = {*signature.dimensions, *sizes}
    return Space.of(family.source, sizes, dimensions=names, toolchains=toolchains)


@dataclass(frozen=True, slots=True)
class Leader:
    """A measured candidate with its place in the ranking."""

    request: Request
    candidate: Candidate
    value: float
    """Time relative to the first measured candidate, chained over paired duels: no unit."""
    verdict: Measured
    artifact: Artifact | None = None
    """None after a resume, until it is needed."""

    @property
    def time_us(self) -> float:
        """Median of its screening on the bench workload; for watching, not a claim."""
        return self.verdict.workloads[0].time_us.median if self.verdict.workloads else 0.0


@dataclass(slots=True)
class Standing:
    """Outcomes in the order of judging; the ranking is by value."""

    families: dict[str, Family]
    views: tuple[FamilyView, ...]
    tried: list[Tried] = field(default_factory=list[Tried])
    measured: list[Leader] = field(default_factory=list[Leader])
    verdicts: list[Verdict] = field(default_factory=list[Verdict])

    @property
    def leader(self) -> Leader | None:
        """The least value so far; the earliest of equals."""
        return min(self.measured, key=lambda m: m.value, default=None)

    def ranked(self) -> list[Leader]:
        """Measured candidates, best first."""
        return sorted(self.measured, key=lambda m: m.value)

    def finalist(self, failed: Sequence[str]) -> Leader | None:
        """The best of the families with the fewest failures so far; None when nothing is left."""
        return min(
            self.measured,
            key=lambda m: (failed.count(m.candidate.family), m.value),
            default=None,
        )

    def view(self, remaining: int) -> View:
        """What a strategy is shown."""
        return View(self.views, tuple(self.tried), remaining)

    def candidate(self, request: Request) -> Candidate:
        """The candidate that a request asks for."""
        family = self.families.get(request.family)
        if family is None:
            raise CandidateError(f"the campaign has no family {request.family[:12]}")
        return bind(family, request.values)

    def record(
        self,
        request: Request,
        candidate: Candidate,
        verdict: Verdict,
        value: float | None,
        artifact: Artifact | None = None,
    ) -> bool:
        """Take in one outcome; True when it leads now."""
        self.verdicts.append(verdict)
        if isinstance(verdict, Rejected):
            self.tried.append(Tried(request, verdict))
            return False
        assert value is not None
        self.tried.append(Tried(request, value))
        before = self.leader
        self.measured.append(Leader(request, candidate, value, verdict, artifact))
        return before is None or value < before.value

    def is_measured(self, request: Request) -> bool:
        """Whether a request has a value at present."""
        return any(item.request == request for item in self.measured)

    def withdraw(self, request: Request, verdict: Rejected) -> None:
        """Turn a measured request into a rejected one."""
        self.verdicts.append(verdict)
        self.measured = [item for item in self.measured if item.request != request]
        self.tried = [
            Tried(request, verdict) if item.request == request else item for item in self.tried
        ]

    def since_gain(self, share: float = 0.005) -> int:
        """Outcomes since the best value last fell by more than this share."""
        best, last = float("inf"), 0
        for place, item in enumerate(self.tried, start=1):
            if not isinstance(item.outcome, Rejected) and item.outcome < best * (1 - share):
                best, last = item.outcome, place
        return len(self.tried) - last


def described(leader: Leader | None) -> str:
    """A leader in one line: its time, its family, its tunables."""
    if leader is None:
        raise CandidateError("nothing leads")
    values = " ".join(f"{k}={v}" for k, v in leader.candidate.tunables.items())
    return f"{leader.time_us:.1f} us  {leader.candidate.family}  {values}"
