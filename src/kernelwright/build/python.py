"""Building Python candidates: there is nothing to compile, but syntax, tunables and a cache."""

import json
import keyword
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelwright.build.artifact import Artifact
from kernelwright.build.artifacts import ArtifactCache, Entry
from kernelwright.build.cache import user_cache_folder
from kernelwright.build.compilers import diagnostics
from kernelwright.build.interpreter import WITHHELD, interpreter
from kernelwright.build.protocol import build_side_by_side
from kernelwright.build.runtime import build_clock, build_python_runtime
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Host,
    Reason,
    Rejected,
    Signature,
    Stage,
    Toolchain,
    TunableValue,
    content_hash,
)
from kernelwright.sandbox import View, run_confined
from kernelwright.space import RESERVED

_ARTIFACT = "kernel.json"
_PROGRAMS = Path(__file__).parent.parent / "worker"
_KEEP_MEMORY = FrozenMap(
    {"MALLOC_MMAP_THRESHOLD_": str(1 << 40), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
)
"""Never give memory back, so that intermediate tensors do not fault at each call: the baselines,
which run in torch too, have the same."""
_CHECK = """
import sys, traceback
with open("kernel.py", encoding="utf-8") as file:
    source = file.read()
try:
    compile(source, "kernel.py", "exec", dont_inherit=True)
except Exception as error:
    sys.stderr.write("".join(traceback.format_exception(type(error), error, None)))
    sys.exit(1)
"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that decides an artifact."""

    candidate: Candidate
    tunables: dict[str, TunableValue]
    toolchain: Toolchain
    key: str


class PythonBuilder:
    """Builds Python candidates: source and values of the tunables, for an interpreter to load.

    Args:
        toolchains: C++ compilers; the first builds the native part of the worker's host.
        cache: Folder of the artifacts; made when missing; may be shared between processes.
        timeout_s: Longest compilation to bytecode.
    """

    def __init__(
        self, toolchains: Sequence[Toolchain], cache: Path, timeout_s: float = 20.0
    ) -> None:
        self.toolchains = tuple(toolchains)
        self.cache = cache
        self.timeout_s = timeout_s
        self._artifacts = ArtifactCache(cache, _ARTIFACT)

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        if not any(version.startswith("torch ") for version in interpreter().versions):
            return "Python kernels need torch: pip install torch"
        if not self.toolchains:
            return "the host of Python kernels needs a C++ compiler: install g++ 11 or newer"
        return None

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        if candidate.language != "python":
            return f"this builder takes Python, not {candidate.language}"
        plan = self._plan(candidate)
        return plan.diagnostic if isinstance(plan, Rejected) else None

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """Compile one candidate to bytecode, out of our process; what counts is that it can be."""
        plan = self._plan(candidate)
        if isinstance(plan, Rejected):
            return plan
        entry = self._artifacts.find(plan.key)
        if entry is not None:
            return self._artifact(plan, entry, cached=True)
        return self._artifacts.make(lambda: self._compile(plan))

    def _compile(self, plan: _Plan) -> Artifact | Rejected:
        with self._artifacts.scratch() as scratch:
            folder, source = Path(scratch), plan.candidate.source
            (folder / "kernel.py").write_text(source, encoding="utf-8", newline="")
            python = interpreter()
            command = [str(python.program), "-I", "-S", "-B", "-c", _CHECK]
            view = View(
                read_only=(*python.library, python.program), hidden=python.hidden,
                writable=(folder,), system=True, folder=folder,
            )  # fmt: skip
            outcome = run_confined(command, view, self.timeout_s)
            text = diagnostics(outcome, folder)
            if outcome.code is None:
                slow = f"compiling to bytecode was stopped after {self.timeout_s:g} s\n{text}"
                return Rejected(Stage.BUILD, Reason.COMPILE_TIMEOUT, slow.strip())
            if outcome.code != 0:
                self._artifacts.blame(folder / "kernel.py")
                text = text or f"Python ended with status {outcome.code} and said nothing"
                return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, text)
            built = folder / _ARTIFACT
            built.write_text(json.dumps({"source": source, "tunables": plan.tunables}))
            entry = self._artifacts.publish(plan.key, built, outcome.seconds, text)
        return self._artifact(plan, entry, cached=False)

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Build several candidates, as many at once as there are cores; by identity."""
        return build_side_by_side(self.build, candidates)

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """An interpreter with torch loaded, which makes tensors of the lent memory."""
        python = interpreter()
        library = build_python_runtime(self.toolchains[0])
        program = published_programs()[0]
        places = {"paths": python.paths, "withheld": WITHHELD}
        server = (str(python.program), "-I", "-S", "-B", str(program), str(library))
        server = (*server, json.dumps(places))
        command = (*server, json.dumps(call_facts(signature, dtype)))
        visible = (program, library, *python.library, *python.packages)
        clock = build_clock(self.toolchains[0])
        return Host(command, clock, visible, python.hidden, _KEEP_MEMORY, server)

    def _plan(self, candidate: Candidate) -> _Plan | Rejected:
        missing = self.available()
        if missing:
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, missing)
        tunables = dict(sorted(candidate.tunables.items()))
        wrong = misnamed(tunables)
        if wrong is not None:
            return wrong
        versions = interpreter().versions
        program = str(interpreter().program)
        threads = len(os.sched_getaffinity(0))
        toolchain = Toolchain("python", program, ", ".join(versions), "torch", threads)
        key = content_hash("python 1", *versions, candidate.source, json.dumps(tunables))
        return _Plan(candidate, tunables, toolchain, key)

    def _artifact(self, plan: _Plan, entry: Entry, cached: bool) -> Artifact:
        return Artifact(
            path=self._artifacts.path(plan.key),
            candidate=plan.candidate.identity,
            key=plan.key,
            toolchain=plan.toolchain,
            seconds=entry.seconds,
            cached=cached,
            log=entry.log,
            binary_hash=entry.binary_hash,
            language="python",
        )


def misnamed(tunables: Mapping[str, TunableValue]) -> Rejected | None:
    """What is wrong with the names of tunables that become parameters; None: nothing."""
    for name, value in tunables.items():
        if name in RESERVED:
            text = f"{name} = {value} names a compiler or its flags: a Python kernel has none"
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, text)
        if not name.isidentifier() or keyword.iskeyword(name):
            text = f"the tunable '{name}' cannot be the name of a parameter"
            return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, text)
    return None


def call_facts(signature: Signature, dtype: Dtype) -> dict[str, Any]:
    """What `python_host.py` is told of the calls that it will make."""
    return {
        "tensors": [[t.name, t.dims, t.resolve(dtype)] for t in signature.tensors],
        "dimensions": signature.dimensions,
        "scalars": [[s.name, s.kind] for s in signature.scalars],
    }


def published_programs(*others: str) -> tuple[Path, ...]:
    """`python_host.py`, and other programs of the worker's, in a folder without anything else."""
    names = ("python_host.py", *others)
    texts = [(_PROGRAMS / name).read_text() for name in names]
    folder = user_cache_folder() / "runtimes" / f"{content_hash(*names, *texts)}-python"
    paths = tuple(folder / name for name in names)
    for path, text in zip(paths, texts, strict=True):
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_text(text)
            os.replace(partial, path)
    return paths
