import math
from random import Random

import numpy as np
import pytest

from kernelwright.errors import ArchiveError, UserError
from kernelwright.model import Family, FrozenMap, Lineage, Reason, Rejected, Stage
from kernelwright.search import (
    DefaultStrategy,
    FamilyView,
    Landscape,
    ModelRankedStrategy,
    RandomStrategy,
    Request,
    Tried,
    View,
    compare,
    evaluations_to,
    run,
    strategy_named,
    strategy_names,
)
from kernelwright.search.portfolio import is_hopeless
from kernelwright.search.surrogate import Rows, Surrogate
from kernelwright.space import Space
from kernelwright.testing.landscapes import landscapes

GRID = "// @tune A = 8, 1, 2, 4, 16, 32, 64\n// @tune B = 1, 2, 3, 4, 5, 6\n// @tune C = x, y, z"


def family(source=GRID, defaults=(), predict=None, name="grid"):
    made = Family(name, "cpp", "kernel", source, Lineage("test"), defaults)
    return FamilyView.of(made, Space.of(source), predict)


def bowl(values):
    a, b = math.log2(values["A"]), values["B"]
    return 10 + abs(a - 4) + abs(b - 5) + 0.3 * abs(a - b) + (values["C"] != "z")


def rejected():
    return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, "no")


def test_defaults_are_completed_and_impossible_ones_left_out():
    source = GRID + "\n// @require A * B <= 64"
    given = ({"A": 64, "B": 1}, {"A": 64, "B": 6}, {"A": 3})
    view = family(source, tuple(FrozenMap(values) for values in given))
    assert view.defaults == (
        {"A": 64, "B": 1, "C": "x"},
        {"A": 8, "B": 1, "C": "x"},
    )


def test_defaults_of_all_families_come_first_by_prediction():
    slow = family(predict=lambda values: 100.0 + values["B"])
    fast = family(GRID + "\n// another", (FrozenMap({"A": 2, "B": 2}),), lambda values: 5.0)
    first = DefaultStrategy().ask(View((slow, fast)), 3)
    assert [request.family for request in first] == [fast.identity, slow.identity, fast.identity]
    assert first[0].values == {"A": 2, "B": 2, "C": "x"}
    assert first[2].values == fast.defaults[1]


@pytest.mark.parametrize("name", ["default", "model-ranked", "tpe"])
def test_learners_find_the_bowl_sooner_than_chance(name):
    view = family()
    landscape = Landscape.tabulate("bowl", [view], lambda request: bowl(request.values))
    found = compare(
        {name: lambda seed: strategy_named(name, seed), "random": RandomStrategy},
        [landscape],
        seeds=3,
        evaluations=60,
    )
    limit = found["random"]["evaluations_to_99"] * (0.5 if name == "default" else 1.0)
    assert found[name]["evaluations_to_99"] < limit


def test_default_is_ahead_on_made_up_kernels():
    chosen = [item for item in landscapes() if item.name in ("gemm", "stencil")]
    found = compare({"default": DefaultStrategy, "random": RandomStrategy}, chosen, 2, 40)
    assert found["default"]["evaluations_to_95"] < 0.7 * found["random"]["evaluations_to_95"]


def test_a_right_prediction_is_followed():
    view = family(predict=bowl)
    landscape = Landscape.tabulate("bowl", [view], lambda request: bowl(request.values))
    for strategy in (ModelRankedStrategy(0), DefaultStrategy(0)):
        reached = evaluations_to(run(strategy, landscape, 40), landscape.best, 0.99)
        assert reached is not None
        assert reached <= 12


def test_a_wrong_prediction_is_unlearned():
    view = family(predict=lambda values: 1000 / bowl(values))
    landscape = Landscape.tabulate("bowl", [view], lambda request: bowl(request.values))
    reached = evaluations_to(run(DefaultStrategy(0), landscape, 60), landscape.best, 0.95)
    assert reached is not None


def test_a_slower_family_is_left_alone():
    good, bad = family(), family(GRID + "\n// slower")

    def outcome(request):
        return bowl(request.values) * (3 if request.family == bad.identity else 1)

    landscape = Landscape.tabulate("two", [good, bad], outcome)
    tried = run(DefaultStrategy(0), landscape, 40)
    assert sum(item.request.family == bad.identity for item in tried) <= 4


