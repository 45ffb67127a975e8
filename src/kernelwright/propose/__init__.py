"""Proposers: parents and evidence in, candidate families out.

A proposer is blind to files, clocks and devices. It sees a `ProblemView` (never a problem's name)
and returns families whose tunables the search then explores. Third parties register theirs under
the entry-point group `kernelwright.proposers`.
"""

from kernelwright.propose.foreign import ForeignCall
from kernelwright.propose.library import GenerateProposer, RecipeProposer
from kernelwright.propose.own import (
    KERNEL_SUFFIXES,
    OwnKernelProposer,
    own_kernel_family,
    settled,
)
from kernelwright.propose.proposer import ProblemView, Proposer
from kernelwright.propose.registry import proposer_named, proposer_names

__all__ = [
    "KERNEL_SUFFIXES",
    "ForeignCall",
    "GenerateProposer",
    "OwnKernelProposer",
    "ProblemView",
    "Proposer",
    "RecipeProposer",
    "own_kernel_family",
    "proposer_named",
    "proposer_names",
    "settled",
]
