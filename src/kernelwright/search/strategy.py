"""The strategy's contract, and what ours share."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from random import Random
from typing import Protocol

from kernelwright.model import Verdict, content_hash
from kernelwright.search.view import FamilyView, Request, View


class Strategy(Protocol):
    """Decides what to try next.

    Deterministic: the same seed, views and verdicts give the same requests. To resume, tell every
    stored verdict in order and go on asking.
    """

    name: str
    """What the registry and the command line call it."""

    def ask(self, view: View, count: int = 1) -> tuple[Request, ...]:
        """At most `count` (and `view.remaining`) requests, best guess first.

        None of them was asked or told before. They are asked together because they are built
        together. Empty: every valid point of every family was asked or told.
        """
        ...

    def tell(self, request: Request, verdict: Verdict, value: float | None) -> None:
        """The verdict on a request, and what is minimised (None for a rejection).

        The same outcome stands in the next view's `tried`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Round:
    """One call of `ask`."""

    view: View
    pending: tuple[Request, ...]
    """Asked and not told yet."""
    known: set[Request]
    """Asked or told before, and what this round has chosen so far."""
    rng: Random
    count: int

    def is_fresh(self, request: Request) -> bool:
        """Whether a request may be asked."""
        return request not in self.known


class SeededStrategy(ABC):
    """A strategy whose choice depends on the seed, the view and what is pending, and nothing else.

    Outcomes are read from the view, and the random generator is seeded anew in every round from
    the number of outcomes. So nothing that happened before a resume can be missing after it.
    """

    name = ""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._asked: dict[Request, bool] = {}
        """Everything ever asked or told; True while it is pending."""

    def ask(self, view: View, count: int = 1) -> tuple[Request, ...]:
        """See `Strategy`."""
        if view.remaining is not None:
            count = min(count, view.remaining)
        pending = tuple(request for request, waits in self._asked.items() if waits)
        known = {*self._asked, *(tried.request for tried in view.tried)}
        key = content_hash(self.name, str(self.seed), str(len(view.tried)), str(len(pending)))
        current = Round(view, pending, known, Random(int(key, 16)), count)
        chosen: list[Request] = []
        if count > 0:
            for request in chain(self.proposals(current), everything(view.families)):
                if current.is_fresh(request):
                    chosen.append(request)
                    known.add(request)
                if len(chosen) == count:
                    break
        self._asked.update(dict.fromkeys(chosen, True))
        return tuple(chosen)

    def tell(self, request: Request, verdict: Verdict, value: float | None) -> None:
        """See `Strategy`."""
        self._asked[request] = False

    @abstractmethod
    def proposals(self, current: Round) -> Iterator[Request]:
        """Requests in the order of preference; repeated and known ones are passed over.

        May end at any time: what is left of the spaces follows in order.
        """


def everything(families: tuple[FamilyView, ...]) -> Iterator[Request]:
    """Every valid point of every family, the families taking turns."""
    for row in zip_longest(*map(_points_of, families)):
        yield from (request for request in row if request is not None)


def _points_of(family: FamilyView) -> Iterator[Request]:
    for values in family.space.enumerate():
        yield Request(family.identity, values)


def openings(families: tuple[FamilyView, ...], most: int | None = None) -> list[Request]:
    """The families' defaults: everyone's first, then everyone's second, ...

    Families without a model of their time come before those with one, which are ordered by it:
    they are a user's own kernel, recipes and generators of something narrower than loops.
    """
    depth = max((len(family.defaults) for family in families), default=0)
    found: list[Request] = []
    for place in range(depth if most is None else min(depth, most)):
        row = [(f.predicted(f.defaults[place]), f) for f in families if place < len(f.defaults)]
        row.sort(key=lambda pair: float("-inf") if pair[0] is None else pair[0])
        found += [Request(family.identity, family.defaults[place]) for _, family in row]
    return found
