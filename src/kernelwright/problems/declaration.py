"""`@problem` and `Problem`: a typed reference and everything that is known about it."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Generator, Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import (
    Dtype,
    FrozenMap,
    PublicProblem,
    Scalar,
    Signature,
    Sizes,
    Workload,
    dimension_names,
)
from kernelwright.problems import workloads
from kernelwright.problems.cost import Cost, signature_cost
from kernelwright.problems.distributions import STANDARD
from kernelwright.problems.elements import parse_dtype
from kernelwright.problems.inputs import make_inputs
from kernelwright.problems.signature import signature_of

Reference = Callable[..., Any]
InputMaker = Callable[[Mapping[str, int], Mapping[str, Scalar], Generator], dict[str, Tensor]]
Packed = Mapping[str, Tensor | tuple[Tensor, ...]]
"""What takes the place of static inputs, by their names."""
Preparation = Callable[..., Packed]
CostFunction = Callable[[Mapping[str, int], Dtype], Cost]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Trial:
    """One result to be judged by a problem's own notion of equivalence."""

    inputs: Mapping[str, Tensor]
    """By name; floats as float64, integers as they are."""
    scalars: Mapping[str, Scalar]
    dtype: Dtype
    """The workload's."""
    actual: Mapping[str, Tensor]
    """Outputs by name; floats widened to float64, integers to int64."""
    expected: Mapping[str, Tensor]
    """The oracle's outputs, in the same types."""


