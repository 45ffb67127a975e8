"""Verdicts: a tagged union, so that a failed candidate has no time."""

from dataclasses import dataclass, field
from enum import StrEnum

from kernelwright.model.mapping import FrozenMap
from kernelwright.model.measurement import Claim, WorkloadResult


class Stage(StrEnum):
    """Where a candidate was turned away, in the order in which stages run."""

    DECLARE = "declare"
    """Its tunables or its entry cannot be read."""
    BUILD = "build"
    LOAD = "load"
    """The library does not load, lacks the symbol, or does not run on all threads."""
    CHECK = "check"
    """Wrong results, or it crashed, hung or exhausted something on a check workload."""
    SCREEN = "screen"
    """The same on a bench workload while it was being ranked."""
    ACCEPT = "accept"
    """The same under acceptance, on fresh values, or on held-out sizes."""


class Reason(StrEnum):
    """Why; the diagnostic has the details."""

    BAD_DECLARATION = "bad_declaration"
    CONSTRAINT = "constraint"
    """The tunable values break a `@require`, or the ABI limits of this machine."""
    COMPILE_ERROR = "compile_error"
    COMPILE_TIMEOUT = "compile_timeout"
    TOOLCHAIN_MISSING = "toolchain_missing"
    UNSAFE_LIBRARY = "unsafe_library"
    """What was built runs code when it is loaded, reaches for the system, or stands in for it."""
    LOAD_FAILED = "load_failed"
    MISSING_SYMBOL = "missing_symbol"
    NOT_PARALLEL = "not_parallel"
    """The build cannot run on the machine's threads (its OpenMP pragmas had no effect)."""
    CRASH = "crash"
    HANG = "hang"
    OUT_OF_MEMORY = "out_of_memory"
    """It took more than its limit, or the system ended it for want of memory."""
    KILLED = "killed"
    """Its process was killed twice, and no lack of memory is known: by a person, by another
    program, or by itself."""
    ENDLESS_OUTPUT = "endless_output"
    ERROR_CODE = "error_code"
    """The kernel itself returned an error code other than 0."""
    EXITED = "exited"
    """The process ended by itself, without answering."""
    WRONG_RESULT = "wrong_result"
    NOT_WRITTEN = "not_written"
    """Part of an output still holds the poison."""
    WROTE_INPUT = "wrote_input"
    RED_ZONE = "red_zone"
    """It wrote outside its buffers."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """On a GPU: a sanitizer saw it read or write outside of its memory."""
    DATA_RACE = "data_race"
    """On a GPU: a sanitizer saw threads of a block meet in shared memory without a barrier."""
    UNINITIALISED = "uninitialised"
    """On a GPU: a sanitizer saw it read memory that nobody had written."""
    STRAY_THREADS = "stray_threads"
    """Threads or processes other than the OpenMP team were still there after the call."""
    IMPOSSIBLE_TIME = "impossible_time"
    """Faster than physics allows."""
    CLOCK_DISAGREES = "clock_disagrees"
    """Its own clock and the judge's bracket tell different stories."""
    FLOATING_POINT_STATE = "floating_point_state"
    """It changed the rounding or denormal mode of the process."""
    LOST_AGAIN = "lost_again"
    """The win was not there in a fresh process on fresh data."""
    COLLAPSED = "collapsed"
    """Right, but far slower than the baseline on held-out sizes: in older archives only, as it is
    flagged (`WorkloadResult.collapsed`) rather than rejected now."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A candidate that was turned away."""

    stage: Stage
    reason: Reason
    diagnostic: str
    """Text that a person or a model can act on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A candidate that is right as far as it was checked, with its times."""

    workloads: tuple[WorkloadResult, ...]
    accepted: bool = False
    """False after screening (ranked only), True after acceptance."""
    claim: Claim | None = None
    """Of an acceptance with at least one baseline."""
    deterministic: bool | None = None
    """Whether calls on the same input, in several processes, gave equal bytes; None: not tried."""
    sanitized: FrozenMap[str, str] = field(default_factory=FrozenMap[str, str])
    """By tool (`memcheck`, `racecheck`, `initcheck`): `clean`, or why nothing is known; empty on
    processors, and in older archives."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be said wherever this is shown, one sentence each."""
        found = [
            f"Collapses at held-out sizes: {result.peers[0].speedup.median:.2g} times as fast as "
            f"'{result.peers[0].name}' on {result.workload.label()}."
            for result in self.workloads
            if result.collapsed and result.peers
        ]
        if any(result.telemetry and result.telemetry.throttled for result in self.workloads):
            found.append("The GPU was throttled while it was measured.")
        if self.deterministic is False:
            found.append("Calls on the same input differ in their bits.")
        return tuple(found)


Verdict = Measured | Rejected
