"""The arguments of kernel calls, in prototype order."""

from collections.abc import Mapping, Sequence

from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.prepared import ARENA
from kernelwright.evaluation.workspace import OFFSET
from kernelwright.execution import Pointer, Stream
from kernelwright.model import Scalar, ScalarArgument, Signature, Workload


def arguments(
    signature: Signature,
    pool: Pool,
    case: int,
    slots: tuple[int, int],
    workspace_bytes: int,
    prepared_bytes: int = 0,
) -> tuple[Pointer | Stream | int | float, ...]:
    """The arguments of one call, in prototype order."""
    workload = pool.workloads[case]
    inputs = pool.input_slots[slots[0]]
    outputs = pool.output_slots[case][slots[1]]
    pointers = [Pointer(pool.inputs.name, place.offset) for place in inputs]
    pointers += [Pointer(pool.outputs.name, place.offset) for place in outputs]
    scratch: Pointer | int = Pointer("workspace", OFFSET) if workspace_bytes else 0
    packed: Pointer | int = Pointer(ARENA, OFFSET) if prepared_bytes else 0
    sizes = size_arguments(signature, workload)
    return (*pointers, *sizes, packed, scratch, workspace_bytes, Stream())


def size_arguments(signature: Signature, workload: Workload) -> tuple[int | float, ...]:
    """Dimensions and scalars in prototype order."""
    dimensions = [workload.sizes[name] for name in signature.dimensions]
    return (*dimensions, *scalar_values(signature.scalars, workload.scalars))


def scalar_values(
    scalars: Sequence[ScalarArgument], values: Mapping[str, Scalar]
) -> tuple[int | float, ...]:
    """Scalars as they are passed: `double`, or an integer."""
    return tuple(
        float(values[s.name]) if s.kind == "float" else int(values[s.name]) for s in scalars
    )


def scalar_words(signature: Signature, workload: Workload) -> tuple[list[int], list[float]]:
    """Dimensions and scalars as integer and floating arguments of `ENTRY_workspace`."""
    words = size_arguments(signature, workload)
    doubles = [word for word in words if isinstance(word, float)]
    return [word for word in words if not isinstance(word, float)], doubles
