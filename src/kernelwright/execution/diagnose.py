"""From the traces of a dead worker to a reason and a sentence."""

import contextlib
import errno
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.execution import page as layout
from kernelwright.execution.page import Page
from kernelwright.execution.process import Child
from kernelwright.execution.report import Failure, Limits
from kernelwright.model import Reason

_NEAR = 4 << 20
_NEAR_STACK = 64 << 10
_PROBLEMS = {
    layout.LOAD_FAILED: (Reason.LOAD_FAILED, "the kernel cannot be loaded: {}"),
    layout.MISSING_SYMBOL: (Reason.MISSING_SYMBOL, "the kernel lacks its entry: {}"),
    layout.NOT_PARALLEL: (
        Reason.NOT_PARALLEL,
        "{}; the OpenMP pragmas of this build have no effect or its team is limited",
    ),
    layout.TWO_RUNTIMES: (
        Reason.NOT_PARALLEL,
        "{}: link the OpenMP runtime of the compiler alone",
    ),
    layout.FLUSH_FAILED: (Reason.OUT_OF_MEMORY, "{}; the kernel does not give memory back"),
    layout.RAISED: (Reason.ERROR_CODE, "the kernel raised an exception\n{}"),
    layout.EXHAUSTED: (Reason.OUT_OF_MEMORY, "memory could not be had\n{}"),
    layout.DEVICE_FAULT: (Reason.CRASH, "on the GPU: {}"),
    layout.LAUNCH_FAILED: (Reason.ERROR_CODE, "{}"),
    layout.DEVICE_MEMORY: (Reason.OUT_OF_MEMORY, "on the GPU: {}"),
}
_HARDWARE = (signal.SIGSEGV, signal.SIGBUS)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is left of a worker that did not answer as it should."""

    page: Page
    child: Child
    arenas: Mapping[str, tuple[int, int]]
    """Name to address and size."""
    outcome: str
    """`done` (its signal handler woke us), `ended`, `timeout` or `crowd`."""
    where: str
    timeout_s: float
    oom_kills: int = 0
    """Processes that the system ended for want of memory while this one lived."""


def explain_problem(problem: int, text: str) -> Failure:
    """A failure that the host itself noticed, or that a candidate wrote there."""
    if problem not in _PROBLEMS:
        # nothing of the host's own fails once it was ready: this is the candidate's doing
        return Failure(Reason.EXITED, f"the worker gave up with an unknown problem ({problem})")
    reason, sentence = _PROBLEMS[problem]
    return Failure(reason, sentence.format(printable(text)))


def printable(text: str) -> str:
    """What a candidate wrote, without characters that steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def explain_end(evidence: Evidence, limits: Limits) -> Failure:
    """Why the worker died, hung or was stopped."""
    page, child = evidence.page, evidence.child
    if evidence.outcome == "crowd":
        text = f"more than {limits.threads} threads or processes {evidence.where}"
        return _with_output(Reason.STRAY_THREADS, text, child)
    if page.signal:
        return _explain_signal(evidence, limits)
    if evidence.outcome == "timeout":
        text = f"no answer within {evidence.timeout_s:g} s {evidence.where}"
        return _with_output(Reason.HANG, text, child)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.process.wait(timeout=2)
    code = child.process.returncode or 0
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if child.output_bytes() >= limits.output_bytes:
        return _endless(evidence, limits)
    if number == signal.SIGKILL:
        return _explain_kill(evidence)
    if number in tuple(signal.Signals):
        text = f"{signal.Signals(number).name} {evidence.where}"
        return _with_output(Reason.CRASH, text, child)
    text = f"the process ended by itself {evidence.where} with status {code}"
    return _with_output(Reason.EXITED, text, child)


def oom_kills() -> int:
    """How many processes the system has ended for want of memory so far; 0 where it does not say.

    Counts those of control groups too.
    """
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat") as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _explain_kill(evidence: Evidence) -> Failure:
    """A kill comes from the system, from a person, or from a program, and only the first says why.

    The worker's own limit never kills: beyond it memory is refused.
    """
    where, child = evidence.where, evidence.child
    if evidence.oom_kills:
        text = f"the system killed the process {where}, for want of memory"
        return _with_output(Reason.OUT_OF_MEMORY, text, child)
    text = f"the process was killed {where}, by itself or from outside; memory was not short"
    return _with_output(Reason.KILLED, text, child)


def _explain_signal(evidence: Evidence, limits: Limits) -> Failure:
    page, child = evidence.page, evidence.child
    number = int(page.signal)
    name = signal.Signals(number).name if number in tuple(signal.Signals) else f"signal {number}"
    if number == signal.SIGXFSZ:
        return _endless(evidence, limits)
    text = f"{name} {evidence.where}"
    if number in _HARDWARE:
        action = "writing" if page.writing else "reading"
        place = _place(int(page.address), int(page.stack_pointer), evidence.arenas)
        if not page.writing and "read-only" in place:  # all of it can be read but for the guards
            place = place.replace("(", "(beyond the end of a tensor, ").replace("read-only ", "")
        text += f" {action} address {page.address:#x}{place}"
    if page.library_offset != layout.OUTSIDE:
        text += f", at offset {page.library_offset:#x} of the library"
    memory = page.error_number == errno.ENOMEM or "bad_alloc" in child.tail()
    if memory:
        text += f"; memory could not be had (limit {limits.memory_bytes >> 20} MiB)"
    return _with_output(Reason.OUT_OF_MEMORY if memory else Reason.CRASH, text, child)


def _place(address: int, stack_pointer: int, arenas: Mapping[str, tuple[int, int]]) -> str:
    """Where an address lies with respect to the lent memory or the stack, when it is near."""
    if address < 1 << 16:
        return " (a null pointer)"
    if abs(address - stack_pointer) < _NEAR_STACK:
        return " (the stack is exhausted)"
    places: list[tuple[int, str]] = []
    for name, (base, nbytes) in arenas.items():
        past, before = address - base - nbytes, base - address
        if past < 0 and before <= 0:
            return f" (byte {address - base} of the read-only arena '{name}')"
        if past >= 0:
            places.append((past, f" ({past} bytes past the end of arena '{name}')"))
        else:
            places.append((before, f" ({before} bytes before arena '{name}')"))
    distance, text = min(places, default=(_NEAR, ""))
    return text if distance < _NEAR else ""


def _endless(evidence: Evidence, limits: Limits) -> Failure:
    text = f"more than {limits.output_bytes} bytes of output {evidence.where}"
    return Failure(Reason.ENDLESS_OUTPUT, text)


def _with_output(reason: Reason, text: str, child: Child) -> Failure:
    tail = printable(child.tail(1000))
    return Failure(reason, f"{text}\n{tail}" if tail else text)
