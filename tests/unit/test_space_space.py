from collections import Counter
from itertools import pairwise, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.errors import CandidateError
from kernelwright.space import Space

NAMES = ("A", "B", "C", "D")


@st.composite
def sources(draw):
    lines, values = [], {}
    for name in NAMES[: draw(st.integers(0, 4))]:
        values[name] = draw(st.lists(st.integers(-4, 64), min_size=1, max_size=5, unique=True))
        lines.append(f"// @tune {name} = {', '.join(map(str, values[name]))}")
    conditions = []
    if values:
        term = st.sampled_from([*values, "H", "3"])
        shape = st.sampled_from(
            ["{} * {} <= 200", "{} % 2 == 0 or {} > 3", "min({}, {}) != 1", "not {} < {} - 9"]
        )
        for _ in range(draw(st.integers(0, 3))):
            conditions.append(draw(shape).format(draw(term), draw(term)))
    lines += [f"// @require {text}" for text in conditions]
    return "\n".join(lines), values, conditions


@settings(max_examples=150, deadline=None)
@given(sources(), st.integers(0, 2**32))
def test_points_are_those_that_python_itself_finds(case, seed):
    source, values, conditions = case
    expected = {
        point
        for point in product(*values.values())
        if all(eval(c, {}, {"H": 7, **dict(zip(values, point, strict=True))}) for c in conditions)
    }
    if not expected:
        with pytest.raises(CandidateError):
            Space.of(source, {"H": 7})
        return
    space = Space.of(source, {"H": 7})
    points = list(space.enumerate())
    assert {tuple(p.values()) for p in points} == expected
    assert len(points) == len(expected) == space.size
    assert all(list(p) == list(values) for p in points)
    default = tuple(v[0] for v in values.values())
    assert tuple(space.default().values()) in expected
    assert default not in expected or tuple(space.default().values()) == default
    drawn = space.sample(Random(seed))
    assert space.problem_with(drawn) is None
    for other in space.neighbours(drawn):
        assert space.problem_with(other) is None
        changed = [name for name in drawn if drawn[name] != other[name]]
        assert len(changed) == 1
        ordered = sorted(values[changed[0]])
        steps = ordered.index(drawn[changed[0]]) - ordered.index(other[changed[0]])
        assert abs(steps) == 1
        assert drawn in space.neighbours(other)


def test_sampling_is_uniform_over_valid_points_and_repeatable():
    space = Space.of(
        "// @tune A = 1, 2, 3, 4\n// @tune B = 1, 2, 3, 4\n// @tune C = x, y\n"
        "// @require A * B <= 4"
    )
    assert space.size == 16
    rng = Random(5)
    counts = Counter(space.sample(rng) for _ in range(3200))
    assert len(counts) == 16
    # χ² with 15 degrees of freedom: 37.7 is its 99.9 % point.
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 37.7
    assert [space.sample(Random(1)) for _ in range(3)] == [space.sample(Random(1))] * 3


def test_neighbours_of_strings_are_all_others():
    space = Space.of("// @tune A = 8, 2, 4\n// @tune F = p, q, r")
    near = {tuple(p.values()) for p in space.neighbours({"A": 8, "F": "q"})}
    assert near == {(4, "q"), (8, "p"), (8, "r")}


def test_large_spaces_are_enumerated_lazily_and_sampled():
    wide = "\n".join(f"// @tune T{i} = {', '.join(map(str, range(10)))}" for i in range(12))
    space = Space.of(wide)
    assert space.size == 10**12
    assert len(list(space.enumerate(50))) == 50
    total = " + ".join(f"T{i}" for i in range(12))
    tied = Space.of(wide + f"\n// @require {total} <= 60 and T0 < T11 and {total} >= 3")
    points = list(tied.enumerate(20))
    assert len(set(points)) == 20
    rng = Random(3)
    assert all(tied.problem_with(tied.sample(rng)) is None for _ in range(5))


def test_tight_constraints_are_pruned():
    names = [f"T{i}" for i in range(10)]
    lines = [f"// @tune {n} = {', '.join(map(str, range(8)))}" for n in names]
    lines += [f"// @require {a} == {b}" for a, b in pairwise(names)]
    assert Space.of("\n".join(lines)).size == 8


def test_without_tunables_there_is_one_point():
    space = Space.of("int main() {}")
    assert space.size == 1
    assert list(space.enumerate()) == [space.default()] == [{}]
    assert space.neighbours({}) == ()


def test_constraints_on_unknown_sizes_wait():
    source = "// @tune A = 1, 2\n// @require A <= H"
    space = Space.of(source)
    assert space.size == 2
    assert space.problem_with({"A": 2}) is None
    assert "fails for A = 2, H = 1" in (space.problem_with({"A": 2}, {"H": 1}) or "")
    assert Space.of(source, {"H": 1}).size == 1


def test_problems_are_named():
    space = Space.of("// @tune A = 1, 2")
    assert space.problem_with({}) == "the tunable 'A' has no value"
    assert space.problem_with({"A": 3}) == "the tunable 'A' has no value 3 (listed: 1, 2)"
    assert "no tunable 'B' (declared: A)" in (space.problem_with({"A": 1, "B": 1}) or "")


def test_complete_fills_in_defaults():
    space = Space.of("// @tune A = 1, 2\n// @tune B = 8, 4\n// @require A * B <= 8")
    assert space.complete({}) == {"A": 1, "B": 8}
    assert space.complete({"B": 4, "A": 9, "Z": 0}) == {"A": 1, "B": 4}
    assert space.complete({"A": 2}) is None
