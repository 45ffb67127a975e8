"""The campaign: search meets evaluation, under a budget, resumable at every step."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kernelwright import codegen
from kernelwright.agents import LOOPS, Brief, Desk
from kernelwright.build import Artifact, Builder
from kernelwright.campaign.ahead import Batch, Builds
from kernelwright.campaign.diagnosing import Look
from kernelwright.campaign.exchanges import add_brief, adopted
from kernelwright.campaign.models import ModelRounds, open_rounds, shelf_of
from kernelwright.campaign.request import CampaignRequest, CampaignStatus, Progress
from kernelwright.campaign.result import rejected_by_stage
from kernelwright.campaign.standing import (
    Leader,
    Standing,
    bind,
    described,
    space_of,
)
from kernelwright.errors import CandidateError
from kernelwright.evaluation import Judge
from kernelwright.llm import Ledger, Model
from kernelwright.model import (
    Candidate,
    Family,
    FrozenMap,
    Machine,
    Measured,
    Reason,
    Rejected,
    Stage,
    Target,
    TunableValue,
    Verdict,
    language_target,
)
from kernelwright.propose import (
    OwnKernelProposer,
    ProblemView,
    Proposer,
    proposer_named,
    settled,
)
from kernelwright.search import FamilyView, Request, strategy_named
from kernelwright.search.strategy import Strategy
from kernelwright.store import Archive

BATCH = 4
"""Candidates asked for, and built, at once; on a GPU's host several batches, see `ahead`."""
PATIENCE = 30
"""Evaluations without a gain after which a search has converged."""
FINALISTS = 3
"""Candidates that acceptance is tried on until one is accepted."""


