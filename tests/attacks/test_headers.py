"""What the corpus covers, how headers are read, and what outcomes mean."""

from dataclasses import replace

import pytest

from kernelwright.attacks import CONTROL, ROWS, corpus, read_submission, row_order
from kernelwright.campaign.audit import AuditRequest, honest_control, select
from kernelwright.campaign.audit_outcome import outcome_of, summary
from kernelwright.errors import CandidateError, UserError
from kernelwright.execution.page import Arguments, Page
from kernelwright.model import Estimate, Measured, Reason, Rejected, Stage
from kernelwright.suite import names
from kernelwright.testing import samples

HEADER = """// rows: R3 T10
// workload: rms_norm f32 T=8,H=16
// does: One sentence,
//   which goes on.
// expect: accept wrong_result | screen not_written | no gain
#include "kernelwright.h"
"""


def written(folder, text, name="it.cpp"):
    path = folder / name
    path.write_text(text)
    return path


def test_a_header_is_read(tmp_path):
    found = read_submission(written(tmp_path, HEADER))
    assert (found.name, found.language, found.rows) == ("it", "cpp", ("R3", "T10"))
    assert (found.problem, found.dtype, dict(found.sizes)) == ("rms_norm", "f32", {"T": 8, "H": 16})
    assert found.does == "One sentence, which goes on."
    assert [str(e) for e in found.expected] == ["accept wrong_result", "screen not_written"]
    assert found.neutral
    assert not found.control
    assert found.isolation is None
    assert found.gap == ""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("// rows: R3 T10\n", "", "no 'rows:'"),
        ("R3 T10", "R3 Z9", "no row 'Z9'"),
        ("f32 T=8,H=16", "f7 T=8", "not 'PROBLEM DTYPE"),
        ("screen not_written", "screen badly", "'screen badly', which is no stage"),
        ("accept wrong_result | screen not_written | no gain", "pass", "expects 'pass'"),
        ("R3 T10", "control", "expects 'pass'"),
        ("// expect:", "// isolation: cage\n// expect:", "no isolation 'cage'"),
    ],
)
def test_a_wrong_header_is_one_sentence(old, new, words, tmp_path):
    with pytest.raises(CandidateError, match=words):
        read_submission(written(tmp_path, HEADER.replace(old, new)))


def test_the_corpus_is_whole():
    names_of = [s.name for s in corpus()]
    assert len(set(names_of)) == len(names_of)
    assert {s.problem for s in corpus()} <= set(names())
    assert sorted(names_of[:3]) == names_of[:3]  # controls first
    assert corpus()[0].control


def test_every_row_has_a_submission_or_a_reason():
    covered = {row for s in corpus() for row in s.rows}
    assert set(ROWS) - covered == {"C18"}  # no shipped problem draws samples


def test_cheats_know_where_the_shared_page_keeps_its_fields():
    # a cheat that misses the page is no test: let both change together
    page = [Page.command, Page.flush_bytes, Page.arguments, Page.arena_address]
    page += [Page.result, Page.elapsed_ns]
    assert [field.offset for field in page] == [8, 16, 24, 344, 2408, 2416]
    assert (Arguments.integers.offset, Arguments.doubles.offset) == (0, 256)


def test_cheats_that_may_be_measured_have_a_control_to_be_compared_with():
    for submission in corpus():
        if submission.neutral:
            assert honest_control(submission) is not None, submission.name


def test_rows_have_an_order():
    assert sorted(["H1", "C10", "C9", "T2", CONTROL], key=row_order) == [
        CONTROL, "T2", "C9", "C10", "H1",
    ]  # fmt: skip
    assert list(ROWS) == sorted(ROWS, key=row_order)


def test_selection_by_row_and_language():
    assert all("R3" in s.rows for s in select(AuditRequest(rows=("R3",))))
    assert all(s.control for s in select(AuditRequest(rows=(CONTROL,))))
    with pytest.raises(UserError, match="no row 'R99'"):
        select(AuditRequest(rows=("R99",)))
    with pytest.raises(UserError, match="no language 'basic'"):
        select(AuditRequest(languages=("basic",)))


def test_what_a_verdict_means(tmp_path):
    cheat = read_submission(written(tmp_path, HEADER))
    wrong = Rejected(Stage.ACCEPT, Reason.WRONG_RESULT, "text")
    assert outcome_of(cheat, wrong).status == "caught"
    assert outcome_of(cheat, wrong).expected
    elsewhere = outcome_of(cheat, Rejected(Stage.CHECK, Reason.CRASH, "text"))
    assert (elsewhere.status, elsewhere.expected) == ("caught", False)
    measured = Measured((), accepted=True)
    assert outcome_of(cheat, measured, Estimate(1.01, 0.99, 1.02)).status == "caught"  # no gain
    assert outcome_of(cheat, measured, Estimate(0.5, 0.4, 0.6)).status == "not caught"
    assert outcome_of(cheat, measured, Estimate(0.5, 0.4, 1.6)).status == "caught"  # noise
    assert outcome_of(cheat, measured).status == "not caught"
    flagged = Measured((replace(samples.measured().workloads[0], collapsed=True),), accepted=True)
    assert (outcome_of(cheat, flagged).status, outcome_of(cheat, flagged).expected) == (
        "caught", False,
    )  # fmt: skip
    control = next(s for s in corpus() if s.control)
    assert outcome_of(control, flagged).status == "passed"
    assert outcome_of(control, wrong).status == "refused"
    assert outcome_of(control, measured).status == "passed"


def test_the_summary_counts_every_repetition():
    row = {"rows": ["R3"], "status": "caught", "as_expected": True, "runs": [["caught"]] * 2}
    control = {"rows": [CONTROL], "status": "refused", "as_expected": False,
               "runs": [["passed"], ["refused"], ["passed"]]}  # fmt: skip
    missing = {"rows": ["T1"], "status": "cannot run", "as_expected": True,
               "runs": [["cannot run"]]}  # fmt: skip
    found = summary([row, control, missing])
    assert (found["attacks"], found["ran"], found["caught"]) == (2, 1, 1)
    assert (found["controls_refused"], found["judgements"], found["refusals"]) == (1, 3, 1)
