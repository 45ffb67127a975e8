"""Which workloads a problem is checked, scored and held out on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import exp, log, prod
from typing import TYPE_CHECKING, Any

from kernelwright.errors import ProblemError, UndeclaredDtype
from kernelwright.model import (
    Dtype,
    FrozenMap,
    Scalar,
    Tier,
    Workload,
    content_hash,
    evaluate_dimension,
)
from kernelwright.problems.elements import parse_dtype

if TYPE_CHECKING:
    from kernelwright.problems.declaration import Declaration, Problem

AROUND_POWERS_OF_TWO = (2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129)
LONG = (257, 1025, 4097, 16385, 65537, 131073)
CHECK_WORK = 1 << 19
"""Most points of the whole index space (`work`) in a check workload."""
HELDOUT_WORK = 1 << 28
HELDOUT_BYTES = 64 << 20


def work(declaration: Declaration, sizes: Mapping[str, int]) -> int:
    """Points of the index space: what the problem declares, else the product of all sizes."""
    if declaration.work:
        return evaluate_dimension(declaration.work, sizes)
    return prod(sizes.values())


def check_sizes(declaration: Declaration, sizes: Mapping[str, int]) -> None:
    """Refuse sizes that are missing, unknown, out of range, or make a negative dimension.

    Raises:
        ProblemError: as above, in one sentence.
    """
    where = f"the problem '{declaration.name}'"
    for name in declaration.ranges:
        if name not in sizes:
            needed = ", ".join(declaration.ranges)
            raise ProblemError(f"{where} needs a size for '{name}' (it has the sizes {needed})")
    for name, size in sizes.items():
        if name not in declaration.ranges:
            raise ProblemError(
                f"{where} has no size '{name}', only {', '.join(declaration.ranges)}"
            )
        low, high = declaration.ranges[name]
        if not isinstance(size, int) or isinstance(size, bool) or not low <= size <= high:
            raise ProblemError(f"{where}: {name}={size!r} is outside its range, {low} to {high}")
    for tensor in declaration.signature.tensors:
        tensor.shape(sizes)


def complete_choices(
    declaration: Declaration, size_names: Sequence[str]
) -> FrozenMap[str, tuple[Scalar, ...]]:
    """Values that checks give each scalar which is not a size, the default first.

    A scalar that nothing was said about gets another value beside its default: a kernel that
    bakes the default in must not pass.

    Raises:
        ProblemError: a scalar has neither a default nor choices.
    """
    choices: dict[str, tuple[Scalar, ...]] = {}
    for scalar in declaration.signature.scalars:
        if scalar.name in size_names:
            continue
        declared = declaration.scalar_choices.get(scalar.name, ())
        default = scalar.default
        if default is None and not declared:
            raise ProblemError(
                f"the problem '{declaration.name}': the scalar '{scalar.name}' needs a default, or "
                "values in scalar_choices"
            )
        if not declared:
            declared = (_another(default),)
        first = () if default is None else (default,)
        choices[scalar.name] = tuple(dict.fromkeys((*first, *declared)))
    return FrozenMap(choices)


def _another(default: Any) -> Any:
    """A value that a kernel with the default baked in gets visibly wrong; ints may be modes."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, float):
        return 1000 * default if 0 < abs(default) < 1e-3 else 2.5 * (default or 0.2)
    return default


def default_scalars(declaration: Declaration, sizes: Mapping[str, int]) -> FrozenMap[str, Scalar]:
    """Every scalar's value when nothing else is asked for."""
    return FrozenMap(
        {
            scalar.name: declaration.scalar_choices[scalar.name][0]
            if scalar.name in declaration.scalar_choices
            else sizes[scalar.name]
            for scalar in declaration.signature.scalars
        }
    )


def bench_workload(
    problem: Problem, sizes: Mapping[str, int] | int | None, dtype: Dtype | str | None, target: str
) -> Workload:
    """The scored workload; see `Problem.bench_workload`."""
    declared = problem.declaration.sizes.get(target, ())
    if sizes is None or isinstance(sizes, int):
        index = sizes or 0
        if not 0 <= index < len(declared):
            example = ",".join(f"{name}=..." for name in problem.size_names)
            raise ProblemError(
                f"the problem '{problem.name}' declares {len(declared) or 'no'} bench sizes for "
                f"'{target}': give them, {example}"
            )
        sizes = declared[index]
    check_sizes(problem.declaration, sizes)
    chosen = problem.dtypes[0] if dtype is None else parse_dtype(dtype, problem.name)
    if chosen not in problem.dtypes:
        known = ", ".join(problem.dtypes)
        raise UndeclaredDtype(
            f"the problem '{problem.name}' is not declared for {chosen}, only {known}"
        )
    ordered = FrozenMap({name: int(sizes[name]) for name in problem.size_names})
    return _workload(problem, chosen, ordered, "normal", "bench")


