"""Signatures read from annotations."""

import keyword

import jaxtyping
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Complex64, Float, Float32, Int32
from torch import Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype
from kernelwright.problems.signature import signature_of

ELEMENTS = {
    "Float": None, "Float64": Dtype.F64, "Float32": Dtype.F32, "Float16": Dtype.F16,
    "BFloat16": Dtype.BF16, "Int64": Dtype.I64, "Int32": Dtype.I32, "Int16": Dtype.I16,
    "Int8": Dtype.I8, "UInt8": Dtype.U8, "Bool": Dtype.BOOL,
}  # fmt: skip
SIZES = ("T", "H", "M", "K1", "head_dim")
dims = st.one_of(
    st.sampled_from(SIZES),
    st.integers(1, 4096).map(str),
    st.builds(
        lambda a, op, b: f"{a}{op}{b}",
        st.sampled_from(SIZES),
        st.sampled_from(["+", "*", "-", "//"]),
        st.integers(1, 9),
    ),
    st.builds(lambda a, b: f"({a}+{b})*2", st.sampled_from(SIZES), st.sampled_from(SIZES)),
)
tensors = st.tuples(st.sampled_from(sorted(ELEMENTS)), st.lists(dims, max_size=4).map(tuple))
scalars = st.one_of(st.floats(-10, 10), st.integers(-10, 10), st.booleans())


def annotation(element: str, shape: tuple[str, ...]):
    return getattr(jaxtyping, element)[Tensor, " ".join(shape)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(tensors, scalars), min_size=1, max_size=6),
    st.lists(tensors, min_size=1, max_size=3),
)
def test_every_annotation_arrives_in_order(arguments, results):
    if not any(isinstance(argument, tuple) for argument in arguments):
        return
    names = [f"a{i}" for i in range(len(arguments))]

    code = f"def f({', '.join(f'{n}=None' for n in names)}): ..."
    scope: dict = {}
    exec(code, scope)
    function = scope["f"]
    function.__annotations__ = {
        name: annotation(*argument) if isinstance(argument, tuple) else type(argument)
        for name, argument in zip(names, arguments, strict=True)
    }
    function.__defaults__ = tuple(None if isinstance(a, tuple) else a for a in arguments)
    hints = tuple(annotation(*result) for result in results)
    function.__annotations__["return"] = hints[0] if len(hints) == 1 else tuple[hints]

    signature = signature_of(function)

    wanted = [(n, *a) for n, a in zip(names, arguments, strict=True) if isinstance(a, tuple)]
    assert [(t.name, t.dims, t.dtype) for t in signature.inputs] == [
        (name, shape, ELEMENTS[element]) for name, element, shape in wanted
    ]
    outputs = ["out"] if len(results) == 1 else [f"out{i}" for i in range(len(results))]
    assert [(t.name, t.dims, t.dtype) for t in signature.outputs] == [
        (n, shape, ELEMENTS[element]) for n, (element, shape) in zip(outputs, results, strict=True)
    ]
    plain = [(n, a) for n, a in zip(names, arguments, strict=True) if not isinstance(a, tuple)]
    assert [(s.name, s.default, s.kind) for s in signature.scalars] == [
        (n, a, type(a).__name__) for n, a in plain
    ]
    assert set(signature.dimensions) <= set(SIZES)


def untyped(x, w: Float[Tensor, "H"]) -> Float[Tensor, "H"]: ...
def no_result(x: Float[Tensor, "H"]): ...
def spaced(x: Float[Tensor, "N (K + 1)"]) -> Float[Tensor, "N"]: ...
def variadic_dims(x: Float[Tensor, "*batch N"]) -> Float[Tensor, "N"]: ...
def dotted(x: Float[Tensor, "... N"]) -> Float[Tensor, "N"]: ...
def complexes(x: Complex64[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def reserved(double: Float[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def workspace_name(workspace: Float[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def same_name(N: Float[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def clash(out: Float[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def starred(*x: Float[Tensor, "N"]) -> Float[Tensor, "N"]: ...
def only_scalars(a: float) -> Float[Tensor, "3"]: ...
def float_size(x: Float[Tensor, "N"], N: float) -> Float[Tensor, "N"]: ...
def float_size_output(x: Float[Tensor, "M"], k: float) -> Float[Tensor, "k"]: ...
def numpyish(x: int | None) -> Float[Tensor, "N"]: ...


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (untyped, "the argument 'x' has no usable type: annotate it with Float[Tensor"),
        (no_result, "has no result type"),
        (spaced, "no spaces inside a dimension"),
        (variadic_dims, "the dimension '*batch'"),
        (dotted, "the dimension '...'"),
        (complexes, "element type 'Complex64', use one of Float"),
        (reserved, "'double' cannot be a name in C"),
        (workspace_name, "'workspace' cannot be a name in C"),
        (same_name, "'N' names two things"),
        (clash, "'out' names two things"),
        (starred, "is variadic"),
        (only_scalars, "needs at least one tensor argument"),
        (float_size_output, "the size 'k' must be an int"),
        (numpyish, "the argument 'x' has no usable type"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(function, says):
    with pytest.raises(ProblemError) as caught:
        signature_of(function)
    text = str(caught.value)
    assert says in text
    assert function.__name__ in text
    assert "\n" not in text


def test_outputs_can_be_named_and_inputs_static():
    def f(
        x: Float[Tensor, "N"], w: Float32[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N"], Int32[Tensor, ""]]: ...

    signature = signature_of(f, outputs=("value", "count"), static=("w",))
    assert [t.name for t in signature.outputs] == ["value", "count"]
    assert signature.outputs[1].dims == ()
    assert [t.static for t in signature.inputs] == [False, True]
    assert signature.prototype("kernel", Dtype.BF16).startswith(
        "int kernel(const bf16* x, const float* w, bf16* value, int32_t* count, int64_t N"
    )
    with pytest.raises(ProblemError, match="returns 2 tensors but names 1"):
        signature_of(f, outputs=("value",))
    with pytest.raises(ProblemError, match="static names 'v'"):
        signature_of(f, static=("v",))


def test_a_scalar_may_be_a_size():
    def f(x: Float[Tensor, "N"], k: int) -> Float[Tensor, "k"]: ...

    signature = signature_of(f)
    assert signature.dimensions == ("N",)
    assert not keyword.iskeyword(signature.scalars[0].name)


def test_postponed_annotations_are_read():
    scope: dict = {}
    exec(
        "from __future__ import annotations\n"
        "from jaxtyping import Float\nfrom torch import Tensor\n"
        "def f(x: Float[Tensor, 'T H'], eps: float = 0.5) -> Float[Tensor, 'T']: ...\n",
        scope,
    )
    signature = signature_of(scope["f"])
    assert signature.inputs[0].dims == ("T", "H")
    assert signature.scalars[0].default == 0.5
