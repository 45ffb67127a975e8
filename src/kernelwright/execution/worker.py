"""The process that runs one candidate, seen from the judge."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from kernelwright.execution.arena import Arena
from kernelwright.execution.report import Call, CallReport, Failure, Limits

DEFAULT_LIMITS = Limits()


class Worker:
    """One process, one candidate. After any `Failure` it is gone and `alive` is False.

    Made by `Worker.start`; usable as a context manager, which closes it.
    """

    handshake_overhead_us: float
    """Median of bracket minus elapsed over calls of a null kernel in this very process."""
    isolation: str
    """`sandbox` (bubblewrap) or `process`."""
    team: int
    """Threads on which the artifact's OpenMP runtime ran its probe."""
    pid: int

    @classmethod
    def start(
        cls,
        artifact: Path,
        entry: str,
        runtime: Path,
        arenas: Sequence[Arena],
        threads: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> "Worker | Failure":
        """Start a worker, load the artifact, find `entry`, prove that it runs on `threads`.

        Args:
            artifact: The shared library (`Artifact.path`).
            entry: Name of the kernel.
            runtime: `build_runtime(artifact.toolchain)`.
            arenas: Mapped into the worker; sealed ones read-only. Guard pages surround each.
            threads: Size of the OpenMP team.
            limits: When to stop it.

        Raises:
            HarnessError: our own machinery failed before the candidate was loaded.
        """
        raise NotImplementedError

    def call(self, call: Call, flush_bytes: int = 0, park: bool = False) -> CallReport | Failure:
        """Flush `flush_bytes` with the worker's own team, then time one call.

        With `park` the worker is thawed before and frozen after the call; it is certainly stopped
        when this returns, so that outputs can be read.
        """
        raise NotImplementedError

    def null_call(self, flush_bytes: int = 0) -> CallReport | Failure:
        """Time a call of a kernel that does nothing (the clock's own floor)."""
        raise NotImplementedError

    def workspace_bytes(
        self, integers: Sequence[int], doubles: Sequence[float] = ()
    ) -> int | Failure:
        """What `ENTRY_workspace(dimensions…, scalars…)` returns; 0 where it is not exported."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop every thread of the worker (SIGSTOP) and wait until they are stopped."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let it run again."""
        raise NotImplementedError

    def close(self) -> None:
        """End the process and everything it started; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
