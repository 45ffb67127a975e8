"""What every strategy must do: subclass `StrategyConformance` and give `make`."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import pytest

from kernelwright.model import Family, FrozenMap, Lineage, Measured, Reason, Rejected, Stage
from kernelwright.search import FamilyView, Request, Strategy, Tried, View
from kernelwright.search.landscape import Outcome
from kernelwright.space import Space

_TILED = """
// @tune TILE = 32, 8, 16, 64
// @tune UNROLL = 1, 2, 4
// @tune FLAGS = "-O2", "-O3 -march=native"
// @require TILE * UNROLL <= 128
"""
_LINE = "// @tune STEP = 3, 1, 2"
_FIXED = "int fixed;"


def view_of(
    source: str, defaults: Sequence[dict[str, int | str]] = (), predicts: bool = False
) -> FamilyView:
    """A family's view; its prediction, if any, is the outcome of `outcome_of` without flags."""
    maps = tuple(FrozenMap(values) for values in defaults)
    family = Family("test", "cpp", "kernel", source, Lineage("test"), maps)
    predict = (lambda values: float(values.get("TILE", 10)) + 1) if predicts else None
    return FamilyView.of(family, Space.of(source), predict)


def outcome_of(request: Request) -> Outcome:
    """A smooth bowl around TILE = 16, UNROLL = 2; UNROLL = 4 does not build."""
    values = dict(request.values)
    if values.get("UNROLL") == 4:
        return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, "no")
    tile, unroll = int(values.get("TILE", 32)), int(values.get("UNROLL", 1))
    flags = 0.0 if values.get("FLAGS") == "-O3 -march=native" else 5.0
    return 10 + abs(tile - 16) / 4 + 3 * abs(unroll - 2) + flags + int(values.get("STEP", 0)) * 20


def drive(
    strategy: Strategy,
    families: Sequence[FamilyView],
    outcome: Callable[[Request], Outcome] = outcome_of,
    *,
    rounds: int = 1000,
    batch: int = 3,
    before: Sequence[Tried] = (),
) -> list[Tried]:
    """Ask and tell until nothing is asked or the rounds are over; returns `before` and more."""
    tried = list(before)
    for _ in range(rounds):
        requests = strategy.ask(View(tuple(families), tuple(tried)), batch)
        if not requests:
            break
        assert len(requests) <= batch
        for request in requests:
            tried.append(Tried(request, outcome(request)))
            tell(strategy, tried[-1])
    return tried


def tell(strategy: Strategy, tried: Tried) -> None:
    """Tell one outcome."""
    if isinstance(tried.outcome, Rejected):
        strategy.tell(tried.request, tried.outcome, None)
    else:
        strategy.tell(tried.request, Measured(()), tried.outcome)


class StrategyConformance:
    """Tests of a strategy."""

    @abstractmethod
    def make(self, seed: int) -> Strategy:
        """A new strategy."""

    @pytest.fixture(params=[False, True], ids=["blind", "predicting"])
    def families(self, request: pytest.FixtureRequest) -> list[FamilyView]:
        """A constrained family, a line and one without tunables."""
        tiled = view_of(_TILED, [{"TILE": 8, "UNROLL": 2}], request.param)
        return [tiled, view_of(_LINE), view_of(_FIXED)]

    def test_asks_every_valid_point_once_and_then_nothing(self, families: list[FamilyView]) -> None:
        """Exhaustion is an empty answer; no request comes twice, whatever its outcome was."""
        strategy = self.make(0)
        requests = [tried.request for tried in drive(strategy, families)]
        expected = {Request(f.identity, v) for f in families for v in f.space.enumerate()}
        assert len(requests) == len(set(requests))
        assert set(requests) == expected
        assert strategy.ask(View(tuple(families)), 5) == ()

    def test_requests_are_valid_points(self, families: list[FamilyView]) -> None:
        """No constraint is broken."""
        spaces = {family.identity: family.space for family in families}
        for tried in drive(self.make(1), families, rounds=6):
            request = tried.request
            assert spaces[request.family].problem_with(request.values) is None

    def test_is_deterministic(self, families: list[FamilyView]) -> None:
        """The same seed and the same outcomes give the same requests."""
        first = drive(self.make(7), families, rounds=5)
        assert drive(self.make(7), families, rounds=5) == first

    def test_resumes_from_what_it_is_told(self, families: list[FamilyView]) -> None:
        """A new strategy that is told the outcomes goes on as the first one would have."""
        whole = drive(self.make(3), families, rounds=5)
        resumed = self.make(3)
        for tried in whole[:9]:
            tell(resumed, tried)
        assert drive(resumed, families, rounds=2, before=whole[:9]) == whole

    def test_resumes_in_the_middle_of_a_batch(self, families: list[FamilyView]) -> None:
        """What was asked and never told may come again; what was told may not."""
        told = drive(self.make(3), families, rounds=3)[:7]
        resumed = self.make(3)
        for tried in told:
            tell(resumed, tried)
        rest = drive(resumed, families, before=told)
        assert len({tried.request for tried in rest}) == len(rest)
        assert len(rest) == sum(family.space.size for family in families)

    def test_pending_requests_are_not_asked_again(self, families: list[FamilyView]) -> None:
        """Several batches may be built at once."""
        strategy = self.make(0)
        view = View(tuple(families))
        batches = [strategy.ask(view, 4) for _ in range(3)]
        asked = [request for batch in batches for request in batch]
        assert len(set(asked)) == len(asked) == 12

    def test_respects_count_and_budget(self, families: list[FamilyView]) -> None:
        """Never more than asked for, never more than is left."""
        strategy = self.make(0)
        assert len(strategy.ask(View(tuple(families)), 1)) == 1
        assert len(strategy.ask(View(tuple(families), (), 2), 10)) == 2
        assert strategy.ask(View(tuple(families), (), 0), 3) == ()
        assert len(strategy.ask(View(tuple(families)), 1000)) > 10

    def test_without_families_there_is_nothing_to_ask(self) -> None:
        """Nothing matched."""
        assert self.make(0).ask(View(()), 3) == ()

    def test_survives_that_everything_is_rejected(self, families: list[FamilyView]) -> None:
        """It goes on to the end."""
        rejected = Rejected(Stage.CHECK, Reason.WRONG_RESULT, "no")
        tried = drive(self.make(0), families, lambda _: rejected)
        assert len(tried) == sum(family.space.size for family in families)

    def test_a_family_may_join_later(self, families: list[FamilyView]) -> None:
        """Proposers propose while a campaign runs."""
        strategy = self.make(0)
        tried = drive(strategy, families[1:], rounds=2)
        tried = drive(strategy, families, before=tried)
        assert len(tried) == sum(family.space.size for family in families)

    def test_extreme_outcomes_do_not_break_it(self, families: list[FamilyView]) -> None:
        """Equal, tiny and huge outcomes."""
        outcomes = [1.0, 1.0, 1e-9, 1e12, 1.0]
        seen: list[Request] = []

        def outcome(request: Request) -> Outcome:
            seen.append(request)
            return outcomes[len(seen) % len(outcomes)]

        assert len(drive(self.make(0), families, outcome)) == len(seen)