Equivalence = Callable[[Trial], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a problem says about its reference, checked and complete."""

    name: str
    signature: Signature
    scenario: str
    dtypes: tuple[Dtype, ...]
    sizes: FrozenMap[str, tuple[Sizes, ...]]
    ranges: FrozenMap[str, tuple[int, int]]
    scalar_choices: FrozenMap[str, tuple[Scalar, ...]]
    distributions: tuple[str, ...]
    slices: str | None = None
    work: str = ""
    """Points of the index space in terms of the sizes; empty: their product."""
    source: str = ""
    contract: str = ""
    derived: tuple[str, ...] = ()


class Problem:
    """What must be computed. Callable like its reference.

    Decorators add what only the author can know:

        @p.inputs("ties")    makes one named distribution: (sizes, scalars, generator) -> tensors
        @p.equivalent        judges results itself: (Trial) -> error per element, by output
        @p.terms             the sum of absolute terms, called like the reference
        @p.cost              (sizes, dtype) -> Cost
        @p.peer("F.norm")    what a careful user would call instead, called like the reference
        @p.trivial("half")   a wrong answer that must fail, called like the reference
    """

    def __init__(self, function: Reference, declaration: Declaration) -> None:
        self.function = function
        self.declaration = declaration
        self.makers: dict[str, InputMaker] = {}
        self.peers: dict[str, Reference] = {}
        self.preparations: dict[str, Preparation] = {}
        self.trivial_answers: dict[str, Reference] = {}
        self.equivalence: Equivalence | None = None
        self.terms_function: Reference | None = None
        self._cost: CostFunction | None = None
        self.__name__ = declaration.name
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the reference as written."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<problem {self.name}>"

    @property
    def name(self) -> str:
        """The reference's name."""
        return self.declaration.name

    @property
    def signature(self) -> Signature:
        """Typed inputs, scalars and outputs."""
        return self.declaration.signature

    @property
    def dtypes(self) -> tuple[Dtype, ...]:
        """Workload dtypes; the first is the default."""
        return self.declaration.dtypes

    @property
    def ranges(self) -> FrozenMap[str, tuple[int, int]]:
        """Least and greatest size by name."""
        return self.declaration.ranges

    @property
    def distributions(self) -> tuple[str, ...]:
        """Names of the input distributions, `normal` first."""
        return tuple(dict.fromkeys((*self.declaration.distributions, *self.makers)))

    @property
    def size_names(self) -> tuple[str, ...]:
        """Every name that a workload's sizes must give, scalars that are sizes included."""
        return size_names(self.signature)

    # Hooks ---------------------------------------------------------------------------------------

    def inputs(self, distribution: str) -> Callable[[InputMaker], InputMaker]:
        """Register the maker of a named distribution; what it leaves out is drawn as `normal`."""
        return _registrar(self.makers, distribution, f"{self.name}: the distribution")

    def peer(self, name: str, prepare: Preparation | None = None) -> Callable[[F], F]:
        """Register a baseline by name, called like the reference.

        Args:
            name: What it is called in results.
            prepare: Packs the static inputs outside of the timed call: gets them by name, returns
                what the peer gets in place of them.
        """
        if name in ("eager", "compile"):
            raise ProblemError(f"{self.name}: every problem has the baseline '{name}' already")
        if prepare is not None:
            self.preparations[name] = prepare
        return _registrar(self.peers, name, f"{self.name}: the peer")

    def trivial(self, name: str) -> Callable[[F], F]:
        """Register a wrong answer that every distribution must tell from the right one."""
        return _registrar(self.trivial_answers, name, f"{self.name}: the trivial answer")

    def equivalent(self, function: Equivalence) -> Equivalence:
        """Register what judges results.

        The function gets a `Trial` and returns, for every output that it judges itself, a tensor
        of the output's shape: errors in units of what is allowed (1 is the limit), or booleans
        (right or wrong). Outputs that it leaves out are compared as usual.
        """
        self.equivalence = function
        return function

    def terms(self, function: F) -> F:
        """Register Σ|terms| of each output (None where it has no sum), called like the reference.

        Gives sums a tolerance floor of c·eps·Σ|terms|, so that any order of summation may pass.
        """
        self.terms_function = function
        return function

    def cost(self, function: CostFunction) -> CostFunction:
        """Register the cost by sizes and dtype, where shapes alone do not tell."""
        self._cost = function
        return function

    # What the parts ask --------------------------------------------------------------------------

    def cost_of(self, sizes: Mapping[str, int], dtype: Dtype) -> Cost:
        """Fewest bytes, and operations where declared; sizes must be complete."""
        if self._cost is not None:
            return self._cost(sizes, dtype)
        return signature_cost(self.signature, sizes, dtype)

    def default_scalars(self, sizes: Mapping[str, int]) -> FrozenMap[str, Scalar]:
        """Every scalar at its default: from the sizes, the reference, or its first choice."""
        return workloads.default_scalars(self.declaration, sizes)

    def bench_workload(
        self,
        sizes: Mapping[str, int] | int | None = None,
        dtype: Dtype | str | None = None,
        target: str = "cpu",
    ) -> Workload:
        """The scored workload at given sizes, or at declared ones by index (default: the first).

        Raises:
            ProblemError: sizes are missing, unknown or out of range; the dtype is not declared.
        """
        return workloads.bench_workload(self, sizes, dtype, target)

    def check_workloads(self, dtype: Dtype, seed: int) -> list[Workload]:
        """Small workloads for correctness, deterministic given the seed.

        Sizes of 1, odd, around powers of two; every distribution; non-default scalars.
        """
        return workloads.check_workloads(self, dtype, seed)

    def heldout_workloads(self, dtype: Dtype, seed: int, count: int) -> list[Workload]:
        """Workloads at sizes drawn log-uniformly from `ranges`, capped in bytes and work."""
        return workloads.heldout_workloads(self, dtype, seed, count)

    def make_inputs(self, workload: Workload, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """Inputs in the reference's order, contiguous, in their dtypes under this workload.

        On a GPU as the maker of the distribution leaves them: it is called where tensors are made
        on that device unless it says otherwise.

        Raises:
            ProblemError: the distribution is unknown, or its maker returned something unusable.
        """
        return make_inputs(self, workload, seed, device)

    def public(self) -> PublicProblem:
        """What proposers, prompts and logs may see."""
        declared = self.declaration
        return PublicProblem(
            name=self.name,
            scenario=declared.scenario,
            summary=(inspect.getdoc(self.function) or "").strip().partition("\n")[0],
            signature=self.signature,
            dtypes=self.dtypes,
            sizes=declared.sizes,
            ranges=self.ranges,
            distributions=self.distributions,
            peers=tuple(self.peers),
            source=declared.source,
            reference_text=_source_text(self.function),
            derived=declared.derived,
            contract=declared.contract,
        )


def problem(
    *,
    scenario: str = "user",
    dtypes: Sequence[str] = ("f32", "bf16"),
    sizes: Mapping[str, Sequence[Mapping[str, int]]] | None = None,
    ranges: Mapping[str, tuple[int, int]] | None = None,
    distributions: Sequence[str] = ("normal", "outliers"),
    scalar_choices: Mapping[str, Sequence[Scalar]] | None = None,
    outputs: Sequence[str] | None = None,
    static: Sequence[str] = (),
    slices: str | None = None,
    work: str = "",
    source: str = "",
    contract: str = "",
) -> Callable[[Reference], Problem]:
    """Declare a typed function as a problem.

    Args:
        scenario: The group it is listed under.
        dtypes: Workload dtypes: what `Float` stands for. The first is the default.
        sizes: Bench sizes by target: `{"cpu": [dict(T=512, H=4096)]}`.
        ranges: Least and greatest size that a kernel must be right for, by name; by default from
            1 to twice the largest bench size.
        distributions: Standard input distributions (`distributions.STANDARD`), `normal` first.
        scalar_choices: Values that the checks give a scalar; by default its default and another.
        outputs: Names of the outputs; by default `out`, or `out0`, `out1`, ...
        static: Inputs that are weights and may be prepacked.
        slices: A size along which the outputs can be computed piece by piece: the oracle then
            never holds the intermediates of a whole workload.
        work: What one evaluation costs, as an expression in the sizes (`"N*N"`), where it is not
            their product. Checks, held-out sizes and slices are kept small by it.
        source: Where the problem comes from.
        contract: What it allows beyond the default contract.

    Raises:
        ProblemError: the declaration does not fit the function, in one sentence.
    """

    def declare(function: Reference) -> Problem:
        signature = signature_of(function, outputs, static)
        declaration = Declaration(
            name=function.__name__,
            signature=signature,
            scenario=scenario,
            dtypes=tuple(parse_dtype(dtype, function.__name__) for dtype in dtypes),
            sizes=FrozenMap(
                {
                    target: tuple(FrozenMap(one) for one in many)
                    for target, many in (sizes or {}).items()
                }
            ),
            ranges=FrozenMap(ranges or {}),
            scalar_choices=FrozenMap({n: tuple(v) for n, v in (scalar_choices or {}).items()}),
            distributions=tuple(distributions),
            slices=slices,
            work=work,
            source=source,
            contract=contract,
        )
        return Problem(function, completed(declaration))

    return declare


def completed(declaration: Declaration) -> Declaration:
    """Check a declaration and fill in ranges and scalar choices that were left out.

    Raises:
        ProblemError: a size, range, scalar or distribution does not fit the signature.
    """
    where = f"the problem '{declaration.name}'"
    names = size_names(declaration.signature)
    if not declaration.dtypes:
        raise ProblemError(f"{where} declares no dtype")
    _only_known(where, "sizes", (n for s in _all_sizes(declaration) for n in s), names)
    _only_known(where, "ranges", declaration.ranges, names)
    _only_known(where, "distributions", declaration.distributions, tuple(STANDARD))
    if "normal" not in declaration.distributions:
        raise ProblemError(f"{where}: the distributions must include 'normal'")
    scalars = tuple(scalar.name for scalar in declaration.signature.scalars)
    _only_known(where, "scalar_choices", declaration.scalar_choices, scalars)
    if declaration.work:
        _only_known(where, "work", dimension_names(declaration.work), names)
    if declaration.slices is not None:
        _only_known(where, "slices", (declaration.slices,), names)
        if not all(t.dims.count(declaration.slices) == 1 for t in declaration.signature.outputs):
            raise ProblemError(f"{where}: slices='{declaration.slices}' is no axis of each output")
    full = replace(
        declaration,
        ranges=FrozenMap({name: _range(declaration, name) for name in names}),
        scalar_choices=workloads.complete_choices(declaration, names),
    )
    for sizes in _all_sizes(full):
        workloads.check_sizes(full, sizes)
    return full


def size_names(signature: Signature) -> tuple[str, ...]:
    """Every name in the shapes, in order of first appearance."""
    names = (n for t in signature.tensors for dim in t.dims for n in dimension_names(dim))
    return tuple(dict.fromkeys(names))


def _range(declaration: Declaration, name: str) -> tuple[int, int]:
    if name in declaration.ranges:
        low, high = declaration.ranges[name]
        if not 1 <= low <= high:
            raise ProblemError(
                f"the problem '{declaration.name}': the range of '{name}' is ({low}, {high}), "
                "it must hold 1 <= least <= greatest"
            )
        return int(low), int(high)
    largest = max((sizes.get(name, 1) for sizes in _all_sizes(declaration)), default=1)
    return 1, max(2 * largest, 1024)


def _all_sizes(declaration: Declaration) -> list[Sizes]:
    return [sizes for many in declaration.sizes.values() for sizes in many]


def _only_known(where: str, what: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            have = ", ".join(known) or "none"
            raise ProblemError(f"{where}: {what} names '{name}', which is none of {have}")


def _registrar(table: dict[str, Any], name: str, what: str) -> Callable[[F], F]:
    def register(function: F) -> F:
        if name in table:
            raise ProblemError(f"{what} '{name}' is defined twice")
        table[name] = function
        return function

    return register


def _source_text(function: Reference) -> str:
    """Source of the function without its decorators; empty where it is not on disk."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError):
        return ""
    first = tree.lineno  # of `def`, after the decorators
    return "\n".join(text.splitlines()[first - 1 : tree.end_lineno]) + "\n"
