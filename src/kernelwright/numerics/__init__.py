"""Comparison, error budgets and paired statistics: pure numpy, no torch, no input or output."""

from kernelwright.numerics.compare import POISONS, Band, Comparison, band, compare
from kernelwright.numerics.formats import decode, encode, largest, storage
from kernelwright.numerics.sequential import (
    FEWEST,
    AcceptRule,
    ConfirmRule,
    Decision,
    ScreenRule,
    agreeing_needed,
    evidence,
    sequential_median,
    sequential_ratio,
    surely_above,
    surely_below,
)
from kernelwright.numerics.statistics import half_width, median_estimate, paired_ratio
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
    "FEWEST",
    "POISONS",
    "AcceptRule",
    "Band",
    "Budget",
    "Comparison",
    "ConfirmRule",
    "Decision",
    "ScreenRule",
    "agreeing_needed",
    "band",
    "budget",
    "compare",
    "decode",
    "distribution_usable",
    "encode",
    "evidence",
    "half_width",
    "largest",
    "median_estimate",
    "norm_tolerance",
    "paired_ratio",
    "sequential_median",
    "sequential_ratio",
    "storage",
    "surely_above",
    "surely_below",
    "tolerance",
]
