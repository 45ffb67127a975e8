"""The winner as files that can be shipped: C++ source, operator on torch tensors, library."""

from kernelwright.deploy.speed import OperatorSpeed, measure_operator
from kernelwright.deploy.winner import WinnerFiles, isa_fingerprint, write_source, write_winner

__all__ = [
    "OperatorSpeed",
    "WinnerFiles",
    "isa_fingerprint",
    "measure_operator",
    "write_source",
    "write_winner",
]
