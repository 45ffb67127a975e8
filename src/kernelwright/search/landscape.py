"""Recorded landscapes: strategies compared on known outcomes, without building or timing."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from kernelwright.errors import ArchiveError
from kernelwright.model import (
    Family,
    FrozenMap,
    Lineage,
    Measured,
    Reason,
    Rejected,
    Stage,
    Verdict,
)  # fmt: skip
from kernelwright.search.strategy import Strategy
from kernelwright.search.view import FamilyView, Request, Tried, View
from kernelwright.space import Space, Values

Outcome = float | Rejected
FRACTIONS = (0.90, 0.95, 0.99)
"""Shares of the best speed that an evaluation is counted towards."""


@dataclass(frozen=True, slots=True)
class Landscape:
    """Families with the outcome of every point that a strategy may ask for."""

    name: str
    families: tuple[FamilyView, ...]
    outcome: Callable[[Request], Outcome] = field(compare=False)
    best: float
    """The least outcome."""

    @classmethod
    def tabulate(
        cls, name: str, families: Sequence[FamilyView], outcome: Callable[[Request], Outcome]
    ) -> "Landscape":
        """A landscape from a function, evaluated at every valid point."""
        table = {
            request: outcome(request)
            for family in families
            for request in (Request(family.identity, v) for v in family.space.enumerate())
        }
        values = [value for value in table.values() if not isinstance(value, Rejected)]
        return cls(name, tuple(families), table.__getitem__, min(values))

    @classmethod
    def load(cls, path: Path) -> "Landscape":
        """Read a recorded landscape.

        A JSON object: `name`, and `families`, each with `name`, `source` (its `@tune` and
        `@require` lines), `sizes`, `defaults`, and `rows` of `values` beside `outcome_us`, or
        beside `stage` and `reason` where the point was rejected. Points that were not recorded
        are not in the space.

        Raises:
            ArchiveError: the file cannot be read.
        """
        try:
            document = json.loads(path.read_text())
            loaded = [_load_family(entry) for entry in document["families"]]
            table = {request: value for _, rows in loaded for request, value in rows.items()}
            values = [value for value in table.values() if not isinstance(value, Rejected)]
            return cls(
                document["name"],
                tuple(family for family, _ in loaded),
                lambda request: table.get(request, _UNRECORDED),
                min(values),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArchiveError(f"the landscape '{path}' cannot be read: {error}") from None


_UNRECORDED = Rejected(Stage.DECLARE, Reason.CONSTRAINT, "this point was not recorded")


def _load_family(entry: Mapping[str, Any]) -> tuple[FamilyView, dict[Request, Outcome]]:
    defaults = tuple(FrozenMap(values) for values in entry["defaults"])
    lineage = Lineage("recorded")
    family = Family(entry["name"], "cpp", "kernel", entry["source"], lineage, defaults)
    rows = {Request(family.identity, FrozenMap(r["values"])): _load_row(r) for r in entry["rows"]}
    predicted = {
        request.values: float(row["predicted_us"])
        for request, row in zip(rows, entry["rows"], strict=True)
        if "predicted_us" in row
    }
    space = Space.of(family.source, entry.get("sizes"))
    predict = _lookup(predicted) if len(predicted) == len(rows) else None
    return FamilyView.of(family, space, predict), rows


def _lookup(table: Mapping[Values, float]) -> Callable[[Mapping[str, Any]], float]:
    worst = max(table.values(), default=1.0)
    return lambda values: table.get(FrozenMap(values), worst)


def _load_row(row: Mapping[str, Any]) -> Outcome:
    if "outcome_us" in row:
        return float(row["outcome_us"])
    return Rejected(Stage(row["stage"]), Reason(row["reason"]), row.get("diagnostic", ""))


def run(strategy: Strategy, landscape: Landscape, evaluations: int, batch: int = 4) -> list[Tried]:
    """What a strategy tries on a landscape, in order; ends early when it has nothing left.

    Args:
        strategy: a new one.
        landscape: the outcomes.
        evaluations: the budget, rejections included.
        batch: requests asked for at once.
    """
    tried: list[Tried] = []
    while len(tried) < evaluations:
        view = View(landscape.families, tuple(tried), evaluations - len(tried))
        requests = strategy.ask(view, batch)
        if not requests:
            break
        for request in requests:
            outcome = landscape.outcome(request)
            rejected = isinstance(outcome, Rejected)
            verdict: Verdict = outcome if rejected else Measured(())
            strategy.tell(request, verdict, None if rejected else outcome)
            tried.append(Tried(request, outcome))
    return tried


def evaluations_to(tried: Sequence[Tried], best: float, fraction: float) -> int | None:
    """Evaluations until a request reached a fraction of the best speed; None: it never did."""
    for count, item in enumerate(tried, start=1):
        if not isinstance(item.outcome, Rejected) and item.outcome * fraction <= best:
            return count
    return None


def compare(
    strategies: Mapping[str, Callable[[int], Strategy]],
    landscapes: Sequence[Landscape],
    seeds: int = 5,
    evaluations: int = 100,
    batch: int = 4,
) -> dict[str, dict[str, float]]:
    """Evaluations to 90, 95 and 99 % of the best speed, by strategy.

    The median over seeds on each landscape, then the geometric mean over landscapes. A run that
    does not get there counts as twice the budget.

    Args:
        strategies: by name, each made from a seed.
        landscapes: at least one.
        seeds: runs of each strategy on each landscape.
        evaluations: budget of a run.
        batch: requests asked for at once.
    """
    summary: dict[str, dict[str, float]] = {}
    for name, make in strategies.items():
        medians: dict[float, list[float]] = {fraction: [] for fraction in FRACTIONS}
        for landscape in landscapes:
            runs = [run(make(seed), landscape, evaluations, batch) for seed in range(seeds)]
            for fraction, found in medians.items():
                counts = [evaluations_to(tried, landscape.best, fraction) for tried in runs]
                found.append(median(2 * evaluations if c is None else c for c in counts))
        summary[name] = {
            f"evaluations_to_{round(100 * fraction)}": round(
                math.exp(sum(math.log(count) for count in found) / len(found)), 1
            )
            for fraction, found in medians.items()
        }
    return summary