def test_hopeless_needs_evidence():
    good, bad = family(), family(GRID + "\n// slower")
    points = list(bad.space.enumerate(6))

    def view(outcomes):
        best = Tried(Request(good.identity, good.defaults[0]), 1.0)
        pairs = zip(points, outcomes, strict=False)
        return View((good, bad), (best, *(Tried(Request(bad.identity, p), o) for p, o in pairs)))

    assert not is_hopeless(view([9.0]), bad.identity)
    assert is_hopeless(view([9.0, 9.0]), bad.identity)
    assert not is_hopeless(view([1.4] * 5), bad.identity)
    assert is_hopeless(view([1.4] * 6), bad.identity)
    assert not is_hopeless(view([rejected()] * 3), bad.identity)
    assert is_hopeless(view([rejected()] * 4), bad.identity)
    assert not is_hopeless(view([1.4] * 6), good.identity)


def test_points_like_rejected_ones_are_avoided():
    view = family()

    def outcome(request):
        return rejected() if request.values["C"] == "y" else bowl(request.values)

    landscape = Landscape.tabulate("holes", [view], outcome)
    tried = run(DefaultStrategy(1), landscape, 40)
    reached = evaluations_to(tried, landscape.best, 0.99)
    assert reached is not None
    assert reached <= 20
    assert sum(isinstance(item.outcome, Rejected) for item in tried[:reached]) <= 4


def test_the_surrogate_interpolates_and_knows_what_it_does_not_know():
    view = family()
    rng = Random(0)
    points = [view.space.sample(rng) for _ in range(40)]
    fitted = Surrogate(view, [(point, bowl(point)) for point in points])
    mean, deviation = fitted.estimate(Rows.of(view, points))
    assert np.abs(mean - np.log([bowl(point) for point in points])).max() < 0.05
    rest = [point for point in view.space.enumerate() if point not in points]
    there, unsure = fitted.estimate(Rows.of(view, rest))
    assert np.corrcoef(there, [math.log(bowl(point)) for point in rest])[0, 1] > 0.9
    assert unsure.mean() > 2 * deviation.mean()
    row = Rows.of(view, [rest[0]])
    before = fitted.estimate(row)
    fitted.assume(row)
    after = fitted.estimate(row)
    assert after[0] == pytest.approx(before[0], abs=1e-6)
    assert after[1] < 0.6 * before[1]


def test_evaluations_are_counted_to_the_first_hit():
    request = Request("f", FrozenMap())
    tried = [Tried(request, o) for o in (20.0, rejected(), 11.0, 10.4, 10.0)]
    assert [evaluations_to(tried, 10.0, f) for f in (0.4, 0.9, 0.95, 0.99)] == [1, 3, 4, 5]
    assert evaluations_to(tried[:3], 10.0, 0.95) is None


def test_recorded_landscapes_are_read(tmp_path):
    path = tmp_path / "recorded.json"
    path.write_text(
        """{"name": "two", "families": [{"name": "f", "source": "// @tune A = 1, 2, 3",
        "sizes": {}, "defaults": [{"A": 2}], "rows": [
          {"values": {"A": 1}, "outcome_us": 4.5, "predicted_us": 2},
          {"values": {"A": 2}, "stage": "build", "reason": "crash", "predicted_us": 1}]}]}"""
    )
    landscape = Landscape.load(path)
    assert landscape.best == 4.5
    tried = run(strategy_named("default"), landscape, 10)
    assert [item.request.values["A"] for item in tried[:2]] == [2, 1]
    assert [type(item.outcome) for item in tried] == [Rejected, float, Rejected]
    path.write_text("{}")
    with pytest.raises(ArchiveError, match="cannot be read"):
        Landscape.load(path)


def test_strategies_by_name():
    assert strategy_names()[:5] == ("default", "model-ranked", "tpe", "random", "exhaustive")
    for name in strategy_names()[:5]:
        assert strategy_named(name, 4).name == name
    with pytest.raises(UserError, match="no strategy 'best': choose from default"):
        strategy_named("best")
