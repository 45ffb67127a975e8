"""A Python role (such as the oracle), seen from the judge."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from kernelwright.execution.arena import Arena
from kernelwright.execution.report import CallReport


class RoleProcess:
    """A process running `python -m MODULE ARGUMENTS…`, whose main calls `serve`.

    Requests are length-prefixed JSON over a socket; arenas travel as file descriptors. Usable as
    a context manager, which closes it.
    """

    handshake_overhead_us: float
    """Median of bracket minus elapsed over calls that do nothing."""

    @classmethod
    def start(
        cls,
        module: str,
        arguments: Sequence[str] = (),
        arenas: Sequence[Arena] = (),
        env: Mapping[str, str] | None = None,
        threads: int | None = None,
        start_s: float = 120.0,
    ) -> "RoleProcess":
        """Start the role and wait until it serves.

        Args:
            module: Python module to run.
            arguments: Its command line.
            arenas: Visible at once to `arena_view` there.
            env: Added to the environment of every role (`role_environment(threads)`).
            threads: OpenMP team; default: the cores of this process's affinity.
            start_s: Longest wait until it serves.

        Raises:
            HarnessError: it died or did not answer; the message ends with its standard error.
        """
        raise NotImplementedError

    def attach(self, arenas: Sequence[Arena]) -> None:
        """Map more arenas in the role (sealed ones read-only)."""
        raise NotImplementedError

    def detach(self, names: Sequence[str]) -> None:
        """Forget arenas in the role; memory returns when no view is left there."""
        raise NotImplementedError

    def request(
        self, op: str, payload: Mapping[str, Any] | None = None, timeout_s: float = 60.0
    ) -> dict[str, Any]:
        """Run `handlers[op](payload)` there and return its reply (JSON values).

        Raises:
            HarnessError: the role died, timed out, or replied with an error.
        """
        raise NotImplementedError

    def timed(
        self,
        op: str,
        payload: Mapping[str, Any] | None = None,
        flush_bytes: int = 0,
        park: bool = False,
        timeout_s: float = 60.0,
    ) -> CallReport:
        """Time the callable that `timed[op](payload)` returns there; making it is not timed.

        With `park` the role is thawed before and frozen (surely stopped) after the call.

        Raises:
            HarnessError: the role died, timed out, or replied with an error.
        """
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop every thread of the role and wait until they are stopped."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let it run again."""
        raise NotImplementedError

    def close(self) -> None:
        """End the process and everything it started; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> "RoleProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
