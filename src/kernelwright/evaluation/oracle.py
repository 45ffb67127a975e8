"""The oracle: a process of its own that runs references and baselines.

Started as `python -m kernelwright.evaluation.oracle`; the judge talks to it through
`OracleClient`. It is the only process of a campaign that imports torch and the problem's file.
"""

import ctypes
import gc
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kernelwright.errors import KernelwrightError, ProblemError, Unsupported
from kernelwright.evaluation.layout import Place
from kernelwright.evaluation.oracle_gpu import Gpu
from kernelwright.evaluation.wire import (
    Json,
    comparison_to_json,
    workload_from_json,
    workload_to_json,
)
from kernelwright.execution import arena_view, serve
from kernelwright.expr import operations, to_json, unit_of
from kernelwright.machine import evictor, probe
from kernelwright.model import Dtype, Scalar
from kernelwright.numerics import (
    Comparison,
    budget,
    compare,
)
from kernelwright.problems import (
    Baseline,
    Problem,
    ProblemReference,
    admit,
    baselines,
    equivalence_errors,
    load_problem,
    plainly_wrong,
    public_to_json,
    run_reference,
    run_terms,
    sound_runs,
    torch_dtype,
    trace_program,
)

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Tensors = Mapping[str, torch.Tensor]
Scalars = Mapping[str, Scalar]


