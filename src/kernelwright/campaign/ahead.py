"""Building candidates, on a GPU's host while others are judged."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from kernelwright.build import Artifact, Builder
from kernelwright.model import Candidate, Rejected, Target
from kernelwright.search import Request

JUDGING_CORES = 2
"""Of the host, that compilers leave to the judge and whom it lets run."""
_MOST_AHEAD = 3

Built = Artifact | Rejected


@dataclass(frozen=True, slots=True)
class Batch:
    """Candidates that are being built."""

    candidates: dict[Request, Candidate]
    _built: dict[str, Built] | dict[str, Future[Built]]

    def built(self, candidate: Candidate) -> Built:
        """What became of one of them; waits for it."""
        found = self._built[candidate.identity]
        return found.result() if isinstance(found, Future) else found


class Builds:
    """Builds batches: before they are judged, or while others are.

    On the processors nothing is built beside a timed call. Calls on a GPU are timed there, between
    events that are enqueued before they are reached, so there the host's other cores may compile.
    Usable as a context manager, which waits for builds that have begun and drops the rest.

    Args:
        builder: who builds.
        target: where kernels are timed.
        size: candidates of a batch.
        cores: of the host that may be used.
    """

    def __init__(
        self, builder: Builder, target: Target, size: int, cores: Iterable[int] | None = None
    ) -> None:
        self._builder = builder
        here = sorted(os.sched_getaffinity(0) if cores is None else cores)
        self._cores: Sequence[int] = here[JUDGING_CORES:]
        self.ahead = min(_MOST_AHEAD, len(self._cores) // size) if target == "cuda" else 0
        """Batches that may be under way beside the one that is judged."""
        self._pool: ThreadPoolExecutor | None = None
        if self.ahead:
            self._pool = ThreadPoolExecutor(len(self._cores), initializer=self._stay)

    def start(self, candidates: dict[Request, Candidate]) -> Batch:
        """Build a batch, or begin to."""
        if self._pool is None:
            return Batch(candidates, self._builder.build_many(candidates.values()))
        unique = {candidate.identity: candidate for candidate in candidates.values()}
        build = self._builder.build
        return Batch(candidates, {i: self._pool.submit(build, c) for i, c in unique.items()})

    def _stay(self) -> None:
        """Of a thread, and so of the compilers that it starts."""
        os.sched_setaffinity(0, self._cores)

    def __enter__(self) -> "Builds":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