def check_workloads(problem: Problem, dtype: Dtype, seed: int) -> list[Workload]:
    """Small workloads that between them meet every awkward size, distribution and scalar."""
    rng = random.Random(content_hash("check", problem.name, str(seed)))
    plan = _check_sizes_plan(problem, rng)
    found = [_workload(problem, dtype, sizes, "normal", "check") for sizes in plan]
    hard = [name for name in problem.distributions if name != "normal"]
    for number, distribution in enumerate(hard):
        for step in range(4):
            sizes = plan[(number + step * max(len(plan) // 4, 1)) % len(plan)]
            found.append(_workload(problem, dtype, sizes, distribution, "check"))
    for name, choices in problem.declaration.scalar_choices.items():
        for value in choices[1:]:
            for distribution in problem.distributions:
                sizes = rng.choice(plan)
                base = _workload(problem, dtype, sizes, distribution, "check")
                found.append(_with_scalars(base, {name: value}))
    return list(dict.fromkeys(found))


def heldout_workloads(problem: Problem, dtype: Dtype, seed: int, count: int) -> list[Workload]:
    """Workloads drawn log-uniformly from the ranges; distributions and scalars drawn evenly."""
    rng = random.Random(content_hash("heldout", problem.name, str(seed)))
    found: list[Workload] = []
    for number in range(count):
        sizes = _draw_sizes(problem, dtype, rng)
        distribution = "normal" if number == 0 else rng.choice(problem.distributions)
        base = _workload(problem, dtype, sizes, distribution, "heldout")
        choices = problem.declaration.scalar_choices
        found.append(_with_scalars(base, {name: rng.choice(choices[name]) for name in choices}))
    return found


def _workload(
    problem: Problem, dtype: Dtype, sizes: FrozenMap[str, int], distribution: str, tier: Tier
) -> Workload:
    scalars = problem.default_scalars(sizes)
    return Workload(problem.name, dtype, sizes, scalars, distribution, tier)


def _with_scalars(base: Workload, values: Mapping[str, Scalar]) -> Workload:
    scalars = FrozenMap({**base.scalars, **values})
    return Workload(base.problem, base.dtype, base.sizes, scalars, base.distribution, base.tier)


def _check_sizes_plan(problem: Problem, rng: random.Random) -> list[FrozenMap[str, int]]:
    """All ones; each size alone 1; each alone long; the rest around powers of two."""
    names = problem.size_names
    plan = [dict.fromkeys(names, 1)]
    for name in names:
        plan.append({n: 1 if n == name else rng.choice((7, 17, 33, 65)) for n in names})
        others = {n: rng.choice((3, 5, 7)) for n in names if n != name}
        longest = [{**others, name: long} for long in LONG]
        plan += [s for s in longest if work(problem.declaration, s) <= CHECK_WORK][-2:]
    for _ in range(8):
        plan.append({name: rng.choice(AROUND_POWERS_OF_TWO) for name in names})
    fitted = (fit_sizes(problem, sizes, CHECK_WORK) for sizes in plan)
    return list(dict.fromkeys(FrozenMap({n: s[n] for n in names}) for s in fitted))


def fit_sizes(problem: Problem, sizes: Mapping[str, int], most: int) -> dict[str, int]:
    """The nearest sizes inside the ranges with at most that much work, largest cut first."""
    ranges = problem.ranges
    fitted = {
        name: min(max(size, ranges[name][0]), ranges[name][1]) for name, size in sizes.items()
    }
    while work(problem.declaration, fitted) > most:
        movable = [name for name in fitted if fitted[name] > ranges[name][0]]
        if not movable:
            break
        name = max(movable, key=lambda n: fitted[n])
        fitted[name] = max(fitted[name] * 2 // 3, ranges[name][0])
    return fitted


def _draw_sizes(problem: Problem, dtype: Dtype, rng: random.Random) -> FrozenMap[str, int]:
    def draw() -> dict[str, int]:
        return {n: _log_uniform(rng, *problem.ranges[n]) for n in problem.size_names}

    def admissible(sizes: Mapping[str, int]) -> bool:
        nbytes = sum(tensor.nbytes(sizes, dtype) for tensor in problem.signature.tensors)
        return nbytes <= HELDOUT_BYTES and work(problem.declaration, sizes) <= HELDOUT_WORK

    for _ in range(200):
        sizes = draw()
        if admissible(sizes):
            return FrozenMap(sizes)
    return FrozenMap(fit_sizes(problem, draw(), CHECK_WORK))


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return min(high, max(low, round(exp(rng.uniform(log(low), log(high))))))
