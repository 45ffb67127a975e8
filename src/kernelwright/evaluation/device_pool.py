"""A pool whose memory lies on a device: the oracle compares there what the judge has copied.

The secret arena is device memory that judge and oracle share and no worker is ever lent. Beside
inputs, expected values and tolerances it has room for what one call saw and left: when the worker
is frozen, the judge copies the outputs there, on the device, and asks the oracle about the copy. So
nothing that a kernel may still do changes what is compared, and the oracle maps nothing of a
worker's.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from kernelwright.evaluation.expected import Case, Checked, Equivalence, checked
from kernelwright.evaluation.layout import PAGE, Bytes, Place
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.pool import Pool
from kernelwright.evaluation.wire import Json, workload_to_json
from kernelwright.execution import Pointer, Poison

_LOOK_ONE_IN = 8
_LATE_ELEMENTS = 1024
"""Of each output that a device fills last: too few to matter in its cache."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where copies of what one call saw and left lie in the secret arena."""

    inputs: tuple[Place, ...]
    outputs: tuple[Place, ...]


@dataclass(slots=True)
class DevicePool(Pool):
    """As `Pool`; every check looks at everything, as that costs a device less than choosing."""

    oracle: OracleClient = field(kw_only=True)
    seen: tuple[Seen, ...] = field(kw_only=True)
    """By case; all share the same bytes."""
    _norms: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    """Tolerances of each output's error in norm, by case."""

    def poison_again(self, case: int, slot: int) -> list[Poison]:
        """What a worker has to fill before its call, as `poison` has just done.

        All of each output, and a secret block of it once more when the clock is about to start: so
        nothing is right that was written earlier.
        """
        found: list[Poison] = []
        for number, place in enumerate(self.output_slots[case][slot]):
            byte = self._poisoned[case, slot, number]
            found.append(Poison(Pointer(self.outputs.name, place.offset), place.nbytes, byte))
            size = min(place.elements, _LATE_ELEMENTS)
            start = secrets.randbelow(place.elements - size + 1)
            at = Pointer(self.outputs.name, place.offset + start * place.dtype.itemsize)
            found.append(Poison(at, size * place.dtype.itemsize, byte, last=True))
        return found

    def fetch(self, case: int, slot: int) -> None:
        """Copy what a call left in its outputs, and bring red zones to where the judge looks."""
        for place, copy in zip(self.output_slots[case][slot], self.seen[case].outputs, strict=True):
            self.secret.copy(copy.offset, place.nbytes, self.outputs, place.offset)
            self.outputs.fetch(place.offset - PAGE, PAGE)
            self.outputs.fetch(place.offset + place.nbytes, PAGE)

    def changed_input(self, case: int, slot: int) -> str | None:
        """An input that a call has changed; None: none.

        All are looked at in small workloads, in large ones now and then, unforeseeably.
        """
        if self.shared and secrets.randbelow(_LOOK_ONE_IN) > 0:
            return None
        for place, copy in zip(self.input_slots[slot], self.seen[case].inputs, strict=True):
            self.secret.copy(copy.offset, place.nbytes, self.inputs, place.offset)
        return self.oracle.changed(self._request(case))

    def given(self, case: int) -> list[Bytes]:
        """The inputs of a case, copied to the host."""
        places = self.secrets[case].inputs
        return [self.secret.fetch(place.offset, place.nbytes).copy() for place in places]

    def lay_before_oracle(self, case: int, slot: int) -> tuple[str, tuple[Place, ...]]:
        """The secrets themselves, of which a baseline makes copies of its own."""
        return self.secret.name, self.secrets[case].inputs

    def place_for_oracle(
        self, case: int, slot: int, guest: object
    ) -> tuple[str, tuple[Place, ...]]:
        """Where copies of a kernel's outputs are compared too."""
        for number, place in enumerate(self.seen[case].outputs):
            self.secret.fill(place.offset, place.nbytes, self._pattern(case, number))
        return self.secret.name, self.seen[case].outputs

    def check_fully(
        self, case: int, slot: int, equivalence: Equivalence | None, diagnose: bool = True
    ) -> Checked:
        """Compare every element, elementwise and in norm; the oracle asks the problem itself."""
        return checked(self.oracle.compared(self._request(case), diagnose), self.workloads[case])

    def check_fast(self, case: int, slot: int) -> bool:
        """The same without a diagnosis."""
        return self.check_fully(case, slot, None, diagnose=False).fault is None

    def check_sample(self, case: int, slot: int, chosen: Sequence[list[slice]]) -> bool:
        """The same: everything is looked at."""
        return self.check_fast(case, slot)

    def digest(self, case: int, slot: int) -> str:
        """A hash of the outputs, equal for equal bytes."""
        return self.oracle.digest(self._request(case))

    def remember(self, case: int, slot: int) -> None:
        """Nothing: comparing costs no more than recognising."""

    def is_known(self, case: int, slot: int) -> bool:
        """Nothing is kept."""
        return False

    def close(self) -> None:
        """Give the memory back, without the secrets: nobody knows who gets it next."""
        self.secret.fill(0, self.secret.nbytes, 0)
        Pool.close(self)

    def _request(self, case: int) -> Json:
        """What the oracle needs to look at what the last call saw and left."""
        places, seen = self.secrets[case], self.seen[case]
        groups = {
            "inputs": places.inputs,
            "expected": places.expected,
            "tolerances": places.tolerances,
            "seen_inputs": seen.inputs,
            "seen": seen.outputs,
        }
        return {
            "arena": self.secret.name,
            "workload": workload_to_json(self.workloads[case]),
            "norms": self._norms[case],
            **{name: [place.to_json() for place in group] for name, group in groups.items()},
        }

    def _show(self, case: int, number: int, place: Place) -> None:
        source = self.secrets[case].inputs[number]
        self.inputs.copy(place.offset, place.nbytes, self.secret, source.offset)

    def _make(self, oracle: OracleClient, number: int, seed: int) -> None:
        workload, places = self.workloads[number], self.secrets[number]
        reply = oracle.make(
            self.secret.name, workload_to_json(workload), seed, places.inputs, places.expected,
            places.tolerances, device=True,
        )  # fmt: skip
        if not reply["usable"]:
            self.refused[number] = str(reply["reason"])
        self._norms[number] = reply["norms"]
        self._patterns |= {(number, i): found for i, found in enumerate(reply["patterns"])}
        self.cases.append(Case(workload, (), (), seed))
