"""The oracle's work where expected values and outputs lie in memory of a device.

The judge lends one arena that no worker is lent, and copies into it what a call left. Everything is
drawn, computed and compared there; what is wrong is diagnosed on the host, by the same code as
ever.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch

from kernelwright.evaluation.device_numerics import (
    compared,
    digest,
    errors_of,
    write_budget,
    wrong_patterns,
)
from kernelwright.evaluation.layout import Place
from kernelwright.evaluation.oracle_gpu import Gpu
from kernelwright.evaluation.oracle_values import (
    as_comparison,
    places_of,
    shared_bytes,
    tensor_at,
    values_of,
)
from kernelwright.evaluation.wire import Json, comparison_to_json, workload_from_json
from kernelwright.execution import arena_view, device_arenas
from kernelwright.model import Scalar, Workload
from kernelwright.numerics import Comparison
from kernelwright.problems import (
    Problem,
    equivalence_units,
    run_reference,
    run_terms,
    sound_runs,
    torch_dtype,
)

Tensors = Mapping[str, torch.Tensor]
Scalars = Mapping[str, Scalar]


class DeviceJudging:
    """Handlers of the judge's requests about one problem on a device.

    Args:
        problem: what is computed.
        gpu: where; None: in shared pages of the host, which tests put in a device's place.
    """

    def __init__(self, problem: Problem, gpu: Gpu | None) -> None:
        self._problem = problem
        self._gpu = gpu
        self._draws_on_host = gpu is None
        self._key = secrets.randbits(62)

    def memory(self, name: str) -> torch.Tensor:
        """All bytes of an arena of the judge's."""
        if self._gpu is not None and name in device_arenas():
            return self._gpu.memory(name)
        return shared_bytes(arena_view(name))

    def make(self, payload: Json) -> Json:
        """Write inputs, oracle values and tolerances to their places.

        Returns:
            `norms`, `usable` and `reason`; and `patterns`, the poisons that are right nowhere in
            each output.
        """
        workload, memory = workload_from_json(payload["workload"]), self.memory(payload["arena"])
        inputs, scalars = self._drawn(workload, payload["seed"]), dict(workload.scalars)
        for place, value in zip(places_of(payload["inputs"]), inputs.values(), strict=True):
            tensor_at(place, memory).copy_(value)
        with self._computing():
            outputs = self._write_expected(workload, inputs, payload, memory)
            sound = sound_runs(self._problem, inputs, scalars)
            terms = run_terms(self._problem, inputs, scalars)
            actual = dict(zip(outputs, sound[0], strict=True))
            judged = equivalence_units(self._problem, inputs, scalars, actual, outputs)
            reply: Json = {"norms": [], "patterns": [], "usable": True, "reason": ""}
            bad: list[str] = []
            allowed = places_of(payload["tolerances"])
            for i, (name, expected) in enumerate(outputs.items()):
                dtype = self._problem.signature.outputs[i].resolve(workload.dtype)
                place = tensor_at(allowed[i], memory).reshape(-1)
                runs = [run[i] for run in sound]
                found = write_budget(place, expected, runs, dtype, terms[name])
                if name not in judged and not found.usable:
                    bad.append(name)
                reply["norms"].append(found.norm_tolerance)
                patterns = wrong_patterns(expected, place, dtype, torch_dtype(dtype))
                reply["patterns"].append(patterns)
        if self._gpu is not None:
            del sound, terms, actual, judged, inputs
            self._gpu.give_back()
        if bad:
            reason = f"float32 itself is off by more than 1 % in {', '.join(bad)}"
            reply |= {"usable": False, "reason": reason}
        return reply

    def compare(self, payload: Json) -> Json:
        """Compare copies of outputs with what is expected.

        Returns:
            `results` by output; where something is wrong and `diagnose` is asked for, with the
            places and the pattern.
        """
        memory, errors = self.memory(payload["arena"]), dict[str, Comparison]()
        wrong: dict[str, Callable[[], Comparison]] = {}
        workload = workload_from_json(payload["workload"])
        groups = [places_of(payload[key]) for key in ("seen", "expected", "tolerances")]
        for place, expected, allowed, norm in zip(*groups, payload["norms"], strict=True):
            parts = (
                tensor_at(place, memory).reshape(-1),
                tensor_at(expected, memory),
                tensor_at(allowed, memory).reshape(-1),
                place.dtype,
                norm,
            )
            worst, count, norm_error = errors_of(*parts)
            right = not count and norm_error <= 1
            errors[place.name] = Comparison(
                right, worst, count, place.elements, norm_error=norm_error
            )
            if not errors[place.name].ok:
                wrong[place.name] = lambda parts=parts: compared(*parts)
        if wrong and self._problem.equivalence is not None:
            judged = self._equivalent(workload, payload, memory)
            for name in judged:
                wrong.pop(name, None)
            errors |= judged
        if payload["diagnose"]:
            errors |= {name: diagnose() for name, diagnose in wrong.items()}
        return {"results": {name: comparison_to_json(found) for name, found in errors.items()}}

    def changed(self, payload: Json) -> Json:
        """Compare copies of inputs with what was made."""
        memory = self.memory(payload["arena"])
        for place, copy in zip(
            places_of(payload["inputs"]), places_of(payload["seen_inputs"]), strict=True
        ):
            if not torch.equal(_bytes_at(place, memory), _bytes_at(copy, memory)):
                return {"name": place.name}
        return {"name": None}

    def digest(self, payload: Json) -> Json:
        """A hash of copies of outputs."""
        memory = self.memory(payload["arena"])
        parts = [_bytes_at(place, memory) for place in places_of(payload["seen"])]
        return {"digest": digest(parts, self._key)}

    def _drawn(self, workload: Workload, seed: int) -> Tensors:
        """Inputs on the device, drawn there unless the problem's makers need the host."""
        if not self._draws_on_host:
            try:
                return self._problem.make_inputs(workload, seed, "cuda")
            except (RuntimeError, TypeError):
                self._draws_on_host = True
        made = self._problem.make_inputs(workload, seed)
        return made if self._gpu is None else self._gpu.lend(made)

    def _write_expected(
        self, workload: Workload, inputs: Tensors, payload: Json, memory: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Run the reference; its values by output, where the judge wants them."""
        exact = run_reference(self._problem, inputs, dict(workload.scalars))
        written: dict[str, torch.Tensor] = {}
        for place, value in zip(places_of(payload["expected"]), exact, strict=True):
            written[place.name] = tensor_at(place, memory)
            written[place.name].copy_(value)
        return written

    def _equivalent(
        self, workload: Workload, payload: Json, memory: torch.Tensor
    ) -> dict[str, Comparison]:
        """The problem's own comparison, for outputs that it judges itself."""
        inputs, actual, expected = (
            {place.name: tensor_at(place, memory) for place in places_of(payload[key])}
            for key in ("inputs", "seen", "expected")
        )
        scalars = dict(workload.scalars)
        with self._computing():
            units = equivalence_units(self._problem, inputs, scalars, actual, expected)
        return {
            name: _as_comparison(errors, actual[name], expected[name])
            for name, errors in units.items()
        }

    def _computing(self) -> AbstractContextManager[None]:
        return nullcontext() if self._gpu is None else self._gpu.computing()


def _as_comparison(units: torch.Tensor, actual: torch.Tensor, expected: torch.Tensor) -> Comparison:
    if bool((units <= 1).all()):
        worst = float(units.amax()) if units.numel() else 0.0
        return Comparison(True, worst, total=units.numel())
    return as_comparison(values_of(units), values_of(actual), values_of(expected))


def _bytes_at(place: Place, memory: torch.Tensor) -> torch.Tensor:
    return memory[place.offset : place.offset + place.nbytes]
