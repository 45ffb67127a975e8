"""Proposers that need no model: generated code and hand-written recipes."""

from collections.abc import Sequence

from kernelwright import codegen, recipes
from kernelwright.model import Candidate, Family, Verdict
from kernelwright.propose.proposer import ProblemView


class GenerateProposer:
    """Kernels generated from the expression form by skeleton."""

    name = "generate"
    cost = "milliseconds"

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Sequence[tuple[Candidate, Verdict]],
        count: int,
    ) -> tuple[Family, ...]:
        """Families of every skeleton that matches the program."""
        if view.program is None:
            return ()
        found = codegen.families(
            view.program, view.dtype, view.machine, view.sizes, view.entry, view.target,
            view.language,
        )  # fmt: skip
        return found[:count]


class RecipeProposer:
    """Hand-written kernels whose recognisers match the program."""

    name = "recipes"
    cost = "milliseconds"

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Sequence[tuple[Candidate, Verdict]],
        count: int,
    ) -> tuple[Family, ...]:
        """Families of every recipe that matches the program; none is in Triton."""
        if view.program is None or view.language == "triton":
            return ()
        found = recipes.families(
            view.program, view.dtype, view.machine, view.sizes, view.entry, view.target
        )
        return found[:count]
