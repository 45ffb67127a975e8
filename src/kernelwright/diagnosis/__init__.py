"""What limits a kernel: facts from compilers, disassemblers and counters, and rules on them.

Also the state of a GPU while it is measured, and kernels under sanitizers.
"""

from kernelwright.diagnosis.alone import AloneCall, Given, Space, run_alone
from kernelwright.diagnosis.facts import gpu_facts, processor_facts
from kernelwright.diagnosis.rules import diagnose
from kernelwright.diagnosis.sanitizers import Found, sanitize
from kernelwright.diagnosis.situation import Situation
from kernelwright.diagnosis.telemetry import Reader, missing, reader
from kernelwright.diagnosis.words import words_of

__all__ = [
    "AloneCall",
    "Found",
    "Given",
    "Reader",
    "Situation",
    "Space",
    "diagnose",
    "gpu_facts",
    "missing",
    "processor_facts",
    "reader",
    "run_alone",
    "sanitize",
    "words_of",
]
