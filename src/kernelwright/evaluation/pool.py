"""Secret input sets with expected values, and the visible pages that calls see.

Three arenas belong to a pool. `secret` is shared by judge and oracle: the oracle fills it with
inputs, expected values and tolerances. `inputs` is sealed, so that whoever maps it later can only
read: the judge copies secret sets into its slots. `outputs` is what timed calls write. A `Pool`
lies in the judge's own pages, where the judge compares; see `device_pool` for one on a device.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernelwright.evaluation.expected import (
    Case,
    Checked,
    Equivalence,
    Expected,
    check_fast,
    check_fully,
    check_sample,
)
from kernelwright.evaluation.layout import (
    PAGE,
    POISON,
    ZONE,
    Bytes,
    Place,
    digest,
)
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.wire import workload_to_json
from kernelwright.execution import Arena, Poison
from kernelwright.machine import Evict
from kernelwright.model import Signature, Workload
from kernelwright.numerics import band

FEWEST_SETS = 3
"""Secret sets that a bench workload has at least, if memory allows it."""
MakeArena = Callable[[str, int, bool], Arena]
"""Memory by name and size, in large pages or not; see `Arena`."""
_REMEMBERED = 2
"""Different right outputs kept of each case."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Where one input set and its expectations lie in the secret arena."""

    inputs: tuple[Place, ...]
    expected: tuple[Place, ...]
    """Oracle values: float64 or int64 words."""
    tolerances: tuple[Place, ...]


