"""The judge of one problem, dtype and set of sizes on one machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from kernelwright.build import Artifact
from kernelwright.evaluation import acceptance, screening
from kernelwright.evaluation.baselines import report_of
from kernelwright.evaluation.heldout import examine
from kernelwright.evaluation.preparation import Preparation
from kernelwright.evaluation.rounds import Role, Samples, one_round
from kernelwright.evaluation.screening import ScreenReport
from kernelwright.evaluation.session import Session
from kernelwright.model import Candidate, Measured, Rejected, Verdict, WorkloadResult
from kernelwright.numerics import median_estimate


class Judge(Preparation):
    """Decides what is right and how fast it is.

    Open it before use (`with judge.open():`). Never runs candidate code nor the problem's file
    itself; does not import torch. `Preparation` says what it is made from.
    """

    _champion: Session | None = None
    _heldout_checked = 0

    def close(self) -> None:
        """End all processes and give the memory back; safe to call twice."""
        self._drop_champion()
        super().close()

    def verified(self) -> dict[str, Any]:
        """How an accepted result was verified, as plain data."""
        used = [self.checks.workloads[n] for n in self.checks.usable()]
        return {
            "workloads": len(used),
            "distributions": sorted({w.distribution for w in used}),
            "heldout": self._heldout_checked,
            "refused": sorted(set(self.checks.refused.values())),
        }

    def admit(self) -> list[str]:
        """Findings of the problem's admission gate; empty when it is sound."""
        return self.oracle.admit(str(self.dtype))

    def screen(
        self,
        candidate: Candidate,
        artifact: Artifact,
        champion: tuple[Candidate, Artifact] | None = None,
        seconds: float | None = None,
    ) -> ScreenReport:
        """Check a candidate on all check workloads and rank it against the champion."""
        session = self.session(candidate, artifact)
        if isinstance(session, Rejected):
            return ScreenReport(session)
        try:
            rival = None if champion is None else self._champion_session(*champion)
            budget = self.settings.screen_seconds if seconds is None else seconds
            report = screening.screen(self, session, rival, budget)
            if report.champion_fault is not None:
                self._drop_champion()
            if isinstance(report.verdict, Measured):
                self.top_up()
            return report
        finally:
            session.close()

    def accept(
        self,
        candidate: Candidate,
        artifact: Artifact,
        own: tuple[Candidate, Artifact] | None = None,
    ) -> Verdict:
        """Judge a candidate thoroughly, beside every baseline and the user's own kernel."""
        with self._pair(candidate, artifact, own) as (session, other):
            if isinstance(session, Rejected):
                return session
            return acceptance.accept(self, session, other)

    def duel(
        self,
        candidate: Candidate,
        artifact: Artifact,
        rival: tuple[Candidate, Artifact] | None = None,
    ) -> ScreenReport:
        """Two kernels in the same fully verified rounds, until their ratio is precise."""
        with self._pair(candidate, artifact, rival) as (session, other):
            if isinstance(session, Rejected):
                return ScreenReport(session)
            return acceptance.duel(self, session, other)

    def time_baselines(self, rounds: int = 12) -> dict[str, float]:
        """Median microseconds of every baseline that runs here; `baseline_reports` says more."""
        roles = self.baseline_roles()
        samples = Samples({role.name: [] for role in roles})
        runners: list[Role] = [*roles]
        for number in range(rounds + 2 if roles else 0):
            one_round(runners, self.pool, self.rng, samples)
            if number == 1:  # the first two rounds fill the allocator
                samples = Samples({role.name: [] for role in roles})
                for role in roles:
                    role.faults.clear()
        self.baseline_reports = tuple(
            report_of(role, median_estimate(samples.by_role[role.name])) for role in roles
        )
        return {report.name: report.time_us.median for report in self.baseline_reports}

    def heldout(
        self, session: Session, race: acceptance.Race
    ) -> tuple[WorkloadResult, ...] | Rejected:
        """Check secret sizes; see `heldout.examine`."""
        checked, result = examine(self, session, race)
        if not isinstance(result, Rejected):
            self._heldout_checked = checked
        return result

    def _champion_session(self, candidate: Candidate, artifact: Artifact) -> Session | None:
        """The champion's worker, kept between screenings; None when it does not start."""
        current = self._champion
        if current is None or current.artifact.key != artifact.key or not current.worker.alive:
            self._drop_champion()
            fresh = self.session(candidate, artifact)
            if isinstance(fresh, Rejected):
                return None
            self._champion = fresh
        return self._champion

    def _drop_champion(self) -> None:
        if self._champion is not None:
            self._champion.close()
            self._champion = None

    @contextmanager
    def _pair(
        self, candidate: Candidate, artifact: Artifact, other: tuple[Candidate, Artifact] | None
    ) -> Generator[tuple[Session | Rejected, Session | None]]:
        """Sessions of a candidate and, where it starts, of another kernel; the champion is gone."""
        self._drop_champion()
        first = self.session(candidate, artifact)
        second = None if other is None else self.session(*other)
        if isinstance(second, Rejected):
            self.lose(acceptance.OWN, second.diagnostic)
            second = None
        try:
            yield first, second
        finally:
            for session in (first, second):
                if isinstance(session, Session):
                    session.close()
