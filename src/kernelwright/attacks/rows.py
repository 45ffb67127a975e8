"""The known cheats, one row each; `docs/trust.md` has the same table with what came of them."""

from types import MappingProxyType

ROWS = MappingProxyType({
    "T1": "work on a side stream, so that events miss it",
    "T2": "patch timers and synchronisation",
    "T3": "change the harness: main module, frames, code objects",
    "T4": "patch the comparison",
    "T5": "native tampering: patched functions, overwritten memory, tracing",
    "T6": "forge the result and leave",
    "T7": "a thread or process that finishes later",
    "T8": "a lazy tensor in place of a result",
    "T9": "notice the call count or the phase, behave when watched",
    "T10": "right when checked, idle when timed",
    "T11": "batch several calls into one, skip the rest",
    "T12": "cache lines that survive the flush",
    "T13": "a warm cache",
    "T14": "slow the baseline",
    "T15": "one shape at nearly no time",
    "T16": "replay a recorded graph with old pointers",
    "T17": "work moved to loading or to the first call",
    "T18": "answers kept between processes",
    "T19": "sleep, to end adaptive timing early",
    "R1": "cache by pointer",
    "R2": "cache by object identity",
    "R3": "cache by content",
    "R4": "cache by shape",
    "R5": "compute before the clock starts, copy when timed",
    "C1": "do nothing",
    "C2": "a part that fails unnoticed",
    "C3": "change the inputs before the reference reads them",
    "C4": "return an input",
    "C5": "zeros or a constant",
    "C6": "ignore what the output hardly depends on",
    "C7": "subsample, or a closed form of the expectation",
    "C8": "a wrong tail",
    "C9": "NaN as a wildcard",
    "C10": "skip a scale or a scalar at its usual value",
    "C11": "outputs for public seeds",
    "C12": "made for the shown shapes only",
    "C13": "detect structure and truncate",
    "C14": "hidden low precision",
    "C15": "drop the maximum, crude functions",
    "C16": "a race that passes sometimes",
    "C17": "read or write out of bounds",
    "C18": "fake sampling",
    "H1": "call the reference",
    "H2": "find the expected answer in memory",
    "H3": "wrap the library that it claims to beat",
    "H4": "a decoy that computes for nobody",
    "H5": "redefine names of the harness",
    "H6": "macros and tricks at compile time",
    "H7": "exit, crash or silence taken for success",
    "H8": "overwrite files of the harness",
})  # fmt: skip
"""What each row of the corpus is about."""

_GROUPS = "TRCH"


def row_order(row: str) -> tuple[int, int]:
    """Sorting key: timing, replay, correctness, access, each by number; others come first."""
    group = _GROUPS.find(row[:1])
    return (group, int(row[1:])) if group >= 0 and row[1:].isdecimal() else (-1, 0)