@dataclass(slots=True)
class Campaign:
    """One search. Everything it learns is in the archive before the next step."""

    request: CampaignRequest
    machine: Machine
    builder: Builder
    judge: Judge
    archive: Archive
    progress: Progress
    standing: Standing = field(init=False)
    strategy: Strategy = field(init=False)
    models: tuple[Model, ...] = ()
    rounds: ModelRounds | None = None
    """Of the loops that ask models; None before they begin, and where there are none."""
    baseline_us: dict[str, float] = field(default_factory=dict[str, float])
    _binaries: dict[str, tuple[Verdict, float | None]] = field(
        default_factory=dict[str, tuple[Verdict, float | None]]
    )
    _deadline: float = 0.0
    _adopted_at: int = 0
    """Evaluations when families were last taken in."""
    _pause_at: int = 0
    """Evaluations at which the search waits for the round that is under way."""

    def prepare(self) -> None:
        """Collect the families, and replay what the archive holds."""
        self.take_up((*self._proposed(), *adopted(self.archive)))

    def take_up(self, proposed: Iterable[Family]) -> None:
        """Begin with these families, and replay what the archive holds of them."""
        self.strategy = strategy_named(self.request.strategy, self.request.seed)
        families = {family.identity: family for family in proposed}
        for family in families.values():
            self.archive.add_family(family)
        views = tuple(self._family_view(family) for family in families.values())
        self.standing = Standing(families, views)
        self._replay()

    def search(self) -> None:
        """Ask, build, judge and tell until the budget ends or nothing is left to try."""
        self._deadline = time.monotonic() + 60 * self.request.budget.minutes
        self._begin_models()
        waiting: deque[Batch] = deque()
        with Builds(self.builder, self.request.target, BATCH) as builds:
            while self._remaining() > 0 and time.monotonic() <= self._deadline:
                self._take_in_proposals()
                if self._has_converged():
                    waiting.clear()
                else:
                    self._ask(builds, waiting)
                if not waiting:
                    if self._wait_for_proposals():
                        continue
                    break
                batch = waiting.popleft()
                for request, candidate in batch.candidates.items():
                    self._judge(request, candidate, batch.built(candidate))
                    if time.monotonic() > self._deadline:
                        break
        if self.rounds is not None:
            self.rounds.close()

    def _ask(self, builds: Builds, waiting: deque[Batch]) -> None:
        """See that as many batches are being built as may be, beside the one that is next."""
        most = self.request.budget.evaluations
        if self.rounds is not None and (self.rounds.is_waiting or not self.standing.tried):
            most = min(most, self._pause_at)
        while len(waiting) <= builds.ahead:
            left = most - len(self.standing.tried) - sum(len(b.candidates) for b in waiting)
            requests = self.strategy.ask(self.standing.view(left), BATCH) if left > 0 else ()
            if not requests:
                return
            waiting.append(builds.start({r: self.standing.candidate(r) for r in requests}))

    def _begin_models(self) -> None:
        if not self.models:
            return
        view = self._problem_view()
        shelf = shelf_of(tuple(self.standing.families.values()), self.request.target)
        bound = self.judge.roof.bound(self.judge.cost)
        add_brief(self.archive, Brief.of(self.judge.public, view, self.baseline_us, shelf, bound))
        limits, deadline = self.request.limits, self._deadline
        self.rounds = open_rounds(
            self.archive, view, self.request.proposers,
            lambda journal: Desk(self.models, Ledger(limits), journal, deadline),
            self.request.seed, Look(self.judge, self.builder),
        )  # fmt: skip

    def _take_in_proposals(self) -> None:
        """Adopt what models have proposed; ask again once all of it has been judged.

        While they think, at most half of the evaluations that are left are spent.
        """
        rounds = self.rounds
        if rounds is None:
            return
        self._adopt(rounds.collect())
        if self.standing.families and not self.standing.tried:  # models learn of those first
            self._pause_at = max(1, self._remaining() // 2)
            return
        judged = {tried.request.family for tried in self.standing.tried}
        if not rounds.is_waiting and judged.issuperset(rounds.asked):
            rounds.start()
            self._pause_at = len(self.standing.tried) + max(BATCH, self._remaining() // 2)

    def _wait_for_proposals(self) -> bool:
        """Wait for what models propose; False when nothing more will come."""
        if self.rounds is not None:
            if not self.rounds.finished:
                self.progress.stage("waiting for the models")
            while families := self.rounds.wait(self._deadline):
                if self._adopt(families):
                    return True
            for loop in self.rounds.loops:
                if loop.finished:
                    self.progress.note(f"{loop.name} has ended: {loop.finished}")
        if self._has_converged():
            self.progress.note(f"no gain in the last {PATIENCE} variants: stopping early")
        else:
            self.progress.note("every variant has been tried")
        return False

    def _adopt(self, families: Iterable[Family]) -> int:
        """Take in families while the search is under way; how many."""
        count = 0
        for family in families:
            try:
                view = self._family_view(family)
            except CandidateError as error:
                self.progress.note(f"{family.name} is left out: {error}")
                continue
            if family.identity not in self.standing.families:
                self.standing.families[family.identity] = family
                self.standing.views += (view,)
            self._adopted_at = len(self.standing.tried)
            self.progress.note(f"proposed: {family.name}")
            count += 1
        return count

    def judge_family(self, family: Family) -> Candidate:
        """Build and judge one more family at its defaults, unless that has been done.

        Raises:
            CandidateError: its declarations cannot be read, or leave nothing valid.
        """
        view = self._family_view(family)
        if self._adopt([family]):
            self.archive.add_family(family)
        request = Request(family.identity, view.space.default())
        candidate = self.standing.candidate(request)
        if not any(tried.request == request for tried in self.standing.tried):
            self._judge(request, candidate, self.builder.build(candidate))
        return candidate

    def accept(self) -> tuple[Leader, Measured] | None:
        """The best candidate that acceptance confirms; None when none of the finalists is.

        The families of those that failed come last: what one variant has wrong, its likes share.
        """
        failed: list[str] = []
        while (leader := self.standing.finalist(failed)) and len(failed) < FINALISTS:
            place, candidate = len(failed) + 1, leader.candidate
            self.progress.stage(f"accepting finalist {place}: {candidate.family}")
            artifact = self._artifact(candidate, leader.artifact)
            verdict: Verdict = (
                artifact
                if isinstance(artifact, Rejected)
                else self.judge.accept(candidate, artifact, self._own(candidate))
            )
            self.archive.add_verdict(candidate, verdict)
            if isinstance(verdict, Measured):
                return leader, verdict
            self.standing.withdraw(leader.request, verdict)
            self.progress.note(f"finalist {place} was rejected: {verdict.reason}")
            failed.append(candidate.family)
        return None

    def _own(self, finalist: Candidate) -> tuple[Candidate, Artifact] | None:
        """The user's kernel as it was handed over, as one more baseline."""
        signature, dtype, sizes = self.judge.public.signature, self.judge.dtype, self.judge.sizes
        for own in self.request.own:
            family = settled(own, signature, dtype, sizes)
            space = next(v.space for v in self.standing.views if v.identity == family.identity)
            candidate = bind(family, space.default())
            artifact = self.builder.build(candidate)
            if candidate != finalist and isinstance(artifact, Artifact):
                return candidate, artifact
        return None

    def status(self) -> CampaignStatus:
        """Where the search stands."""
        leader = self.standing.leader
        best_us = leader.time_us if leader else None
        fastest = min(self.baseline_us, key=self.baseline_us.__getitem__, default=None)
        speedup = None
        if best_us and fastest is not None:
            speedup = self.baseline_us[fastest] / best_us
        fraction = None
        if leader is not None and leader.verdict.workloads:
            fraction = leader.verdict.workloads[0].fraction_of_bound
        return CampaignStatus(
            evaluations=len(self.standing.tried),
            budget=self.request.budget,
            best_us=best_us,
            best_speedup=speedup,
            best_baseline=fastest,
            fraction_of_bound=fraction,
            rejected=FrozenMap(rejected_by_stage(self.standing.verdicts)),
            seconds_left=max(0.0, self._deadline - time.monotonic()),
        )

    def _remaining(self) -> int:
        return self.request.budget.evaluations - len(self.standing.tried)

    def _has_converged(self) -> bool:
        since = min(self.standing.since_gain(), len(self.standing.tried) - self._adopted_at)
        return bool(self.standing.measured) and since >= PATIENCE

    def _problem_view(self) -> ProblemView:
        return ProblemView(
            signature=self.judge.public.signature,
            program=self.judge.program,
            dtype=self.judge.dtype,
            sizes=self.judge.sizes,
            machine=self.machine,
            target=self.request.target,
            language=self.request.language,
        )

    def _proposed(self) -> Iterable[Family]:
        view = self._problem_view()
        proposers: list[Proposer] = [OwnKernelProposer(family) for family in self.request.own]
        proposers += [proposer_named(n) for n in self.request.proposers if n not in LOOPS]
        for proposer in proposers:
            for family in proposer.propose(view, (), (), 8):
                if runs_on(family, self.request.target):
                    yield settled(family, view.signature, view.dtype, view.sizes)

    def _family_view(self, family: Family) -> FamilyView:
        signature = self.judge.public.signature
        space = space_of(family, signature, self.judge.sizes, self.machine)
        program = self.judge.program
        if program is None or family.language != "cpp" or not codegen.predicts(family):
            return FamilyView.of(family, space)
        dtype, sizes, machine = self.judge.dtype, self.judge.sizes, self.machine

        def predict(values: Mapping[str, TunableValue]) -> float:
            return codegen.predicted_us(family, values, program, sizes, dtype, machine)

        return FamilyView.of(family, space, predict)

    def _replay(self) -> None:
        """Take in what an earlier, interrupted run of this campaign has judged."""
        candidates = self.archive.candidates()
        told = 0
        for stored in self.archive.verdicts():
            verdict, candidate = stored.verdict, candidates[stored.candidate]
            if isinstance(verdict, Measured) and stored.value is None:
                continue  # an acceptance
            family = Family(
                candidate.family, candidate.language, candidate.entry, candidate.source,
                candidate.lineage,
            )  # fmt: skip
            if family.identity not in self.standing.families:
                continue
            request = Request(family.identity, candidate.tunables)
            if isinstance(verdict, Rejected) and self.standing.is_measured(request):
                self.standing.withdraw(request, verdict)  # it failed after it was measured
                continue
            if any(tried.request == request for tried in self.standing.tried):
                continue
            self.standing.record(request, candidate, verdict, stored.value)
            self.strategy.tell(request, verdict, stored.value)
            told += 1
        if told:
            self.progress.note(f"resumed: {told} verdicts were already there")

    def _judge(self, request: Request, candidate: Candidate, built: Artifact | Rejected) -> None:
        value: float | None = None
        if isinstance(built, Artifact):
            built = self._artifact(candidate, built)
        if isinstance(built, Rejected):
            verdict: Verdict = built
        elif built.binary_hash in self._binaries:
            verdict, value = self._binaries[built.binary_hash]
        else:
            verdict, value = self._screen(candidate, built)
            self._binaries[built.binary_hash] = (verdict, value)
        artifact = None if isinstance(built, Rejected) else built
        self.archive.add_verdict(candidate, verdict, value)
        leads = self.standing.record(request, candidate, verdict, value, artifact)
        self.strategy.tell(request, verdict, value)
        if leads:
            self.progress.note(f"new best: {described(self.standing.leader)}")
        self.progress.update(self.status())

    def _artifact(self, candidate: Candidate, built: Artifact | None) -> Artifact | Rejected:
        """What was built, or built again: after a resume, or when the cache has been emptied."""
        if built is not None and built.path.is_file():
            return built
        return self.builder.build(candidate)

    def _screen(self, candidate: Candidate, built: Artifact) -> tuple[Verdict, float | None]:
        """Screen against the leader; the value chains the duel's ratio to the leader's value."""
        leader = self.standing.leader
        champion = None
        if leader is not None:
            artifact = self._artifact(leader.candidate, leader.artifact)
            if isinstance(artifact, Artifact):
                champion = (leader.candidate, artifact)
        report = self.judge.screen(candidate, built, champion)
        if leader is not None and (champion is None or report.champion_fault is not None):
            fault = report.champion_fault or "it could not be built again"
            self._dethrone(leader, fault)
            if isinstance(report.verdict, Measured):
                return self._screen(candidate, built)  # against the next leader
        if isinstance(report.verdict, Rejected):
            return report.verdict, None
        if leader is None or report.ratio is None:
            return report.verdict, 1.0
        ratio = report.ratio
        # only a proven win lowers the value: luck would add up along the chain
        gain = ratio.median if ratio.high < 1 else max(1.0, ratio.median)
        return report.verdict, leader.value * gain

    def _dethrone(self, leader: Leader, fault: str) -> None:
        """A leader that failed later is a rejection, for the search and for good."""
        verdict = Rejected(Stage.SCREEN, Reason.WRONG_RESULT, f"as champion of a duel: {fault}")
        self.archive.add_verdict(leader.candidate, verdict)
        self.standing.withdraw(leader.request, verdict)
        if leader.artifact is not None:  # the same binary under another assignment fails too
            self._binaries[leader.artifact.binary_hash] = (verdict, None)
        self.progress.note(f"the leader failed: {fault[:100]}")


def runs_on(family: Family, target: Target) -> bool:
    """Whether kernels of a family run on a target; who builds another language says where."""
    return language_target(family.language) == target
