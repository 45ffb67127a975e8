"""Building Triton candidates: Python files whose kernels are compiled without a GPU."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kernelwright.build.artifact import Artifact
from kernelwright.build.artifacts import ArtifactCache, Entry
from kernelwright.build.compilers import diagnostics
from kernelwright.build.interpreter import WITHHELD, interpreter
from kernelwright.build.nvcc import (
    ARCHITECTURE_VARIABLE,
    MISSING,
    default_architecture,
    find_toolkit,
)
from kernelwright.build.protocol import build_side_by_side
from kernelwright.build.ptxas import parse_resources, without_resources
from kernelwright.build.python import call_facts, misnamed, published_programs
from kernelwright.build.runtime import build_clock, build_cuda_python_runtime
from kernelwright.build.triton_call import TrialCall, parse_call
from kernelwright.build.triton_rules import broken_rule
from kernelwright.cuda_driver import device_files, library_files
from kernelwright.errors import CandidateError, HarnessError
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
    content_hash,
)
from kernelwright.sandbox import Outcome, View, run_confined

_ARTIFACT = "kernel.json"
_PACKAGES = ("triton",)
_PROGRAMS = ("triton_host.py", "triton_launch.py", "triton_build.py")
_NO_KERNEL = 1
_MOST_WORDS = 1 << 16
_MEMORY_BYTES = 32 << 30
"""Address space of the trial call: torch maps its libraries for GPUs."""


class TritonBuilder:
    """Builds Triton candidates: source and tunables, for an interpreter with Triton to load.

    What a `# @call` line declares is called without a GPU, and every kernel that it would launch is
    compiled to machine code: errors are found here, and registers and spills are known. What a
    worker runs is compiled there, for the sizes that it meets.

    Args:
        toolchains: C++ compilers; g++ compiles the host's part of the worker.
        cache: Folder of the artifacts; made when missing; may be shared between processes.
        architecture: such as `sm_90a`; default: that of the GPU here, or of the environment.
        timeout_s: Longest trial call with its compilations.
        inspects: Reject sources that `triton_rules` finds fault with.
    """

    def __init__(
        self,
        toolchains: Sequence[Toolchain],
        cache: Path,
        architecture: str | None = None,
        timeout_s: float = 60.0,
        inspects: bool = True,
    ) -> None:
        self.toolchains = tuple(toolchains)
        self.cache = cache
        self.timeout_s = timeout_s
        self.inspects = inspects
        self._architecture = architecture
        self._artifacts = ArtifactCache(cache, _ARTIFACT)

    @property
    def architecture(self) -> str | None:
        """What it compiles for; None: nobody said."""
        return self._architecture or default_architecture()

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        versions = interpreter(_PACKAGES).versions
        for name in ("torch", *_PACKAGES):
            if not any(version.startswith(f"{name} ") for version in versions):
                return f"Triton kernels need {name}: pip install {name}"
        if self.architecture is None:
            return (
                "there is no NVIDIA GPU here to compile for: name an architecture, such as "
                f"{ARCHITECTURE_VARIABLE}=sm_90a"
            )
        return None

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        if candidate.language != "triton":
            return f"this builder takes Triton, not {candidate.language}"
        plan = self._plan(candidate)
        return plan.diagnostic if isinstance(plan, Rejected) else None

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """Check the source, compile what its trial call launches, and cache."""
        plan = self._plan(candidate)
        if isinstance(plan, Rejected):
            return plan
        key = self._key(candidate)
        entry = self._artifacts.find(key)
        if entry is not None:
            return self._artifact(candidate, key, entry, cached=True)
        return self._artifacts.make(lambda: self._compile(candidate, plan, key))

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Build several candidates, as many at once as there are cores; by identity."""
        return build_side_by_side(self.build, candidates)

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """An interpreter with torch and Triton loaded, which makes tensors of device memory.

        Raises:
            HarnessError: our own part of it cannot be built.
        """
        toolkit = find_toolkit()
        if toolkit is None:
            raise HarnessError(f"the clock of Triton kernels needs nvcc: {MISSING}")
        python = interpreter(_PACKAGES)
        compiler = next((t for t in self.toolchains if t.name.startswith("g++")), None)
        compiler = compiler or self.toolchains[0]
        library = build_cuda_python_runtime(toolkit, compiler, self.architecture or "")
        programs = published_programs(*_PROGRAMS)
        places = {"paths": python.paths, "withheld": WITHHELD, "device": str(programs[1].parent)}
        server = (str(python.program), "-I", "-S", "-B", str(programs[0]), str(library))
        server = (*server, json.dumps(places))
        command = (*server, json.dumps(call_facts(signature, dtype)))
        driver = tuple(library_files())
        folders = dict.fromkeys(str(path.parent) for path in driver)
        visible = (*programs, library, *python.library, *python.packages, *driver)
        environment = {
            "KERNELWRIGHT_CAPABILITY": (self.architecture or "")[3:].rstrip("af"),
            "CUDA_CACHE_DISABLE": "1",
            "LD_LIBRARY_PATH": ":".join(folders),
        }
        return Host(
            command, build_clock(compiler), visible, python.hidden, FrozenMap(environment),
            server, tuple(device_files()), rehearses=True,
        )  # fmt: skip

    def _plan(self, candidate: Candidate) -> "TrialCall | Rejected | None":
        """The trial call, or why the candidate cannot be built."""
        missing = self.available()
        if missing:
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, missing)
        wrong = misnamed(candidate.tunables)
        if wrong is not None:
            return wrong
        try:
            broken = broken_rule(candidate.source) if self.inspects else None
            if broken is not None:
                return Rejected(Stage.BUILD, Reason.UNSAFE_LIBRARY, broken)
            return parse_call(candidate.source)
        except SyntaxError as error:
            text = f"line {error.lineno}: {error.msg}: {(error.text or '').strip()}"
            return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, f"SyntaxError: {text}")
        except CandidateError as error:
            return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, str(error))

    def _key(self, candidate: Candidate) -> str:
        versions, tunables = (
            interpreter(_PACKAGES).versions,
            dict(sorted(candidate.tunables.items())),
        )
        named = (self.architecture or "", candidate.entry, candidate.source, json.dumps(tunables))
        return content_hash("triton 1", *versions, *named)

    def _compile(
        self, candidate: Candidate, call: TrialCall | None, key: str
    ) -> Artifact | Rejected:
        tunables = dict(sorted(candidate.tunables.items()))
        with self._artifacts.scratch() as scratch:
            folder = Path(scratch)
            log, seconds = "no '# @call' line: nothing was compiled ahead of time", 0.0
            if call is not None:
                outcome = self._trial(candidate, call, folder)
                log, seconds = diagnostics(outcome, folder, _MOST_WORDS), outcome.seconds
                if outcome.code is None:
                    slow = f"compiling was stopped after {self.timeout_s:g} s\n{log}"
                    return Rejected(Stage.BUILD, Reason.COMPILE_TIMEOUT, slow.strip())
                if outcome.code == _NO_KERNEL:
                    self._artifacts.blame(folder / "kernel.py")
                    return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, without_resources(log))
                if outcome.code != 0:
                    log = f"the trial call could not be finished without a GPU:\n{log}"
            built = folder / _ARTIFACT
            built.write_text(json.dumps({"source": candidate.source, "tunables": tunables}))
            entry = self._artifacts.publish(key, built, seconds, log)
        return self._artifact(candidate, key, entry, cached=False)

    def _trial(self, candidate: Candidate, call: TrialCall, folder: Path) -> Outcome:
        """Make the trial call in a process of its own that sees no GPU."""
        (folder / "kernel.py").write_text(candidate.source, encoding="utf-8", newline="")
        keywords = {**call.values, **candidate.tunables}
        tensors = [[name, shape, str(dtype)] for name, shape, dtype in call.tensors]
        text = {"entry": candidate.entry, "tensors": tensors, "keywords": keywords}
        (folder / "call.json").write_text(json.dumps(text))
        python, programs = interpreter(_PACKAGES), published_programs(*_PROGRAMS)
        command = [str(python.program), "-I", "-S", "-B", str(programs[3])]
        command += [json.dumps(python.paths), self.architecture or ""]
        view = View(
            read_only=(*python.library, python.program, *python.packages, *programs),
            hidden=python.hidden, writable=(folder,), system=True, folder=folder,
        )  # fmt: skip
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HOME": "/tmp"}
        return run_confined(command, view, self.timeout_s, _MEMORY_BYTES, environment)

    def _artifact(self, candidate: Candidate, key: str, entry: Entry, cached: bool) -> Artifact:
        python = interpreter(_PACKAGES)
        threads = len(os.sched_getaffinity(0))
        versions = ", ".join(python.versions)
        return Artifact(
            path=self._artifacts.path(key),
            candidate=candidate.identity,
            key=key,
            toolchain=Toolchain("triton", str(python.program), versions, "torch", threads),
            seconds=entry.seconds,
            cached=cached,
            log=without_resources(entry.log),
            binary_hash=entry.binary_hash,
            language="triton",
            resources=parse_resources(entry.log),
        )
