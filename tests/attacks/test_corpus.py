"""A cheat of each row meets the real judge and ends as its header says.

The whole corpus takes minutes: `kernelwright audit` is for that.
"""

import pytest
from attacks_support import chosen, runnable

from kernelwright.attacks import ROWS, corpus
from kernelwright.model import Reason, Stage
from kernelwright.sandbox import isolation

ORDERED = sorted(chosen(), key=lambda s: (s.problem, s.dtype, str(s.sizes), not s.control, s.name))


def test_every_row_that_can_run_here_is_among_them():
    rows = {row for s in runnable() if not s.control for row in s.rows}
    assert {row for s in ORDERED if not s.control for row in s.rows} == rows
    assert len(rows) > len(ROWS) - 8


def test_no_cheat_is_known_to_win():
    assert [s.name for s in corpus() if s.gap] == []


@pytest.mark.parametrize("submission", ORDERED, ids=lambda s: s.name)
def test_it_ends_as_declared(submission, bench):
    if submission.isolation == "sandbox" and isolation() != "sandbox":
        pytest.skip("is caught in a sandbox only")
    told = {(ending.stage, ending.reason) for ending in submission.expected}
    if bench.unsafe(submission):
        assert (Stage.BUILD, Reason.UNSAFE_LIBRARY) in told
    outcome = bench.outcome(submission)  # of what lies beneath the inspection
    if (Stage.ACCEPT, Reason.COLLAPSED) in told:
        # one secret size in a short test: a tiny one, or a busy machine, hides the collapse
        for _ in range(3):
            outcome = outcome if outcome.status == "caught" else bench.outcome(submission)
    text = f"{outcome.status}: {outcome.stage} {outcome.reason}: {outcome.diagnostic}"
    assert outcome.status == ("passed" if submission.control else "caught"), text
    assert outcome.expected, text
