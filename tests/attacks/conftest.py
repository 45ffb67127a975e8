"""One judge at a time, shared by the submissions of a workload."""

from dataclasses import replace

import pytest
from attacks_support import chosen

from kernelwright.campaign.audit import (
    HONEST,
    Auditor,
    AuditRequest,
    settings_of,
    uninspecting_builder,
)
from kernelwright.campaign.audit_outcome import outcome_of
from kernelwright.campaign.request import Silent
from kernelwright.machine import probe
from kernelwright.model import Reason, Rejected


class Bench:
    """Judges submissions; opens a judge when the workload changes."""

    def __init__(self, submissions):
        settings = settings_of(AuditRequest(quick=True))
        settings = replace(settings, accept_seconds=1.5, heldout=1)
        machine = probe()
        self.auditor = Auditor(machine, settings, Silent())
        self.auditor.build(submissions)
        self._beneath = Auditor(machine, settings, Silent(), uninspecting_builder(machine))
        self._beneath.build([s for s in submissions if self.unsafe(s)])
        self._workload, self._judge = None, None

    def unsafe(self, submission):
        """Whether the inspection of built libraries turns it away."""
        built = self.auditor.built[submission.name]
        return isinstance(built, Rejected) and built.reason is Reason.UNSAFE_LIBRARY

    def outcome(self, submission):
        """What the judge makes of it; of what the inspection stops, as if there were none."""
        if self._judge is None or submission.workload != self._workload:
            self.close()
            self._judge = self.auditor.judge(submission).open()
            self._workload = submission.workload
        auditor = self._beneath if self.unsafe(submission) else self.auditor
        plain = submission.name.startswith(HONEST) and submission.language == "cpp"
        if submission.control and not plain:
            # their acceptance takes minutes: `kernelwright audit` does it
            built = auditor.built[submission.name]
            return outcome_of(submission, self._judge.screen(*built).verdict)
        outcome, broken = auditor.one(self._judge, submission)
        if broken:
            self.close()
        return outcome

    def close(self):
        if self._judge is not None:
            self._judge.close()
            self._judge = None


@pytest.fixture(scope="session")
def bench():
    opened = Bench(chosen())
    yield opened
    opened.close()
