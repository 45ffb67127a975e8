"""Which axes of example inputs share a size, found by running the function on fake tensors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, Scalar, evaluate_dimension
from kernelwright.problems.elements import dtype_of, torch_dtype

Axis = tuple[str, int]
Inputs = Mapping[str, tuple[tuple[int, ...], Dtype]]
_LONGEST_CLASS = 8
"""Equal axes beyond this many simply share their size: subsets are tried one by one."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """Dimension expressions of every tensor, and the examples' sizes."""

    inputs: dict[str, tuple[str, ...]]
    outputs: list[tuple[str, tuple[str, ...], Dtype]]
    sizes: dict[str, int]
    notes: list[str]


def infer_shapes(
    function: Callable[..., Any], inputs: Inputs, scalars: Mapping[str, Scalar]
) -> Shapes:
    """Name the axes of a function's arguments and results.

    Axes of different length have different sizes. Of the axes of equal length, those share one
    that the function needs to be equal: it fails on fake tensors in which only some of them are
    longer. An axis that cannot change at all, not even with all its equals, is a constant.

    Raises:
        ProblemError: the function fails on the examples, or a result's shape is no simple
            expression in the arguments' sizes.
    """
    finder = _Finder(function, inputs, scalars)
    finder.require_example_runs()
    groups = list(finder.groups())
    names: dict[Axis, str] = {}
    sizes: dict[str, int] = {}
    notes: list[str] = []
    for group in groups:
        length = finder.length(group[0])
        label = " and ".join(f"{name}.shape[{axis}]" for name, axis in group)
        if length == 1 or not finder.runs({axis: length + 1 for axis in group}):
            names |= dict.fromkeys(group, str(length))
            notes.append(f"{label} is always {length}")
            continue
        size = _fresh(len(sizes), set(inputs) | set(scalars))
        names |= dict.fromkeys(group, size)
        sizes[size] = length
        if len(group) > 1:
            notes.append(f"{label} are one size, {size}: the function needs them equal")
    dims = {n: tuple(names[n, axis] for axis in range(len(s))) for n, (s, _) in inputs.items()}
    return Shapes(dims, finder.outputs(names, sizes), sizes, notes)


