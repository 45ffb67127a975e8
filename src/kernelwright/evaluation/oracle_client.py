"""The oracle's process, seen from the judge."""

import math
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernelwright.build import user_cache_folder
from kernelwright.evaluation.layout import Place
from kernelwright.evaluation.wire import Json, comparison_from_json
from kernelwright.execution import Arena, CallReport, RoleProcess, python_view
from kernelwright.model import Target, content_hash
from kernelwright.numerics import Comparison
from kernelwright.problems import ProblemReference

MODULE = "kernelwright.evaluation.oracle"
MAKE_S = 600.0
COMPILE_S = 300.0
ENVIRONMENT = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""No pool of compile workers beside the timed process."""


def compile_cache(file: Path) -> Path:
    """Where torch's compiler keeps what it compiled for this very file; made when missing.

    A folder for each content, because a hostile file can put anything into its own.
    """
    content = file.read_bytes() if file.is_file() else b""
    folder = user_cache_folder() / "inductor" / content_hash(content)[:32]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class OracleClient:
    """Requests to the oracle; frozen between them once `freeze` was called."""

    def __init__(
        self,
        threads: int,
        reference: ProblemReference,
        devices: Sequence[Path] = (),
        libraries: Sequence[Path] = (),
    ) -> None:
        file = Path(reference.path)
        cache = compile_cache(file)
        env = ENVIRONMENT | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
        if libraries:
            known = [str(path) for path in libraries]
            env["LD_LIBRARY_PATH"] = ":".join([*known, os.environ.get("LD_LIBRARY_PATH", "")])
        view = python_view([file, *libraries], [cache], devices)
        self._role = RoleProcess.start(MODULE, env=env, threads=threads, view=view)
        self._frozen = False

    @contextmanager
    def running(self) -> Generator[None]:
        """Thawed inside, as before outside."""
        frozen = self._frozen
        if frozen:
            self.thaw()
        try:
            yield
        finally:
            if frozen:
                self.freeze()

    def freeze(self) -> None:
        """Stop it, so that it cannot disturb a timed call."""
        self._role.freeze()
        self._frozen = True

    def thaw(self) -> None:
        """Let it run."""
        self._role.thaw()
        self._frozen = False

    def attach(self, arenas: Sequence[Arena]) -> None:
        """Map arenas there."""
        with self.running():
            self._role.attach(arenas)

    def detach(self, arenas: Sequence[Arena]) -> None:
        """Forget arenas there."""
        with self.running():
            self._role.detach([arena.name for arena in arenas])

    def load(
        self,
        reference: ProblemReference,
        dtype: str | None,
        sizes: Mapping[str, int] | int | None,
        seed: int,
        target: Target = "cpu",
    ) -> Json:
        """Load the problem: what is public, its program, cost, workloads and baselines."""
        size = dict(sizes) if isinstance(sizes, Mapping) else sizes
        payload = {"reference": reference.to_json(), "dtype": dtype, "sizes": size, "seed": seed}
        return self._ask("load", payload | {"target": target}, MAKE_S)

    def make(
        self,
        arena: str,
        workload: Json,
        seed: int,
        inputs: Sequence[Place],
        expected: Sequence[Place],
        tolerances: Sequence[Place],
        device: bool = False,
    ) -> Json:
        """Make inputs, expected values and tolerances at their places.

        On a device also the poisons that are right nowhere, as `patterns` of each output.
        """
        payload = {
            "arena": arena,
            "workload": workload,
            "seed": seed,
            "inputs": [place.to_json() for place in inputs],
            "expected": [place.to_json() for place in expected],
            "tolerances": [place.to_json() for place in tolerances],
        }
        return self._ask("make on device" if device else "make", payload, MAKE_S)

    def compared(self, request: Json, diagnose: bool) -> dict[str, Comparison]:
        """What is wrong with each output that was copied to the secret arena of a device.

        Args:
            request: as a `DevicePool` makes it.
            diagnose: say where and how it is wrong, which copies the outputs to the host.
        """
        reply = self._ask("compare", request | {"diagnose": diagnose}, MAKE_S)
        return {name: comparison_from_json(data) for name, data in reply["results"].items()}

    def changed(self, request: Json) -> str | None:
        """The first of the inputs copied there that differs from what it was made as."""
        return self._ask("changed", request, MAKE_S)["name"]

    def digest(self, request: Json) -> str:
        """A hash of the outputs copied there."""
        return self._ask("digest", request, MAKE_S)["digest"]

    def heldout(self, dtype: str, seed: int, count: int) -> list[Json]:
        """Secret workloads."""
        payload = {"dtype": dtype, "seed": seed, "count": count}
        return self._ask("heldout", payload, 60.0)["workloads"]

    def prepare(self, name: str, workload: Json, arena: str, inputs: Sequence[Place]) -> str | None:
        """Make a baseline ready (compile, run once); None, or why it cannot run here."""
        payload = _call(name, workload, arena, inputs)
        return self._ask("prepare", payload, COMPILE_S)["absent"]

    def wrong(self, name: str, dtype: str) -> str:
        """What is plainly wrong with a peer on some distribution; empty when nothing is."""
        return self._ask("wrong", {"name": name, "dtype": dtype}, MAKE_S)["wrong"]

    def collect(self, arena: str, outputs: Sequence[Place]) -> float | None:
        """Copy what the last baseline call returned to these places.

        Returns:
            Microseconds that packing its static inputs took before; None: it packs nothing.
        """
        places = [place.to_json() for place in outputs]
        return self._ask("collect", {"arena": arena, "outputs": places}, 60.0)["prepare_us"]

    def equivalent(self, payload: Json) -> dict[str, Comparison]:
        """What the problem's own equivalence says, by output that it judges."""
        reply = self._ask("equivalent", payload, MAKE_S)
        return {name: comparison_from_json(data) for name, data in reply["results"].items()}

    def admit(self, dtype: str) -> list[str]:
        """Findings of the admission gate; empty: the problem is sound."""
        return self._ask("admit", {"dtype": dtype}, MAKE_S)["findings"]

    def timed(
        self, name: str, workload: Json, arena: str, inputs: Sequence[Place], flush_bytes: int
    ) -> CallReport:
        """Time one baseline call; the role is frozen again afterwards."""
        payload = _call(name, workload, arena, inputs)
        report = self._role.timed(
            "baseline", payload, flush_bytes=flush_bytes, park=True, timeout_s=120.0
        )
        self._frozen = True
        return report

    @property
    def handshake_overhead_us(self) -> float:
        """Bracket minus elapsed of a call that does nothing."""
        overhead = self._role.handshake_overhead_us
        return 0.0 if math.isnan(overhead) else overhead

    def close(self) -> None:
        """End the process."""
        self._role.close()

    def _ask(self, op: str, payload: Json, timeout_s: float) -> dict[str, Any]:
        with self.running():
            return self._role.request(op, payload, timeout_s)


def _call(name: str, workload: Json, arena: str, inputs: Sequence[Place]) -> Json:
    places = [place.to_json() for place in inputs]
    return {"name": name, "workload": workload, "arena": arena, "inputs": places}
