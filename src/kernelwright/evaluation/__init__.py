"""The judge and the oracle: what is right, how fast it is, and what that is worth.

Importing this package does not import torch; the oracle's process is
`python -m kernelwright.evaluation.oracle`.
"""

from kernelwright.evaluation.alone import alone_call
from kernelwright.evaluation.baselines import BaselineReport
from kernelwright.evaluation.judge import Judge
from kernelwright.evaluation.screening import ScreenReport
from kernelwright.evaluation.settings import JudgeSettings

__all__ = ["BaselineReport", "Judge", "JudgeSettings", "ScreenReport", "alone_call"]
