"""What a workload costs at least: bytes that must move and operations that the reference does."""

from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.model import Dtype, Signature


@dataclass(frozen=True, slots=True)
class Cost:
    """Fewest bytes, and the operations of the reference's own algorithm."""

    bytes_read: int
    bytes_written: int
    operations: float | None = None
    """Floating-point operations; None where neither the trace nor the problem tells."""


def signature_cost(signature: Signature, sizes: Mapping[str, int], dtype: Dtype) -> Cost:
    """Each input read once, each output written once; operations unknown."""
    read = sum(tensor.nbytes(sizes, dtype) for tensor in signature.inputs)
    written = sum(tensor.nbytes(sizes, dtype) for tensor in signature.outputs)
    return Cost(read, written)
