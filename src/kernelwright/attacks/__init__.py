"""The attack corpus: submissions that try to win by cheating, and controls that must pass.

Each file under `corpus` is one submission under the kernel ABI; the comment at its top declares it.
Nothing here is ever imported or run by this package: the judge builds and calls submissions as it
does any other candidate.
"""

from kernelwright.attacks.header import read_submission
from kernelwright.attacks.rows import ROWS, row_order
from kernelwright.attacks.submission import CONTROL, Ending, Submission, corpus

__all__ = ["CONTROL", "ROWS", "Ending", "Submission", "corpus", "read_submission", "row_order"]
