"""Generates `best.py`: the winner as a function on torch tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kernelwright.deploy.parameters import Parameter, parameters_of
from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, PublicProblem, Signature, TensorArgument, dimension_names

_TORCH_DTYPE: Mapping[Dtype, str] = {
    Dtype.F64: "torch.float64", Dtype.F32: "torch.float32", Dtype.F16: "torch.float16",
    Dtype.BF16: "torch.bfloat16", Dtype.I64: "torch.int64", Dtype.I32: "torch.int32",
    Dtype.I16: "torch.int16", Dtype.I8: "torch.int8", Dtype.U8: "torch.uint8",
    Dtype.BOOL: "torch.bool",
}  # fmt: skip
_CTYPE = {"float": "c_double", "int": "c_int64", "bool": "c_int32"}


@dataclass(frozen=True, slots=True)
class OperatorText:
    """What the template needs beside the problem."""

    entry: str
    headline: str
    """First line of the module's docstring."""
    evidence: tuple[str, ...]
    """Sentences on where the kernel comes from."""
    compiler: str
    flags: tuple[str, ...]
    key: str
    """Short hash that makes the registered operator's name unique."""
    reference_file: str
    reference_name: str
    matrix_unit: bool
    """Whether the kernel uses the matrix unit (AMX), which a process has to ask for."""
    shipped_isa: str | None
    """Fingerprint of the machine that `libbest.so` was built for, or the GPU's architecture; None:
    none is shipped."""
    gpu: bool = False
    """Whether the kernel is CUDA C++."""

    @property
    def source(self) -> str:
        """Name of the kernel's file."""
        return "best.cu" if self.gpu else "best.cpp"

    @property
    def compiler_variable(self) -> str:
        """What names another compiler."""
        return "KERNELWRIGHT_NVCC" if self.gpu else "KERNELWRIGHT_CXX"


def render_operator(public: PublicProblem, dtype: Dtype, text: OperatorText) -> str:
    """Source text of `best.py`.

    Raises:
        ProblemError: a dimension cannot be recovered from the shapes of the inputs.
    """
    environment = Environment(
        loader=PackageLoader("kernelwright.deploy"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # it makes Python source, not HTML
    )
    return environment.get_template("best.py.jinja").render(
        text=text,
        name=public.name,
        summary=public.summary,
        place="tensors[0].device" if text.gpu else '"cpu"',
        stream="torch.cuda.current_stream().cuda_stream" if text.gpu else "None",
        **_context(public, dtype),
    )


def _context(public: PublicProblem, dtype: Dtype) -> dict[str, Any]:
    """The signature in Python's words."""
    signature = public.signature
    parameters = parameters_of(public)
    tensors = [tensor.name for tensor in signature.inputs]
    scalars = [scalar.name for scalar in signature.scalars]
    typed = [f"{name}: Tensor" for name in tensors]
    typed += [f"{scalar.name}: {scalar.kind}" for scalar in signature.scalars]
    sizes = ["c_int64"] * len(signature.dimensions) + [_CTYPE[s.kind] for s in signature.scalars]
    return {
        "parameter_list": _parameter_list(parameters),
        "call_list": ", ".join(_passed(p) for p in parameters),
        "abi_names": ", ".join([*tensors, *scalars]),
        "operator_parameters": ", ".join(typed),
        "tensors_tuple": _tuple(tensors),
        "scalars_tuple": _tuple(scalars),
        "dimensions_tuple": _tuple(signature.dimensions),
        "output_shapes_tuple": _tuple([_tuple(t.dims) for t in signature.outputs]),
        "output_dtypes_tuple": _tuple([_torch_dtype(t, dtype) for t in signature.outputs]),
        "inputs": [(t.name, len(t.dims), _torch_dtype(t, dtype)) for t in signature.inputs],
        "input_shapes": [(t.name, _tuple(t.dims)) for t in signature.inputs],
        "outputs": [t.name for t in signature.outputs],
        "scalars": [(s.name, s.kind) for s in signature.scalars],
        "dimensions": signature.dimensions,
        "dimensions_and_scalars": [*signature.dimensions, *scalars],
        "ranges": [(n, *public.ranges.get(n, (1, None))) for n in signature.dimensions],
        "steps": [(name, how, "_solve(" in how) for name, how in size_steps(signature)],
        "returns": _return_type(len(signature.outputs)),
        "argument_types": _argument_types(signature),
        "workspace_types": sizes,
        "static": bool(signature.static_inputs),
        "static_tuple": _tuple([str(n) for n, t in enumerate(signature.inputs) if t.static]),
        "prepare_types": ["c_void_p"] * len(signature.static_inputs)
        + [*sizes, "c_void_p", "c_void_p"],
    }


def size_steps(signature: Signature) -> list[tuple[str, str]]:
    """How each dimension follows from the shapes of the inputs: name and Python expression.

    A shape entry that is a name gives it at once; an expression with one unknown name, such as
    `2*D`, is solved for it.

    Raises:
        ProblemError: a name stays unknown.
    """
    entries = [
        (dim, f"{tensor.name}[{axis}]")
        for tensor in signature.inputs
        for axis, dim in enumerate(tensor.dims)
    ]
    known = {scalar.name for scalar in signature.scalars}
    wanted = [name for name in signature.dimensions if name not in known]
    steps: list[tuple[str, str]] = []
    for dim, place in entries:
        if dim in wanted and dim not in known:
            steps.append((dim, place))
            known.add(dim)
    progress = True
    while progress and not known.issuperset(wanted):
        progress = False
        for dim, place in entries:
            unknown = [name for name in dimension_names(dim) if name not in known]
            if len(unknown) == 1:
                steps.append((unknown[0], f"_solve(lambda {unknown[0]}: {dim}, {place})"))
                known.add(unknown[0])
                progress = True
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ProblemError(
            f"the size '{missing[0]}' does not follow from the shapes of the inputs; "
            "make it a scalar parameter of the reference"
        )
    return steps


def _torch_dtype(tensor: TensorArgument, dtype: Dtype) -> str:
    return _TORCH_DTYPE[tensor.resolve(dtype)]


def _tuple(items: Sequence[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _return_type(outputs: int) -> str:
    return "Tensor" if outputs == 1 else f"tuple[{', '.join(['Tensor'] * outputs)}]"


def _parameter_list(parameters: tuple[Parameter, ...]) -> str:
    parts: list[str] = []
    for parameter in parameters:
        if parameter.keyword_only and "*" not in parts:
            parts.append("*")
        default = "" if parameter.default is None else f" = {parameter.default}"
        parts.append(f"{parameter.name}: {parameter.annotation}{default}")
    return ", ".join(parts)


def _passed(parameter: Parameter) -> str:
    return f"{parameter.name}={parameter.name}" if parameter.keyword_only else parameter.name


def _argument_types(signature: Signature) -> list[str]:
    types = ["c_void_p"] * len(signature.tensors)
    types += ["c_int64"] * len(signature.dimensions)
    types += [_CTYPE[scalar.kind] for scalar in signature.scalars]
    return [*types, "c_void_p", "c_void_p", "c_int64", "c_void_p"]
