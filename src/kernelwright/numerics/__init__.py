"""Comparison, error budgets and paired statistics: pure numpy, no torch, no input or output."""

from kernelwright.numerics.compare import Band, Comparison, band, compare
from kernelwright.numerics.formats import decode, encode, largest, storage
from kernelwright.numerics.statistics import (
    AcceptRule,
    Decision,
    ScreenRule,
    half_width,
    median_estimate,
    paired_ratio,
)
from kernelwright.numerics.tolerance import (
    EPS32,
    FACTOR,
    Budget,
    budget,
    distribution_usable,
    norm_tolerance,
    tolerance,
)

__all__ = [
    "EPS32",
    "FACTOR",
    "AcceptRule",
    "Band",
    "Budget",
    "Comparison",
    "Decision",
    "ScreenRule",
    "band",
    "budget",
    "compare",
    "decode",
    "distribution_usable",
    "encode",
    "half_width",
    "largest",
    "median_estimate",
    "norm_tolerance",
    "paired_ratio",
    "storage",
    "tolerance",
]