class Oracle:
    """One problem, loaded; handlers of the judge's requests."""

    def __init__(self) -> None:
        self._problem: Problem | None = None
        self._baselines: Mapping[str, Baseline] = {}
        self._last: tuple[torch.Tensor, ...] = ()
        self._prepare_us: float | None = None
        self._flushed = torch.zeros(0)
        self._gpu: Gpu | None = None

    @property
    def problem(self) -> Problem:
        """The problem that `load` loaded."""
        if self._problem is None:
            raise ProblemError("no problem is loaded")
        return self._problem

    def load(self, payload: Json) -> Json:
        """Load a problem; what the judge needs to know of it."""
        problem = load_problem(ProblemReference.from_json(payload["reference"]))
        self._problem = problem
        target = payload["target"]
        if target == "cuda":
            self._gpu = Gpu()
        named = "gpu" if target == "cuda" else target
        bench = problem.bench_workload(payload["sizes"], payload["dtype"], named)
        self._baselines = baselines(problem, target)
        program, unmatched, counted, unit = None, None, None, "fma"
        try:
            traced = trace_program(problem, bench.dtype)
            program, counted = to_json(traced), operations(traced, bench.sizes)
            unit = unit_of(traced, bench.dtype)
        except Unsupported as error:
            unmatched = str(error)
        cost = problem.cost_of(bench.sizes, bench.dtype)
        checks = problem.check_workloads(bench.dtype, payload["seed"])
        return {
            "public": public_to_json(problem.public()),
            "program": program,
            "unmatched": unmatched,
            "bench": workload_to_json(bench),
            "checks": [workload_to_json(w) for w in checks],
            "baselines": list(self._baselines),
            "equivalence": problem.equivalence is not None,
            "bytes_read": cost.bytes_read,
            "bytes_written": cost.bytes_written,
            "operations": cost.operations if cost.operations is not None else counted,
            "unit": unit,
            "torch": torch.__version__,
        }

    def heldout(self, payload: Json) -> Json:
        """Secret workloads."""
        dtype = Dtype(payload["dtype"])
        found = self.problem.heldout_workloads(dtype, payload["seed"], payload["count"])
        return {"workloads": [workload_to_json(w) for w in found]}

    def admit(self, payload: Json) -> Json:
        """The admission gate."""
        report = admit(self.problem, Dtype(payload["dtype"]))
        return {"findings": [str(finding) for finding in report.findings]}

    def make(self, payload: Json) -> Json:
        """Write inputs, oracle values and tolerances to their places."""
        workload = workload_from_json(payload["workload"])
        inputs = self.problem.make_inputs(workload, payload["seed"])
        arena = arena_view(payload["arena"])
        for data, value in zip(payload["inputs"], inputs.values(), strict=True):
            place = Place.from_json(data)
            np.copyto(place.bytes_in(arena), _bytes(value))
        scalars = dict(workload.scalars)
        with self._gpu.computing() if self._gpu else nullcontext():
            there = self._gpu.lend(inputs) if self._gpu else inputs
            exact = [_values(t) for t in run_reference(self.problem, there, scalars)]
            runs_there = sound_runs(self.problem, there, scalars)
            sound = [tuple(value.cpu() for value in run) for run in runs_there]
            terms = run_terms(self.problem, there, scalars)
        scored = dict(zip([o.name for o in self.problem.signature.outputs], exact, strict=True))
        judged = self._judged(inputs, scalars, sound[0], scored)
        norms: list[float] = []
        bad: list[str] = []
        outputs = self.problem.signature.outputs
        for i, (values, place, allowed) in enumerate(
            zip(exact, _places(payload["expected"]), _places(payload["tolerances"]), strict=True)
        ):
            dtype = outputs[i].resolve(workload.dtype)
            runs = [_values(run[i]) for run in sound]
            stated = terms[outputs[i].name]
            sums = None if stated is None else _values(stated)
            found = budget(values, runs, dtype, sums)
            if outputs[i].name not in judged and not found.usable:
                bad.append(outputs[i].name)
            place.array_in(arena)[:] = values.reshape(-1)
            allowed.array_in(arena)[:] = found.tolerance.reshape(-1)
            norms.append(found.norm_tolerance)
        reason = f"float32 itself is off by more than 1 % in {', '.join(bad)}" if bad else ""
        return {"norms": norms, "usable": not bad, "reason": reason}

    def _judged(
        self, inputs: Tensors, scalars: Scalars, run: Sequence[torch.Tensor], exact: Arrays
    ) -> set[str]:
        """Outputs that the problem judges itself."""
        names = [output.name for output in self.problem.signature.outputs]
        actual = dict(zip(names, run, strict=True))
        expected = {name: _from_numpy(values) for name, values in exact.items()}
        return set(equivalence_errors(self.problem, inputs, scalars, actual, expected))

    def equivalent(self, payload: Json) -> Json:
        """Ask the problem whether outputs are right, where it judges them itself."""
        workload = workload_from_json(payload["workload"])
        signature = self.problem.signature
        secret, visible = arena_view(payload["secret"]), arena_view(payload["arena"])
        names = [tensor.name for tensor in signature.inputs]
        placed = zip(names, _places(payload["inputs"]), strict=True)
        inputs = {name: _tensor(place, secret) for name, place in placed}
        expected = {p.name: _tensor(p, secret) for p in _places(payload["expected"])}
        actual = {p.name: _tensor(p, visible) for p in _places(payload["outputs"])}
        errors = equivalence_errors(self.problem, inputs, dict(workload.scalars), actual, expected)
        results = {
            name: _as_comparison(units, _values(actual[name]), _values(expected[name]))
            for name, units in errors.items()
        }
        return {"results": {name: comparison_to_json(found) for name, found in results.items()}}

    def prepare(self, payload: Json) -> Json:
        """Compile and warm up a baseline."""
        try:
            call = self.baseline(payload)
            for _ in range(3):
                call()
        except KernelwrightError:
            raise
        except Exception as error:  # whatever a library raises makes its baseline absent
            first = str(error).strip().splitlines() or [type(error).__name__]
            return {"absent": f"{type(error).__name__}: {first[0]}"[:300]}
        return {"absent": None}

    def wrong(self, payload: Json) -> Json:
        """What is plainly wrong with a peer, on small inputs of every distribution."""
        name = payload["name"]
        if name not in self.problem.peers:
            return {"wrong": ""}  # the reference itself
        return {
            "wrong": plainly_wrong(self.problem, self._baselines[name], Dtype(payload["dtype"]))
        }

    def baseline(self, payload: Json) -> Callable[[], float | None]:
        """A callable that runs one baseline on inputs in a visible slot."""
        run = self._baselines[payload["name"]]
        workload = workload_from_json(payload["workload"])
        arena = arena_view(payload["arena"])
        inputs = {p.name: _tensor(p, arena) for p in _places(payload["inputs"])}
        self._last = ()
        if self._gpu is not None:
            inputs = self._gpu.lend(inputs)
        start = time.perf_counter_ns()
        bound, packed = run.bind(inputs, dict(workload.scalars))
        self._prepare_us = (time.perf_counter_ns() - start) / 1000 if packed else None
        if self._gpu is None:
            self._throw_out(packed)
        gc.collect(0)

        def call() -> None:
            self._last = ()
            self._last = bound()

        if self._gpu is None:
            return call
        gpu = self._gpu
        return lambda: gpu.timed_ns(call)

    def collect(self, payload: Json) -> Json:
        """Copy the last results to their places."""
        arena = arena_view(payload["arena"])
        for place, value in zip(_places(payload["outputs"]), self._last, strict=True):
            if tuple(value.shape) != place.shape:
                raise ProblemError(
                    f"the baseline's '{place.name}' has the shape {tuple(value.shape)}, "
                    f"not {place.shape}"
                )
            np.copyto(place.bytes_in(arena), _bytes(value.to(torch_dtype(place.dtype))))
        return {"prepare_us": self._prepare_us}

    def _throw_out(self, packed: Sequence[torch.Tensor]) -> None:
        """What was packed a moment ago must be as cold as what the judge lends."""
        evict = evictor(probe(gpu=False).toolchains[0]) if packed else None
        if evict is not None:
            for tensor in packed:
                evict(_packed_bytes(tensor))

    def flush(self, nbytes: int) -> None:
        """Read that many bytes with torch's own threads, or on the GPU right before the call."""
        if self._gpu is not None:
            self._gpu.flush_bytes = nbytes
            return
        if self._flushed.numel() * 4 != nbytes:
            self._flushed = torch.ones(nbytes // 4)
        self._flushed.sum()


def _places(data: Sequence[Mapping[str, Any]]) -> list[Place]:
    return [Place.from_json(one) for one in data]


def _tensor(place: Place, arena: Array) -> torch.Tensor:
    """A tensor over shared pages, not a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sealed pages are meant to be read only
        flat = _from_numpy(place.bytes_in(arena))
    return flat.view(torch_dtype(place.dtype)).reshape(place.shape)


def _from_numpy(values: Array) -> torch.Tensor:
    return torch.from_numpy(values)  # pyright: ignore[reportUnknownMemberType]


def _bytes(value: torch.Tensor) -> Array:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()


def _packed_bytes(value: torch.Tensor) -> Array:
    """What a packed tensor holds, in oneDNN's own layouts too."""
    if not value.is_mkldnn:
        return _bytes(value)
    address = torch.ops.mkldnn.data_ptr(value)
    whole = (ctypes.c_uint8 * torch.ops.mkldnn._nbytes(value)).from_address(address)
    return np.ctypeslib.as_array(whole)


def _values(value: torch.Tensor) -> Array:
    """Values in a native numpy type: floats as float32 or float64, integers as int64."""
    value = value.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return (value if value.is_floating_point() else value.to(torch.int64)).numpy()


def _as_comparison(units: Array, actual: Array, expected: Array) -> Comparison:
    """The problem's own errors as a comparison, with a diagnosis where they exceed 1."""
    wrong = ~(units <= 1)
    if not wrong.any():
        return Comparison(True, float(np.max(units, initial=0.0)), total=units.size)
    # what the problem accepts counts as equal; the rest is diagnosed as usual
    oracle = np.where(wrong, expected, actual)
    found = compare(actual, oracle, np.zeros(oracle.shape), _dtype_of(actual))
    return replace(found, max_error=float(np.max(units)))


def _dtype_of(values: Array) -> Dtype:
    if values.dtype.kind == "f":
        return Dtype.F64 if values.dtype.itemsize == 8 else Dtype.F32
    return Dtype.I64


def main() -> None:
    """Serve until the judge hangs up."""
    oracle = Oracle()
    torch.set_grad_enabled(False)
    handlers = {
        "load": oracle.load,
        "heldout": oracle.heldout,
        "admit": oracle.admit,
        "make": oracle.make,
        "equivalent": oracle.equivalent,
        "prepare": oracle.prepare,
        "wrong": oracle.wrong,
        "collect": oracle.collect,
    }
    serve(handlers, {"baseline": oracle.baseline}, oracle.flush)


if __name__ == "__main__":
    main()
