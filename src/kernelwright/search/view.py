"""What a strategy sees and what it asks for: families, spaces, outcomes; no files or clocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kernelwright.errors import CandidateError
from kernelwright.model import Family, Rejected, TunableValue
from kernelwright.space import Space, Values

Predict = Callable[[Mapping[str, TunableValue]], float]


@dataclass(frozen=True, slots=True)
class Request:
    """One assignment of one family, to be judged."""

    family: str
    """Identity of the family."""
    values: Values


@dataclass(frozen=True, slots=True)
class Tried:
    """A request that was judged."""

    request: Request
    outcome: float | Rejected
    """What is minimised, comparable between all requests of a campaign; or why there is none."""


@dataclass(frozen=True, slots=True)
class FamilyView:
    """A family as a strategy sees it."""

    identity: str
    space: Space = field(compare=False)
    defaults: tuple[Values, ...]
    """Valid points to begin with, best guess first; never empty."""
    predict: Predict | None = field(default=None, compare=False)
    """Predicted time in microseconds of a valid point; only for comparing."""
    name: str = ""

    @classmethod
    def of(cls, family: Family, space: Space, predict: Predict | None = None) -> "FamilyView":
        """The view of a family, its defaults completed by declared values.

        Defaults that the space rules out (a compiler that is missing, a constraint at these sizes)
        are left out; the space's own default comes last.
        """
        completed = [space.complete(values) for values in family.defaults]
        usable = [values for values in completed if values is not None]
        defaults = tuple(dict.fromkeys([*usable, space.default()]))
        return cls(family.identity, space, defaults, predict, family.name)

    def predicted(self, values: Values) -> float | None:
        """Predicted time of a point in microseconds, where there is a model."""
        return None if self.predict is None else self.predict(values)


@dataclass(frozen=True, slots=True)
class View:
    """All that a strategy may know when it is asked."""

    families: tuple[FamilyView, ...]
    tried: tuple[Tried, ...] = ()
    """In the order in which they were judged."""
    remaining: int | None = None
    """Evaluations left in the budget; None where there is no such limit."""

    def family(self, identity: str) -> FamilyView:
        """The family with this identity.

        Raises:
            CandidateError: there is none.
        """
        for family in self.families:
            if family.identity == identity:
                return family
        raise CandidateError(f"the search has no family {identity[:12]}")

    def values_of(self, family: str) -> list[tuple[Values, float]]:
        """Measured points of a family with their outcomes, in order."""
        return [
            (tried.request.values, tried.outcome)
            for tried in self.tried
            if tried.request.family == family and not isinstance(tried.outcome, Rejected)
        ]

    def rejected_of(self, family: str) -> list[Values]:
        """Rejected points of a family, in order."""
        return [
            tried.request.values
            for tried in self.tried
            if tried.request.family == family and isinstance(tried.outcome, Rejected)
        ]

    def best(self) -> Tried | None:
        """The measured request with the least outcome, the earliest of equals."""
        measured = [
            (tried.outcome, place)
            for place, tried in enumerate(self.tried)
            if not isinstance(tried.outcome, Rejected)
        ]
        return self.tried[min(measured)[1]] if measured else None

    def least(self) -> float:
        """The least outcome; infinity before anything was measured."""
        best = self.best()
        return best.outcome if best and not isinstance(best.outcome, Rejected) else float("inf")
