"""Which submissions the tests judge."""

from kernelwright.attacks import corpus
from kernelwright.campaign.audit import cannot_run
from kernelwright.machine import probe

WORKLOADS = ("rms_norm", "matrix_mul")
"""Of most submissions: another workload means another judge, which takes seconds to open."""


def runnable():
    """Submissions for processors; `tests/gpu` has the others."""
    machine = probe()
    return [s for s in corpus() if s.language != "cuda" and cannot_run(s, machine) is None]


def chosen():
    """Submissions of every row, those first that end early; and the controls beside them."""
    every = runnable()
    order = sorted(
        (s for s in every if not s.control),
        key=lambda s: (s.problem not in WORKLOADS, s.language != "cpp", s.neutral, s.name),
    )
    found, covered = set(), set()
    for submission in order:
        if not covered.issuperset(submission.rows):
            found.add(submission)
            covered.update(submission.rows)
    beside = {s.workload for s in found}
    return [s for s in every if s in found or (s.control and s.workload in beside)]
