"""The typed signature of a reference, read from its jaxtyping annotations."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin, get_type_hints

import torch
from jaxtyping import AbstractArray

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, ScalarArgument, Signature, TensorArgument, dimension_names

_ELEMENTS: dict[str, Dtype | None] = {
    "Float": None, "Integer": None,
    "Float64": Dtype.F64, "Float32": Dtype.F32, "Float16": Dtype.F16,
    "BFloat16": Dtype.BF16, "Int64": Dtype.I64, "Int32": Dtype.I32, "Int16": Dtype.I16,
    "Int8": Dtype.I8, "UInt8": Dtype.U8, "Bool": Dtype.BOOL,
}  # fmt: skip
_SCALARS = {float: "float", int: "int", bool: "bool"}
_TAKEN = frozenset(
    """
    auto bool break case catch char class const continue default delete do double else enum
    explicit extern false float for friend goto if inline int long mutable namespace new operator
    private protected public register return short signed sizeof static struct switch template
    this throw true try typedef typename union unsigned using virtual void volatile while and or
    not xor bf16 f16 prepared workspace workspace_bytes stream
    """.split()  # noqa: SIM905
)


def signature_of(
    function: Callable[..., Any], outputs: Sequence[str] | None = None, static: Sequence[str] = ()
) -> Signature:
    """Signature of an annotated reference.

    Args:
        function: Tensors are annotated with jaxtyping (`Float[Tensor, "T H"]`), scalars with
            `float`, `int` or `bool`.
        outputs: Names of the outputs; by default `out`, or `out0`, `out1`, ...
        static: Inputs that may be prepacked.

    Raises:
        ProblemError: an argument or result has no usable annotation, a name would clash in C.
    """
    where = f"the problem '{function.__name__}'"
    hints = _hints(function, where)
    tensors: list[TensorArgument] = []
    scalars: list[ScalarArgument] = []
    for parameter in inspect.signature(function).parameters.values():
        what = f"{where}: the argument '{parameter.name}'"
        hint = hints.get(parameter.name)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ProblemError(f"{what} is variadic: name every argument")
        if hint in _SCALARS:
            default = None if parameter.default is parameter.empty else parameter.default
            scalars.append(ScalarArgument(parameter.name, _SCALARS[hint], default))  # type: ignore
        else:
            tensors.append(tensor_of(hint, parameter.name, what, parameter.name in static))
    unknown = set(static) - {tensor.name for tensor in tensors}
    if unknown:
        raise ProblemError(f"{where}: static names '{sorted(unknown)[0]}', which is no input")
    signature = Signature(
        tuple(tensors), _outputs(hints.get("return"), outputs, where), tuple(scalars)
    )
    check_names(signature, where)
    return signature


def is_annotated(function: Callable[..., Any]) -> bool:
    """Whether any argument has a jaxtyping annotation."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return False
    return any(_is_array(hint) for hint in hints.values())


def tensor_of(hint: Any, name: str, what: str, static: bool = False) -> TensorArgument:
    """The tensor that one jaxtyping annotation declares; `what` begins the error sentences."""
    if not _is_array(hint):
        raise ProblemError(
            f'{what} has no usable type: annotate it with Float[Tensor, "T H"], or with float, '
            "int or bool if it is a scalar"
        )
    if hint.array_type is not torch.Tensor:
        raise ProblemError(f"{what} must be a torch.Tensor, not {hint.array_type}")
    element = hint.dtype.__name__
    if element not in _ELEMENTS:
        known = ", ".join(_ELEMENTS)
        raise ProblemError(f"{what} has the element type '{element}', use one of {known}")
    dims = tuple(hint.dim_str.split())
    for dim in dims:
        try:
            dimension_names(dim)
        except ProblemError as error:
            raise ProblemError(f"{what}: {error} (and no spaces inside a dimension)") from None
    return TensorArgument(name, dims, _ELEMENTS[element], static)


def check_names(signature: Signature, where: str) -> None:
    """Refuse names that cannot stand side by side in a C prototype.

    Raises:
        ProblemError: a name is a reserved word, or is used twice.
    """
    tensors = [tensor.name for tensor in signature.tensors]
    scalars = [scalar.name for scalar in signature.scalars]
    names = [*tensors, *scalars, *signature.dimensions]
    for name in names:
        if name in _TAKEN or not (name.isascii() and name.isidentifier()):
            raise ProblemError(f"{where}: '{name}' cannot be a name in C, choose another")
        if names.count(name) > 1:
            raise ProblemError(
                f"{where}: '{name}' names two things (inputs, outputs, sizes and scalars share one "
                "prototype), rename one; outputs are named with outputs=(...)"
            )
    if not signature.inputs or not signature.outputs:
        raise ProblemError(f"{where} needs at least one tensor argument and one tensor result")
    _check_scalar_dimensions(signature, where)


def _check_scalar_dimensions(signature: Signature, where: str) -> None:
    used = {n for t in signature.tensors for dim in t.dims for n in dimension_names(dim)}
    for scalar in signature.scalars:
        if scalar.name in used and scalar.kind != "int":
            raise ProblemError(
                f"{where}: the size '{scalar.name}' must be an int, not a {scalar.kind}"
            )


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ProblemError(f"{where} has an annotation that cannot be read: {error}") from None


def _outputs(hint: Any, names: Sequence[str] | None, where: str) -> tuple[TensorArgument, ...]:
    if hint is None or hint is type(None):
        raise ProblemError(f'{where} has no result type: annotate it, -> Float[Tensor, "T H"]')
    hints = get_args(hint) if get_origin(hint) is tuple else (hint,)
    if names is None:
        names = ["out"] if len(hints) == 1 else [f"out{i}" for i in range(len(hints))]
    if len(names) != len(hints):
        raise ProblemError(f"{where} returns {len(hints)} tensors but names {len(names)} outputs")
    return tuple(
        tensor_of(h, name, f"{where}: the result '{name}'")
        for h, name in zip(hints, names, strict=True)
    )
