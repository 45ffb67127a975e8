"""Workers that are started together and wait, frozen, until their kernels are judged.

On a GPU a process takes 0.15 to 0.2 s until its context exists, and several get theirs side by
side. While they start nothing is timed. A worker that waits has loaded nothing of its candidate,
and is stopped.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from kernelwright.build import Artifact
from kernelwright.errors import HarnessError
from kernelwright.execution import Arena, Worker
from kernelwright.model import Candidate

Kernel = tuple[Candidate, Artifact]
Begin = Callable[[Candidate, Artifact], Worker]


@dataclass(frozen=True, slots=True)
class _Waiting:
    artifact: str
    arenas: tuple[Arena, ...]
    worker: Worker


@dataclass(slots=True)
class Spares:
    """Workers of kernels that will soon be needed.

    Args:
        most: workers that may wait; 0: none, each is started when it is needed.
    """

    most: int = 0
    _expected: list[Kernel] = field(default_factory=list[Kernel])
    _waiting: list[_Waiting] = field(default_factory=list[_Waiting])

    def expect(self, kernels: Sequence[Kernel]) -> None:
        """What will be started next, once for each time; others that wait are ended."""
        rest = list(kernels)[: self.most]
        kept: list[_Waiting] = []
        for waiting in self._waiting:
            at = next((i for i, (_, a) in enumerate(rest) if a.key == waiting.artifact), None)
            if at is None:
                waiting.worker.close()
            else:
                kept.append(waiting)
                del rest[at]
        self._waiting, self._expected = kept, rest

    def take(
        self, candidate: Candidate, artifact: Artifact, arenas: Sequence[Arena], begin: Begin
    ) -> Worker | None:
        """A worker that has mapped these arenas and loaded nothing; None where none is expected.

        The first that does not wait yet is started together with all that are expected.

        Args:
            candidate: to be loaded.
            artifact: what was built of it.
            arenas: what it must have mapped.
            begin: begins a process that maps them.
        """
        found = self._pop(artifact, arenas)
        if found is None and any(a.key == artifact.key for _, a in self._expected):
            self._start(arenas, begin)
            found = self._pop(artifact, arenas)
        if found is not None:
            found.thaw()
        return found

    def close(self) -> None:
        """End those that wait."""
        self.expect(())

    def _start(self, arenas: Sequence[Arena], begin: Begin) -> None:
        begun: list[tuple[str, Worker]] = []
        for candidate, artifact in self._expected:
            with suppress(HarnessError):  # nothing of the candidate has run
                begun.append((artifact.key, begin(candidate, artifact)))
        self._expected = []
        for key, worker in begun:
            try:
                worker.wait_until_ready()
                worker.freeze()
            except HarnessError:
                worker.close()
            else:
                self._waiting.append(_Waiting(key, tuple(arenas), worker))

    def _pop(self, artifact: Artifact, arenas: Sequence[Arena]) -> Worker | None:
        """One that waits for this kernel, with these arenas; one with others is of no use."""
        for waiting in [w for w in self._waiting if w.artifact == artifact.key]:
            self._waiting.remove(waiting)
            same = len(waiting.arenas) == len(arenas) and all(
                mapped is arena for mapped, arena in zip(waiting.arenas, arenas, strict=True)
            )
            if same and waiting.worker.alive:
                return waiting.worker
            waiting.worker.close()
        return None