@dataclass(slots=True)
class Pool:
    """Cases of one or several workloads, with slots that inputs and outputs rotate through."""

    label: str
    signature: Signature
    workloads: tuple[Workload, ...]
    """One per case."""
    shared: bool
    """All cases are of one workload and rotate through the input slots."""
    secret: Arena
    inputs: Arena
    outputs: Arena
    secrets: tuple[Secret, ...]
    input_slots: tuple[tuple[Place, ...], ...]
    output_slots: tuple[tuple[tuple[Place, ...], ...], ...]
    """By case, then by slot."""
    cases: list[Case] = field(default_factory=list[Case])
    refused: dict[int, str] = field(default_factory=dict[int, str])
    """Cases whose inputs float32 cannot stand, and why."""
    holds: list[int] = field(default_factory=list[int])
    """Which case each input slot holds; -1: none."""
    fresh: bool = False
    """No candidate has met these values yet."""
    generation: int = 0
    """Counts how often the values were made."""
    set_seconds: float = 0.0
    """What making one set took, the last time."""
    throw_out: Evict | None = None
    """Evicts an array from the caches of the machine; None where that cannot be done."""
    _guest: object = None
    """The process that last was let near the outputs."""
    _dirty: dict[int, int] = field(default_factory=dict[int, int])
    """Output slots that hold something else than poison, and the case whose outputs it is."""
    _patterns: dict[tuple[int, int], Sequence[int]] = field(
        default_factory=dict[tuple[int, int], Sequence[int]]
    )
    """Poisons that are right nowhere, by case and output."""
    _poisoned: dict[tuple[int, int, int], int] = field(
        default_factory=dict[tuple[int, int, int], int]
    )
    """By case, slot and output: what it was last filled with."""
    _verified: dict[int, list[list[Bytes]]] = field(default_factory=dict[int, list[list[Bytes]]])

    @property
    def arenas(self) -> tuple[Arena, Arena]:
        """What a worker maps."""
        return self.inputs, self.outputs

    def fill(
        self, oracle: OracleClient, seeds: Sequence[int], seconds: float | None = None
    ) -> None:
        """Let the oracle make cases anew, one per seed; the visible slots are blank afterwards.

        With fewer seeds than workloads, or when the time is up after a few, only the first cases
        exist until the next time.

        Raises:
            HarnessError: the oracle failed.
        """
        self.cases.clear()
        self.refused.clear()
        self._verified.clear()
        self._patterns.clear()
        started = time.monotonic()
        for number, seed in enumerate(seeds[: len(self.workloads)]):
            late = seconds is not None and time.monotonic() - started > seconds
            if late and len(self.usable()) >= FEWEST_SETS:
                break
            self._make_timed(oracle, number, seed)
        self.fresh = True
        self.generation += 1
        self.blank()

    def extend(self, oracle: OracleClient, seed: int) -> None:
        """Let the oracle make one case more, where there is room for it.

        Raises:
            HarnessError: the oracle failed.
        """
        number = len(self.cases)
        if number < len(self.workloads):
            self._make_timed(oracle, number, seed)

    def usable(self) -> list[int]:
        """Numbers of the cases that candidates are judged on."""
        return [n for n in range(len(self.cases)) if n not in self.refused]

    def load(self, case: int, slot: int) -> None:
        """Copy the inputs of a case into a visible slot; all others become blank."""
        if self.holds[slot] == case:
            return
        self.blank()
        for number, place in enumerate(self.input_slots[slot]):
            self._show(case, number, place)
        self.holds[slot] = case

    def given(self, case: int) -> list[Bytes]:
        """The inputs of a case, on the host."""
        return list(self.cases[case].inputs)

    def load_static(self, case: int, slot: int) -> list[Place]:
        """Copy the static inputs of a case into a slot, alone; `blank` takes them away again."""
        self.blank()
        chosen: list[Place] = []
        for number, place in enumerate(self.input_slots[slot]):
            if self.signature.inputs[number].static:
                self._show(case, number, place)
                chosen.append(place)
        self.holds[slot] = case
        return chosen

    def blank(self) -> None:
        """Take all inputs out of sight: whoever runs next must not see what it is called on."""
        for slot, places in enumerate(self.input_slots):
            if self.holds and self.holds[slot] >= 0:
                for place in places:
                    self.inputs.fill(place.offset, place.nbytes, POISON)
        self.holds = [-1] * len(self.input_slots)

    def admit(self, guest: object) -> None:
        """Overwrite all that can be written, unless this guest was the last one here.

        Answers that one process leaves beside its outputs, where no later call looks, would else
        be there for the next one.
        """
        if self._guest is not guest:
            self.outputs.fill(0, self.outputs.nbytes, POISON)
            self._dirty = {}
            self._guest = guest

    def poison(self, case: int, slot: int) -> None:
        """Poison the outputs of a call, take all other answers out of sight, renew red zones.

        Each output gets a pattern that is right for none of its elements, so that what was never
        written is wrong even where NaN or a large number is expected.
        """
        for other, held in self._dirty.items():
            if other != slot or held != case:
                for place in self.output_slots[held][other]:
                    self.outputs.fill(place.offset, place.nbytes, POISON)
        self._dirty = {slot: case}
        for number, place in enumerate(self.output_slots[case][slot]):
            byte = self._pattern(case, number)
            self._poisoned[case, slot, number] = byte
            self.outputs.fill(place.offset, place.nbytes, byte)
            self.outputs.put(place.offset - PAGE, ZONE)
            self.outputs.put(place.offset + place.nbytes, ZONE)

    def poison_again(self, case: int, slot: int) -> list[Poison]:
        """What a worker on a device has to fill before its call, as `poison` has just done.

        Nothing, where the caches of whoever fills are those of whoever calls.
        """
        del case, slot
        return []

    def fetch(self, case: int, slot: int) -> None:
        """Bring what a call left in its outputs and around them to where it is looked at."""

    def changed_input(self, case: int, slot: int) -> str | None:
        """An input that a call has changed, where it could; None: none."""
        del case, slot

    def lay_before_oracle(self, case: int, slot: int) -> tuple[str, tuple[Place, ...]]:
        """The arena and the places in which a baseline finds the inputs of a case."""
        self.load(case, slot)
        return self.inputs.name, self.input_slots[slot]

    def place_for_oracle(
        self, case: int, slot: int, guest: object
    ) -> tuple[str, tuple[Place, ...]]:
        """The arena and the places, poisoned, in which a baseline leaves its outputs."""
        self.admit(guest)  # a kernel that comes next finds no answers of this one
        self.poison(case, slot)
        return self.outputs.name, self.output_slots[case][slot]

    def _pattern(self, case: int, number: int) -> int:
        """A poison that is right nowhere in an output."""
        patterns = self._patterns.get((case, number))
        if patterns is None:
            patterns = self.cases[case].expected[number].wrong_patterns()
            self._patterns[case, number] = patterns
        return secrets.choice(patterns)

    def evict(self, case: int, slots: tuple[int, int]) -> None:
        """Throw what a call reads and writes out of all caches; see `machine.evict`."""
        if self.throw_out is None:
            return
        for place in self.input_slots[slots[0]]:
            self.throw_out(place.bytes_in(self.inputs.view()))
        for place in self.output_slots[case][slots[1]]:
            self.throw_out(place.bytes_in(self.outputs.view()))

    def broken_zone(self, case: int, slot: int) -> str | None:
        """Which output was written outside, and where; None when the red zones are whole."""
        arena = self.outputs.view()
        for place in self.output_slots[case][slot]:
            before, after = place.red_zones(arena)
            if not np.array_equal(after, ZONE):
                at = int(np.argmax(after != ZONE))
                return f"wrote past the end of '{place.name}', first {at} bytes after it"
            if not np.array_equal(before, ZONE):
                at = before.size - int(np.argmax(before != ZONE))
                return f"wrote before the start of '{place.name}', up to {at} bytes before it"
        return None

    def check_fully(
        self, case: int, slot: int, equivalence: Equivalence | None, diagnose: bool = True
    ) -> Checked:
        """Compare every element that the last call wrote, elementwise and in norm.

        Args:
            case: what was computed.
            slot: where the outputs are.
            equivalence: asked when plain comparison fails; None when the problem has none.
            diagnose: somebody wants to know where and how it is wrong.
        """
        places = self.output_slots[case][slot]
        return check_fully(self.cases[case], places, self.outputs.view(), equivalence)

    def check_fast(self, case: int, slot: int) -> bool:
        """Whether every element is right; False needs a full check before it is a verdict."""
        return check_fast(self.cases[case], self.output_slots[case][slot], self.outputs.view())

    def check_sample(self, case: int, slot: int, chosen: Sequence[list[slice]]) -> bool:
        """Whether the chosen parts (at least) are right, as `check_fast`."""
        places = self.output_slots[case][slot]
        return check_sample(self.cases[case], places, self.outputs.view(), chosen)

    def digest(self, case: int, slot: int) -> str:
        """A hash of the outputs, equal for equal bytes."""
        return digest(self.outputs.view(), self.output_slots[case][slot])

    def remember(self, case: int, slot: int) -> None:
        """Keep outputs that were found right, so that the same bytes need not be judged again."""
        known = self._verified.setdefault(case, [])
        if len(known) < _REMEMBERED:
            arena = self.outputs.view()
            known.append([p.bytes_in(arena).copy() for p in self.output_slots[case][slot]])

    def is_known(self, case: int, slot: int) -> bool:
        """Whether the outputs equal, byte by byte, some that were found right for this case."""
        arena = self.outputs.view()
        now = [place.bytes_in(arena) for place in self.output_slots[case][slot]]
        return any(
            all(np.array_equal(a, b) for a, b in zip(now, then, strict=True))
            for then in self._verified.get(case, ())
        )

    def close(self) -> None:
        """Give the memory back."""
        self.cases.clear()
        for arena in (self.secret, self.inputs, self.outputs):
            arena.close()

    def _show(self, case: int, number: int, place: Place) -> None:
        """Copy one input of a case into a visible place."""
        self.inputs.put(place.offset, self.cases[case].inputs[number])

    def _make_timed(self, oracle: OracleClient, number: int, seed: int) -> None:
        started = time.monotonic()
        self._make(oracle, number, seed)
        self.set_seconds = time.monotonic() - started

    def _make(self, oracle: OracleClient, number: int, seed: int) -> None:
        workload, places = self.workloads[number], self.secrets[number]
        reply = oracle.make(
            self.secret.name, workload_to_json(workload), seed, places.inputs,
            places.expected, places.tolerances,
        )  # fmt: skip
        if not reply["usable"]:
            self.refused[number] = str(reply["reason"])
        self.cases.append(self._case(number, workload, seed, reply["norms"]))

    def _case(self, number: int, workload: Workload, seed: int, norms: Sequence[float]) -> Case:
        arena = self.secret.view()
        places = self.secrets[number]
        expected: list[Expected] = []
        outputs = self.signature.outputs
        for i, (oracle, allowed) in enumerate(zip(places.expected, places.tolerances, strict=True)):
            dtype = outputs[i].resolve(workload.dtype)
            values = oracle.array_in(arena).reshape(oracle.shape)
            limit = allowed.array_in(arena).reshape(oracle.shape)
            expected.append(
                Expected(oracle.name, dtype, values, limit, norms[i], band(values, limit, dtype))
            )
        inputs = tuple(place.bytes_in(arena) for place in places.inputs)
        return Case(workload, inputs, tuple(expected), seed)
