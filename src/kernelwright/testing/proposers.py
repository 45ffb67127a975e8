"""What every proposer must do: subclass `ProposerConformance`; and one that follows a script."""

from abc import abstractmethod
from collections.abc import Sequence

import pytest

from kernelwright.model import Candidate, Family, Verdict
from kernelwright.propose import ProblemView, Proposer
from kernelwright.space import Space


class ScriptedProposer:
    """Proposes what it was given, one list after the other, and remembers what it was shown."""

    name = "scripted"
    cost = "nothing"

    def __init__(self, *answers: Sequence[Family]) -> None:
        self._answers = list(answers)
        self.shown: list[tuple[ProblemView, tuple[tuple[Candidate, Verdict], ...]]] = []

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Sequence[tuple[Candidate, Verdict]],
        count: int,
    ) -> tuple[Family, ...]:
        """The next list; nothing when the script is over."""
        self.shown.append((view, tuple(evidence)))
        return tuple(self._answers.pop(0))[:count] if self._answers else ()


class ProposerConformance:
    """Tests of a proposer."""

    @abstractmethod
    def make(self) -> Proposer:
        """A new proposer."""

    @abstractmethod
    def views(self) -> Sequence[ProblemView]:
        """Problems that it has families for."""

    def families(self) -> list[tuple[ProblemView, Family]]:
        """Everything that it proposes for its problems."""
        return [(v, f) for v in self.views() for f in self.make().propose(v, (), (), 100)]

    def test_says_what_it_is(self) -> None:
        """For lists and for people."""
        proposer = self.make()
        assert proposer.name == proposer.name.strip() != ""
        assert proposer.cost

    def test_proposes_for_its_problems(self) -> None:
        """At least one family each, no two alike."""
        for view in self.views():
            found = self.make().propose(view, (), (), 100)
            assert found
            assert len({family.identity for family in found}) == len(found)

    @pytest.mark.parametrize("count", [0, 1])
    def test_respects_the_count(self, count: int) -> None:
        """Best guess first, so that fewer are the first of more."""
        for view in self.views():
            few = self.make().propose(view, (), (), count)
            assert few == self.make().propose(view, (), (), 100)[:count]

    def test_is_deterministic(self) -> None:
        """The same view gives the same families, in order."""
        assert self.families() == self.families()

    def test_families_are_complete(self) -> None:
        """Named, of a known language, exporting their entry, with a lineage."""
        for _, family in self.families():
            assert family.name
            assert family.language in ("cpp", "cuda", "triton")
            assert family.entry in family.source
            assert family.lineage.proposer

    def test_declarations_can_be_searched(self) -> None:
        """Constraints name tunables and dimensions only; there is a valid point."""
        for view, family in self.families():
            names = {*view.sizes, *view.signature.dimensions}
            assert Space.of(family.source, view.sizes, dimensions=names).size >= 1

    def test_defaults_are_valid_points(self) -> None:
        """Each names every tunable, at the sizes of the view, with compilers of its machine."""
        for view, family in self.families():
            compilers = [toolchain.name for toolchain in view.machine.toolchains] or None
            space = Space.of(family.source, view.sizes, toolchains=compilers)
            for values in family.defaults:
                assert space.problem_with(values) is None
