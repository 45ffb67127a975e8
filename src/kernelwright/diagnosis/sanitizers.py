"""Finalists under NVIDIA's compute-sanitizer: what single right answers do not show."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.diagnosis.alone import AloneCall, AloneOutcome, run_alone
from kernelwright.diagnosis.tools import find_tool
from kernelwright.model import Reason

MISSING = "compute-sanitizer is not installed"
TOOLS: Mapping[str, tuple[Reason, tuple[str, ...]]] = {
    "memcheck": (Reason.OUT_OF_BOUNDS, ("--padding", "512", "--report-api-errors", "no")),
    "racecheck": (Reason.DATA_RACE, ()),
    "initcheck": (Reason.UNINITIALISED, ()),
}
"""By tool: what a finding means, and options of its own. Allocations of one kernel lie beside each
other, so without padding what is read past one is inside of the next."""
_FOUND = 86
"""The exit code that we ask for where something is found."""
_TIMEOUT_S = 60.0
_PREFIX = re.compile(r"^=========\s?", re.MULTILINE)
_NOISE = re.compile(
    r"COMPUTE-SANITIZER|\s*Host Frame:.*|\s*Saved host backtrace.*|.*SUMMARY:.*|Warning:.*"
    r"|Program hit .*|Target application returned .*|.*Internal Sanitizer Error.*"
)
"""What is no finding: frames of the host, functions of the runtime that answered with an error, and
that the program failed, which the judge has found out where it is the kernel's fault."""
_LINES = 6


@dataclass(frozen=True, slots=True)
class Found:
    """What a tool found."""

    reason: Reason
    words: str


def sanitize(call: AloneCall) -> dict[str, str] | Found:
    """One call under each tool: `clean`, or why nothing is known, by tool; or the first finding.

    Args:
        call: at a small size; it runs 10 to 1000 times as long as usual.
    """
    program = find_tool("compute-sanitizer")
    if program is None:
        return dict.fromkeys(TOOLS, MISSING)
    results: dict[str, str] = {}
    for tool, (reason, more) in TOOLS.items():
        options = ["--tool", tool, "--error-exitcode", str(_FOUND), "--print-limit", "3", *more]
        outcome = run_alone(call, [program, *options], timeout_s=_TIMEOUT_S)
        words = findings(outcome.log)
        if outcome.code == _FOUND and words:
            return Found(reason, f"compute-sanitizer's {tool}: {words}")
        results[tool] = "clean" if is_clean(outcome) else _why_not(outcome)
    return results


def findings(log: str) -> str:
    """The first finding of a log, without the host's own frames; empty where there is none."""
    paragraphs = re.split(r"^=========\s*$", log, flags=re.MULTILINE)
    for paragraph in paragraphs:
        lines = [line.rstrip() for line in _PREFIX.sub("", paragraph).splitlines()]
        shown = [line.strip() for line in lines if line and not _NOISE.fullmatch(line)]
        if shown:
            return "; ".join(shown[:_LINES])
    return ""


def is_clean(outcome: AloneOutcome) -> bool:
    """Whether a tool says that it found nothing."""
    summary = re.search(r"(ERROR|RACECHECK) SUMMARY: 0 ", outcome.log)
    return outcome.code == 0 and summary is not None


def _why_not(outcome: AloneOutcome) -> str:
    if outcome.code is None:
        return f"not finished within {_TIMEOUT_S:.0f} s"
    said = _PREFIX.sub("", outcome.log + outcome.output).strip().splitlines()
    last = next((line.strip() for line in said if "rror" in line), "no reason given")
    return f"did not run here: {last[:200]}"
