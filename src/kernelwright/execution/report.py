"""What a call is, what it reports, and how it can fail: plain values."""

from dataclasses import dataclass

from kernelwright.errors import HarnessError
from kernelwright.model import Reason

MAX_INTEGERS = 32
"""Pointers and integers that one generic call passes."""
MAX_DOUBLES = 8
"""Doubles that one generic call passes: those that the C ABI keeps in registers."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """An address: `offset` bytes into the arena of that name."""

    arena: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream that kernels on a GPU are to use; null on a processor."""


@dataclass(frozen=True, slots=True)
class Poison:
    """What a device fills in the order of the stream, so that nothing written earlier is left."""

    where: Pointer
    nbytes: int
    byte: int
    last: bool = False
    """After the flush, right before the clock starts; else before the flush."""


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one kernel call in prototype order, the last four included.

    Python floats become `double`; integers and bools become 64-bit integers (null is 0); a
    `Pointer` becomes an address in the worker, a `Stream` its stream. The x86-64 and AArch64 C ABIs
    number integer and floating arguments apart, so their interleaving does not matter.

    Raises:
        HarnessError: more arguments than a generic call can pass.
    """

    arguments: tuple[Pointer | Stream | int | float, ...]

    def __post_init__(self) -> None:
        doubles = sum(isinstance(a, float) for a in self.arguments)
        integers = len(self.arguments) - doubles
        if doubles > MAX_DOUBLES or integers > MAX_INTEGERS:
            raise HarnessError(
                f"a call with {integers} pointers and integers and {doubles} doubles; "
                f"at most {MAX_INTEGERS} and {MAX_DOUBLES} can be passed"
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may use before it is stopped."""

    call_s: float = 10.0
    """Wall clock of a call."""
    start_s: float = 30.0
    """Wall clock from the start of the process until it can be called; also of one flush."""
    memory_bytes: int = 8 << 30
    """Address space beyond the arenas and what an idle worker maps itself."""
    output_bytes: int = 1 << 20
    """Standard output and error together."""
    threads: int = 256
    """Tasks that the worker may have during a call that lasts longer than 50 ms."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A candidate that did not get through a call; its worker is gone."""

    reason: Reason
    detail: str
    """One or more sentences for a person: signal, address, standard error's tail."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """One call that came back.

    `elapsed_us` is the timed process's own clock (CLOCK_MONOTONIC_RAW around the call alone);
    `bracket_us` is the judge's clock from "go" to "done" and so includes the handshake.
    """

    code: int
    """What the kernel returned; 0 is success. Always 0 for a role."""
    elapsed_us: float
    bracket_us: float
    minor_faults: int
    """Page faults of the process during the call that needed no disk."""
    major_faults: int
    team: int
    """Threads on which the artifact's own OpenMP runtime ran a parallel region."""
    stray_threads: int
    """Threads and processes left after the call, beyond those that were there before it."""
    mxcsr_changed: bool
    """The call left another rounding or denormal mode (it has been restored)."""
    threads: int = 1
    """Of the team, by the judge's own account."""
    outside_us: float = 0.0
    """Processor time that the worker used while the judge put the inputs in place, while it woke
    its team, and after the call until it was frozen."""
    late_us: float = 0.0
    """How long of the bracket the judge waited for a processor that strangers used."""
