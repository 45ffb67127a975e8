"""Finalists under NVIDIA's compute-sanitizer: what single right answers do not show."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.diagnosis.alone import AloneCall, AloneOutcome, run_alone
from kernelwright.diagnosis.tools import find_tool
from kernelwright.model import Reason

MISSING = "compute-sanitizer is not installed"


@dataclass(frozen=True, slots=True)
class Tool:
    """One of the sanitizer's tools."""

    reason: Reason
    """What a finding means."""
    finding: re.Pattern[str]
    """How its findings begin; whatever else it says is about itself or about the program, which
    the judge has seen run."""
    options: tuple[str, ...] = ()


TOOLS: Mapping[str, Tool] = {
    "memcheck": Tool(
        Reason.OUT_OF_BOUNDS,
        re.compile(r"(Invalid|Misaligned|Out-of-range) |Stack overflow|Malloc/Free error"),
        # allocations lie beside each other: what is read past one would be inside of the next
        ("--padding", "512", "--report-api-errors", "no"),
    ),
    "racecheck": Tool(Reason.DATA_RACE, re.compile(r"Error: (Race|Potential) ")),
    "initcheck": Tool(Reason.UNINITIALISED, re.compile(r"Uninitialized ")),
}
_FOUND = 86
"""The exit code that we ask for where something is found."""
_TIMEOUT_S = 60.0
_PREFIX = re.compile(r"^=========\s?", re.MULTILINE)
_NOISE = re.compile(r"COMPUTE-SANITIZER|\s*Host Frame:.*|\s*Saved host backtrace.*|.*SUMMARY:.*")
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
    for name, tool in TOOLS.items():
        options = ["--tool", name, "--error-exitcode", str(_FOUND), "--print-limit", "3"]
        outcome = run_alone(call, [program, *options, *tool.options], timeout_s=_TIMEOUT_S)
        words = finding(tool, outcome.log)
        if outcome.code == _FOUND and words:
            return Found(tool.reason, f"compute-sanitizer's {name}: {words}")
        results[name] = "clean" if is_clean(outcome) else _why_not(outcome)
    return results


def finding(tool: Tool, log: str) -> str:
    """The first finding of a tool's log, without frames of the host; empty where there is none."""
    paragraphs = re.split(r"^=========\s*$", log, flags=re.MULTILINE)
    for paragraph in paragraphs:
        lines = [line.rstrip() for line in _PREFIX.sub("", paragraph).splitlines()]
        shown = [line.strip() for line in lines if line and not _NOISE.fullmatch(line)]
        if shown and tool.finding.match(shown[0]):
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