def probe(
    function: Callable[..., Any], inputs: Inputs, scalars: Mapping[str, Scalar]
) -> list[tuple[tuple[int, ...], Dtype]]:
    """Shapes and dtypes of the results, on fake tensors; raises whatever the function raises."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        fake = {n: torch.empty(shape, dtype=torch_dtype(d)) for n, (shape, d) in inputs.items()}
        result = function(**fake, **scalars)
    outputs = result if isinstance(result, tuple | list) else (result,)
    if not outputs or not all(isinstance(value, Tensor) for value in outputs):
        raise ProblemError("the results must be tensors")
    return [(tuple(int(n) for n in value.shape), dtype_of(value)) for value in outputs]


class _Finder:
    """One function with its examples, run at other sizes."""

    def __init__(
        self, function: Callable[..., Any], inputs: Inputs, scalars: Mapping[str, Scalar]
    ) -> None:
        self.function = function
        self.example = inputs
        self.scalars = scalars

    def length(self, axis: Axis) -> int:
        return self.example[axis[0]][0][axis[1]]

    def at(self, lengths: Mapping[Axis, int]) -> list[tuple[tuple[int, ...], Dtype]]:
        changed = {
            name: (tuple(lengths.get((name, axis), n) for axis, n in enumerate(shape)), dtype)
            for name, (shape, dtype) in self.example.items()
        }
        return probe(self.function, changed, self.scalars)

    def runs(self, lengths: Mapping[Axis, int]) -> bool:
        try:
            self.at(lengths)
        except Exception:  # a stranger's function says in its own way that it takes no such sizes
            return False
        return True

    def require_example_runs(self) -> None:
        name = getattr(self.function, "__name__", "function")
        try:
            self.at({})
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise ProblemError(
                f"the function '{name}' fails on its example inputs: "
                f"{type(error).__name__}: {reason}"
            ) from error

    def groups(self) -> Iterator[list[Axis]]:
        """Axes that share a size, in order of first appearance."""
        axes = [(n, axis) for n, (shape, _) in self.example.items() for axis in range(len(shape))]
        found: list[list[Axis]] = []
        for length in dict.fromkeys(self.length(axis) for axis in axes):
            equal = [axis for axis in axes if self.length(axis) == length]
            found += self._tied(equal) if length > 1 else [[axis] for axis in equal]
        return iter(sorted(found, key=lambda group: axes.index(group[0])))

    def _tied(self, equal: list[Axis]) -> list[list[Axis]]:
        """Split axes of one length into the least groups that can each change alone."""
        if len(equal) > _LONGEST_CLASS:
            return [equal]
        groups: list[list[Axis]] = []
        rest = equal
        while rest:
            first, others = rest[0], rest[1:]
            group = next(
                [first, *more]
                for count in range(len(others) + 1)
                for more in combinations(others, count)
                if count == len(others) or self._can_change([first, *more])
            )
            groups.append(group)
            rest = [axis for axis in rest if axis not in group]
        return groups

    def _can_change(self, group: list[Axis]) -> bool:
        # Two lengths, both odd: one might fit by accident (a divisor, a broadcast).
        length = self.length(group[0])
        return all(self.runs(dict.fromkeys(group, length + more)) for more in (1, 6))

    def outputs(
        self, names: Mapping[Axis, str], sizes: Mapping[str, int]
    ) -> list[tuple[str, tuple[str, ...], Dtype]]:
        """Result shapes as expressions, right at three settings of the sizes."""
        settings = [
            dict(sizes),
            {name: size + 1 + 2 * i for i, (name, size) in enumerate(sizes.items())},
            {name: size + 6 + 5 * i for i, (name, size) in enumerate(sizes.items())},
        ]
        results = []
        for setting in settings:
            lengths = {axis: evaluate_dimension(name, setting) for axis, name in names.items()}
            results.append(self.at(lengths))
        found: list[tuple[str, tuple[str, ...], Dtype]] = []
        for position, (shape, dtype) in enumerate(results[0]):
            label = "out" if len(results[0]) == 1 else f"out{position}"
            dims = []
            for axis in range(len(shape)):
                lengths = [result[position][0][axis] for result in results]
                dims.append(_expression(lengths, settings, f"{label}.shape[{axis}]"))
            found.append((label, tuple(dims), dtype))
        return found


def _expression(lengths: list[int], settings: list[dict[str, int]], what: str) -> str:
    """The simplest dimension expression with these values at these settings."""
    for text in _expressions(tuple(settings[0]), lengths[0]):
        try:
            values = [evaluate_dimension(text, setting) for setting in settings]
        except ProblemError:
            continue
        if values == lengths:
            return text
    raise ProblemError(
        f"the shape of the result cannot be told: {what} is {lengths[0]} at "
        f"{settings[0]}; annotate the function"
    )


def _expressions(names: tuple[str, ...], length: int) -> Iterator[str]:
    yield from names
    yield str(length)
    for name in names:
        for number in range(2, 9):
            yield from (f"{number}*{name}", f"{name}//{number}", f"({name}+{number}-1)//{number}")
        for number in range(1, 65):
            yield from (f"{name}+{number}", f"{name}-{number}")
    for a, b in combinations(names, 2):
        yield from (f"{a}*{b}", f"{a}+{b}", f"{a}-{b}", f"{b}-{a}", f"{a}-{b}+1", f"{b}-{a}+1")


def _fresh(count: int, taken: set[str]) -> str:
    """D0, D1, ...: names that no argument has."""
    names = (f"D{number}" for number in range(count, count + len(taken) + 1))
    return next(name for name in names if name not in taken)
