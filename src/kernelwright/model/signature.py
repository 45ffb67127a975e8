"""The typed signature of a problem: what the kernel ABI is derived from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from kernelwright.model.dimensions import dimension_names, evaluate_dimension
from kernelwright.model.dtypes import Dtype

ScalarKind = Literal["float", "int", "bool"]


@dataclass(frozen=True, slots=True)
class TensorArgument:
    """One input or output tensor, contiguous and row-major."""

    name: str
    dims: tuple[str, ...]
    """Dimension expressions, outermost first; empty for a single element."""
    dtype: Dtype | None = None
    """A fixed element type, or None for the dtype of the workload."""
    static: bool = False
    """A weight: it may be prepacked by `NAME_prepare`."""

    def resolve(self, dtype: Dtype) -> Dtype:
        """Element type under a workload of this dtype."""
        return self.dtype or dtype

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Concrete shape, outermost first."""
        return tuple(evaluate_dimension(dim, sizes) for dim in self.dims)

    def elements(self, sizes: Mapping[str, int]) -> int:
        """Number of elements."""
        return prod(self.shape(sizes))

    def nbytes(self, sizes: Mapping[str, int], dtype: Dtype) -> int:
        """Number of bytes."""
        return self.elements(sizes) * self.resolve(dtype).itemsize


@dataclass(frozen=True, slots=True)
class ScalarArgument:
    """One scalar parameter: `double`, `int64_t` or (for bool) `int32_t` in the ABI."""

    name: str
    kind: ScalarKind
    default: float | int | bool | None = None

    @property
    def c_type(self) -> str:
        """Its type in the prototype."""
        return {"float": "double", "int": "int64_t", "bool": "int32_t"}[self.kind]


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and scalars in the reference's order, outputs in theirs."""

    inputs: tuple[TensorArgument, ...]
    outputs: tuple[TensorArgument, ...]
    scalars: tuple[ScalarArgument, ...] = ()

    @property
    def tensors(self) -> tuple[TensorArgument, ...]:
        """Inputs, then outputs: the order of the prototype."""
        return self.inputs + self.outputs

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names passed as `int64_t`: first appearance in the shapes, scalars left out."""
        scalars = {scalar.name for scalar in self.scalars}
        names = (n for t in self.tensors for dim in t.dims for n in dimension_names(dim))
        return tuple(dict.fromkeys(n for n in names if n not in scalars))

    def resolved(self, dtype: Dtype) -> "Signature":
        """The same signature with a fixed dtype in place of the workload's."""

        def fixed(tensors: tuple[TensorArgument, ...]) -> tuple[TensorArgument, ...]:
            return tuple(replace(t, dtype=t.resolve(dtype)) for t in tensors)

        return Signature(fixed(self.inputs), fixed(self.outputs), self.scalars)

    def prototype(self, entry: str, dtype: Dtype) -> str:
        """The C prototype of a kernel for one workload dtype, without `extern "C"`."""
        parts = [f"const {t.resolve(dtype).c_type}* {t.name}" for t in self.inputs]
        parts += [f"{t.resolve(dtype).c_type}* {t.name}" for t in self.outputs]
        parts += [f"int64_t {name}" for name in self.dimensions]
        parts += [f"{s.c_type} {s.name}" for s in self.scalars]
        parts += ["const void* prepared", "void* workspace"]
        parts += ["int64_t workspace_bytes", "void* stream"]
        return f"int {entry}({', '.join(parts)})"

    def python_call(self, entry: str) -> str:
        """How a Python kernel is defined: `kernel(x, w, out, *, T, H, eps)`."""
        tensors = [tensor.name for tensor in self.tensors]
        keywords = [*self.dimensions, *(scalar.name for scalar in self.scalars)]
        return f"{entry}({', '.join([*tensors, *(['*'] if keywords else []), *keywords])})"

    def workspace_prototype(self, entry: str) -> str:
        """The C prototype of the optional `NAME_workspace`, which returns bytes."""
        parts = [f"int64_t {name}" for name in self.dimensions]
        parts += [f"{s.c_type} {s.name}" for s in self.scalars]
        return f"int64_t {entry}_workspace({', '.join(parts) or 'void'})"

    @property
    def static_inputs(self) -> tuple[TensorArgument, ...]:
        """Inputs that `NAME_prepare` gets."""
        return tuple(tensor for tensor in self.inputs if tensor.static)

    def prepare_prototypes(self, entry: str, dtype: Dtype) -> tuple[str, ...]:
        """The C prototypes of the optional `NAME_prepared` and `NAME_prepare`.

        Empty where no input is static, so that nothing may be prepared.
        """
        if not self.static_inputs:
            return ()
        sizes = [f"int64_t {name}" for name in self.dimensions]
        sizes += [f"{s.c_type} {s.name}" for s in self.scalars]
        parts = [f"const {t.resolve(dtype).c_type}* {t.name}" for t in self.static_inputs]
        parts += [*sizes, "void* prepared", "void* stream"]
        return (
            f"int64_t {entry}_prepared({', '.join(sizes) or 'void'})",
            f"int {entry}_prepare({', '.join(parts)})",
        )
