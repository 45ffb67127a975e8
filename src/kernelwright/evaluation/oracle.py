"""The oracle: a process of its own that runs references and baselines.

Started as `python -m kernelwright.evaluation.oracle`; the judge talks to it through
`OracleClient`. It is the only process of a campaign that imports torch and the problem's file.
"""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from kernelwright.errors import KernelwrightError, ProblemError, Unsupported
from kernelwright.evaluation.layout import Place
from kernelwright.evaluation.oracle_device import DeviceJudging
from kernelwright.evaluation.oracle_gpu import Gpu
from kernelwright.evaluation.oracle_values import (
    Array,
    as_comparison,
    bytes_of,
    from_numpy,
    places_of,
    shared_bytes,
    tensor_at,
    values_of,
)
from kernelwright.evaluation.wire import (
    Json,
    comparison_to_json,
    workload_from_json,
    workload_to_json,
)
from kernelwright.execution import arena_view, every_processor, serve
from kernelwright.expr import operations, to_json, unit_of
from kernelwright.machine import evictor, probe
from kernelwright.model import Dtype, Scalar
from kernelwright.numerics import (
    budget,
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
    trace_program,
)

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
        self._device: DeviceJudging | None = None

    @property
    def problem(self) -> Problem:
        """The problem that `load` loaded."""
        if self._problem is None:
            raise ProblemError("no problem is loaded")
        return self._problem

    @property
    def device(self) -> DeviceJudging:
        """Its work in memory of a device."""
        if self._device is None:
            raise ProblemError("no problem is loaded")
        return self._device

    def load(self, payload: Json) -> Json:
        """Load a problem; what the judge needs to know of it."""
        problem = load_problem(ProblemReference.from_json(payload["reference"]))
        self._problem = problem
        target = payload["target"]
        if target == "cuda":
            self._gpu = Gpu()
        self._device = DeviceJudging(problem, self._gpu)
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
            "further": [name for name, found in self._baselines.items() if found.further],
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
        """Write inputs, oracle values and tolerances to their places, in the host's memory."""
        workload = workload_from_json(payload["workload"])
        inputs = self.problem.make_inputs(workload, payload["seed"])
        arena = arena_view(payload["arena"])
        for data, value in zip(payload["inputs"], inputs.values(), strict=True):
            place = Place.from_json(data)
            np.copyto(place.bytes_in(arena), bytes_of(value))
        scalars = dict(workload.scalars)
        exact = [values_of(t) for t in run_reference(self.problem, inputs, scalars)]
        sound = sound_runs(self.problem, inputs, scalars)
        terms = run_terms(self.problem, inputs, scalars)
        scored = dict(zip([o.name for o in self.problem.signature.outputs], exact, strict=True))
        judged = self._judged(inputs, scalars, sound[0], scored)
        norms: list[float] = []
        bad: list[str] = []
        outputs = self.problem.signature.outputs
        for i, (values, place, allowed) in enumerate(
            zip(
                exact, places_of(payload["expected"]), places_of(payload["tolerances"]), strict=True
            )
        ):
            dtype = outputs[i].resolve(workload.dtype)
            runs = [values_of(run[i]) for run in sound]
            stated = terms[outputs[i].name]
            sums = None if stated is None else values_of(stated)
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
        expected = {name: from_numpy(values) for name, values in exact.items()}
        return set(equivalence_errors(self.problem, inputs, scalars, actual, expected))

    def equivalent(self, payload: Json) -> Json:
        """Ask the problem whether outputs are right, where it judges them itself."""
        workload = workload_from_json(payload["workload"])
        signature = self.problem.signature
        secret, visible = map(shared_bytes, map(arena_view, (payload["secret"], payload["arena"])))
        names = [tensor.name for tensor in signature.inputs]
        placed = zip(names, places_of(payload["inputs"]), strict=True)
        inputs = {name: tensor_at(place, secret) for name, place in placed}
        expected = {p.name: tensor_at(p, secret) for p in places_of(payload["expected"])}
        actual = {p.name: tensor_at(p, visible) for p in places_of(payload["outputs"])}
        errors = equivalence_errors(self.problem, inputs, dict(workload.scalars), actual, expected)
        results = {
            name: as_comparison(units, values_of(actual[name]), values_of(expected[name]))
            for name, units in errors.items()
        }
        return {"results": {name: comparison_to_json(found) for name, found in results.items()}}

    def prepare(self, payload: Json) -> Json:
        """Compile and warm up a baseline."""
        try:
            call = self.baseline(payload)
            with every_processor():  # for runtimes that start at the first call
                call()
            for _ in range(2):
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
        with every_processor():
            found = plainly_wrong(self.problem, self._baselines[name], Dtype(payload["dtype"]))
        return {"wrong": found}

    def baseline(self, payload: Json) -> Callable[[], float | None]:
        """A callable that runs one baseline on inputs in a visible slot."""
        run = self._baselines[payload["name"]]
        workload = workload_from_json(payload["workload"])
        memory = self.device.memory(payload["arena"])
        inputs = {p.name: tensor_at(p, memory) for p in places_of(payload["inputs"])}
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
        memory = self.device.memory(payload["arena"])
        for place, value in zip(places_of(payload["outputs"]), self._last, strict=True):
            if tuple(value.shape) != place.shape:
                raise ProblemError(
                    f"the baseline's '{place.name}' has the shape {tuple(value.shape)}, "
                    f"not {place.shape}"
                )
            tensor_at(place, memory).copy_(value)
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


def _packed_bytes(value: torch.Tensor) -> Array:
    """What a packed tensor holds, in oneDNN's own layouts too."""
    if not value.is_mkldnn:
        return bytes_of(value)
    address = torch.ops.mkldnn.data_ptr(value)
    whole = (ctypes.c_uint8 * torch.ops.mkldnn._nbytes(value)).from_address(address)
    return np.ctypeslib.as_array(whole)


def main() -> None:
    """Serve until the judge hangs up."""
    oracle = Oracle()
    torch.set_grad_enabled(False)
    handlers: dict[str, Callable[[Json], Json]] = {
        "load": oracle.load,
        "heldout": oracle.heldout,
        "admit": oracle.admit,
        "make": oracle.make,
        "make on device": lambda payload: oracle.device.make(payload),
        "compare": lambda payload: oracle.device.compare(payload),
        "changed": lambda payload: oracle.device.changed(payload),
        "digest": lambda payload: oracle.device.digest(payload),
        "equivalent": oracle.equivalent,
        "prepare": oracle.prepare,
        "wrong": oracle.wrong,
        "collect": oracle.collect,
    }
    serve(handlers, {"baseline": oracle.baseline}, oracle.flush)


if __name__ == "__main__":
    main()
