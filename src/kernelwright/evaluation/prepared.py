"""Prepacked static inputs: made by one process of a kernel, lent to another that is timed.

The preparing process maps the inputs, of which it is shown the static ones alone, and memory of its
own. The calling process maps neither: when the clock starts it finds a copy of what was prepared,
which it can only read. So nothing but these bytes gets from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kernelwright.evaluation.layout import POISON
from kernelwright.evaluation.pool import MakeArena, Pool
from kernelwright.evaluation.workspace import OFFSET, Workspaces
from kernelwright.execution import Arena, Call, CallReport, Failure, Pointer, Stream, Worker
from kernelwright.machine import Evict
from kernelwright.model import Signature, Workload

ARENA = "prepared"
_MAKING = "preparing"
_MOST_TIMES = 16
_MORE_BYTES = 64 << 20


@dataclass(slots=True)
class PreparedMemory:
    """What preparing processes write, and the copy that calls read; for all kernels."""

    make: MakeArena = Arena
    lent: Arena | None = None
    made: Workspaces = field(init=False)
    _shown: bool = False

    def __post_init__(self) -> None:
        self.made = Workspaces(_MAKING, "what it prepares", self.make)

    def arenas(self) -> tuple[Arena, ...]:
        """What calling processes map."""
        return () if self.lent is None else (self.lent,)

    def grow(self, nbytes: int) -> None:
        """Make room; processes that map the former memory must be started again."""
        if self.made.holds(nbytes):
            return
        self.close()
        self.made.grow(nbytes)
        assert self.made.arena is not None
        self.lent = self.make(ARENA, self.made.arena.nbytes, True)
        self.lent.fill(0, self.lent.nbytes, POISON)
        self.lent.seal()

    def lend(self, nbytes: int, throw_out: Evict | None) -> None:
        """Show a call what was prepared, in no cache."""
        if not nbytes or self.lent is None or self.made.arena is None:
            return
        self._shown = True
        self.lent.copy(OFFSET, nbytes, self.made.arena)
        if throw_out is not None:
            throw_out(self.lent.view(OFFSET, nbytes))

    def blank(self) -> None:
        """Take it out of sight."""
        if self._shown and self.lent is not None:
            self.lent.fill(0, self.lent.nbytes, POISON)
            self._shown = False

    def close(self) -> None:
        """Give the memory back."""
        self.made.close()
        if self.lent is not None:
            self.lent.close()
            self.lent = None


@dataclass(slots=True)
class Preparer:
    """The process that prepares for one kernel."""

    signature: Signature
    memory: PreparedMemory
    pools: Sequence[Pool]
    begin: Callable[[Sequence[Arena]], Worker | Failure]
    """Starts a process of the kernel that maps these arenas."""
    worker: Worker | None = None
    _mapped: Arena | None = None
    _met: set[tuple[str, int, int]] = field(default_factory=set[tuple[str, int, int]])

    def prepare(
        self, pool: Pool, case: int, slot: int, sizes: tuple[int | float, ...], nbytes: int
    ) -> CallReport | Failure:
        """Prepare the static inputs of a case; the process is frozen afterwards.

        It never meets values twice whose preparation is timed.

        Args:
            pool: holds the case.
            case: its number.
            slot: the input slot in which it finds them, beside poison.
            sizes: dimensions and scalars, as the kernel gets them.
            nbytes: what it asked for.
        """
        met = (pool.label, pool.generation, case)
        stale = self._mapped is not self.memory.made.arena or (pool.shared and met in self._met)
        if self.worker is None or not self.worker.alive or stale:
            failure = self._start()
            if failure is not None:
                return failure
        assert self.worker is not None
        self._met.add(met)
        self.memory.made.poison(nbytes)
        places = pool.load_static(case, slot)
        inputs = [Pointer(pool.inputs.name, place.offset) for place in places]
        report = self.worker.prepare(Call((*inputs, *sizes, Pointer(_MAKING, OFFSET), Stream())))
        pool.blank()
        return report

    def _start(self) -> Failure | None:
        self.close()
        self.memory.made.poison(0)
        for pool in self.pools:
            pool.blank()
        worker = self.begin([*(pool.inputs for pool in self.pools), *self.memory.made.arenas()])
        if isinstance(worker, Failure):
            return worker
        self.worker, self._mapped = worker, self.memory.made.arena
        return None

    def close(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None
        self._met.clear()


def most_bytes(signature: Signature, workload: Workload, memory_bytes: int) -> int:
    """The most that may be prepared: room for static inputs in any layout and a wider type.

    Not for tables of answers.

    Args:
        signature: of the problem.
        workload: of the call.
        memory_bytes: the most that any kernel may have.
    """
    static = static_bytes(signature, workload)
    return min(memory_bytes, _MOST_TIMES * static + _MORE_BYTES)


def static_bytes(signature: Signature, workload: Workload) -> int:
    """Bytes of the static inputs as the reference gets them."""
    return sum(t.nbytes(workload.sizes, workload.dtype) for t in signature.static_inputs)


def export_problem(entry: str, worker: Worker, signature: Signature) -> str | None:
    """What is wrong with the functions for prepacking that a kernel exports; None: nothing."""
    if not (worker.exports_prepare or worker.exports_prepared):
        return None
    if not signature.static_inputs:
        return (
            f"it exports {entry}_prepare or {entry}_prepared, but no input of this problem is "
            "static: nothing may be computed before the call"
        )
    if worker.exports_prepare and worker.exports_prepared:
        return None
    there, missing = ("prepare", "prepared") if worker.exports_prepare else ("prepared", "prepare")
    return (
        f"it exports {entry}_{there} without {entry}_{missing}: the one says how many bytes, "
        "the other fills them"
    )
