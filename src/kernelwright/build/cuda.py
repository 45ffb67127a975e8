"""Building CUDA C++ candidates with nvcc: one architecture, one shared library, no framework."""

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelwright.build.artifact import Artifact
from kernelwright.build.artifacts import ArtifactCache, Entry
from kernelwright.build.compilers import diagnostics
from kernelwright.build.header import include_folder
from kernelwright.build.inspection import LoadCode, inspect, load_code
from kernelwright.build.nvcc import (
    ARCHITECTURE_VARIABLE,
    MISSING,
    Toolkit,
    default_architecture,
    find_toolkit,
    for_architecture,
)
from kernelwright.build.protocol import build_side_by_side
from kernelwright.build.ptxas import parse_resources, without_resources
from kernelwright.build.runtime import build_clock, build_cuda_runtime
from kernelwright.cuda_driver import device_files, library_files
from kernelwright.errors import HarnessError
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

DEFAULT_FLAGS = "-O3"
_LIBRARY = "kernel.so"
_SOURCE = "kernel.cu"
_MOST_WORDS = 1 << 16
"""Characters of the assembler's account that are kept; a kernel takes about 300."""
_FLAG = re.compile(
    r"-O[0-3]|-D\w+(=[\w.]+)?|-U\w+|-std=c\+\+(17|20)|-lineinfo|--?use_fast_math"
    r"|--?(ftz|prec-div|prec-sqrt|fmad)=(true|false)|--?maxrregcount=\d+"
    r"|--?(expt-relaxed-constexpr|expt-extended-lambda|extra-device-vectorization|restrict)"
)
_MACRO = re.compile(r"[A-Za-z_]\w*")
_NOTHING = '__global__ void nothing() {}\nextern "C" void f() { nothing<<<1, 1>>>(); }\n'
"""A library with one kernel: shows what nvcc itself runs when a library is loaded."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that decides the binary of one candidate."""

    candidate: Candidate
    toolkit: Toolkit
    flags: tuple[str, ...]
    """Of nvcc, the architecture's and the macros included."""
    key: str


class CudaBuilder:
    """Builds CUDA C++ candidates into shared libraries, in a cache that is keyed by everything.

    Args:
        toolchains: C++ compilers: g++ compiles the host's part and the worker.
        cache: Folder of the artifacts; made when missing; may be shared between processes.
        architecture: such as `sm_90a`; default: that of the GPU here, or of the environment.
        timeout_s: Longest compilation of one candidate.
        inspects: Reject libraries that `inspection` finds fault with.
    """

    def __init__(
        self,
        toolchains: Sequence[Toolchain],
        cache: Path,
        architecture: str | None = None,
        timeout_s: float = 120.0,
        inspects: bool = True,
    ) -> None:
        self.toolchains = tuple(toolchains)
        self.cache = cache
        self.timeout_s = timeout_s
        self.inspects = inspects
        self._architecture = architecture
        self._artifacts = ArtifactCache(cache, _LIBRARY)
        self._header = (include_folder() / "kernelwright.h").read_text()

    @property
    def architecture(self) -> str | None:
        """What it compiles for; None: nobody said."""
        return self._architecture or default_architecture()

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        toolkit = find_toolkit()
        if toolkit is None:
            return MISSING
        if not self.toolchains:
            return "CUDA C++ needs a C++ compiler beside nvcc: install g++ 11 or newer"
        if self.architecture is None:
            return (
                "there is no NVIDIA GPU here to compile for: name an architecture, such as "
                f"{ARCHITECTURE_VARIABLE}=sm_90a"
            )
        return toolkit.refuses(self.architecture)

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        if candidate.language != "cuda":
            return f"this builder compiles CUDA C++, not {candidate.language}"
        plan = self._plan(candidate)
        return plan.diagnostic if isinstance(plan, Rejected) else None

    def key(self, candidate: Candidate) -> str | Rejected:
        """Hash of everything that decides the candidate's binary."""
        plan = self._plan(candidate)
        return plan if isinstance(plan, Rejected) else plan.key

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """Compile, link, cache and inspect one candidate.

        Raises:
            HarnessError: nvcc does not compile a kernel of our own.
            MachineError: the cache cannot be written.
        """
        plan = self._plan(candidate)
        if isinstance(plan, Rejected):
            return plan
        entry = self._artifacts.find(plan.key)
        if entry is not None:
            built: Artifact | Rejected = self._artifact(plan, entry, cached=True)
        else:
            built = self._artifacts.make(lambda: self._compile(plan))
        if isinstance(built, Rejected) or not self.inspects:
            return built
        findings = inspect(built.path, self._usual(plan.toolkit), gpu=True)
        return Rejected(Stage.BUILD, Reason.UNSAFE_LIBRARY, findings) if findings else built

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Build several candidates, as many at once as there are cores; by identity."""
        return build_side_by_side(self.build, candidates)

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """The native host, built by nvcc; the C ABI says the rest."""
        toolkit = find_toolkit()
        if toolkit is None:
            raise HarnessError(MISSING)
        return cuda_host(toolkit, self._host_compiler(), self.architecture or "")

    def _plan(self, candidate: Candidate) -> _Plan | Rejected:
        missing, toolkit = self.available(), find_toolkit()
        if missing or toolkit is None:
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, missing or MISSING)
        values = dict(candidate.tunables)
        name = values.pop("CXX", "nvcc")
        if name != "nvcc":
            text = f"CXX = {name} does not compile CUDA C++: only nvcc does"
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, text)
        flags = _flags(str(values.pop("FLAGS", DEFAULT_FLAGS)))
        if isinstance(flags, str):
            return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, flags)
        for macro in values:
            if not _MACRO.fullmatch(macro):
                text = f"the tunable '{macro}' is not a name that the preprocessor takes"
                return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, text)
        flags += (for_architecture(self.architecture or ""),)
        flags += tuple(f"-D{k}={values[k]}" for k in sorted(values))
        compilers = (*_compiler(toolkit.toolchain), *_compiler(self._host_compiler()))
        key = content_hash("cuda 1", candidate.source, self._header, *compilers, *flags)
        return _Plan(candidate, toolkit, flags, key)

    def _host_compiler(self) -> Toolchain:
        return first_gnu(self.toolchains)

    def _arguments(self, flags: Sequence[str]) -> list[str]:
        """What every build passes to nvcc; names are made from a seed, so that equal is equal."""
        if not any(flag.startswith("-std=") for flag in flags):
            flags = ("-std=c++17", *flags)
        return [
            *flags, "-shared", "-cudart=shared", "-frandom-seed=1", "-Xptxas=-v",
            f"-ccbin={self._host_compiler().path}", "-Xcompiler=-fPIC", "-Xlinker=-z,defs",
            "-Xlinker=--build-id=none", f"-I{include_folder()}",
        ]  # fmt: skip

    def _compile(self, plan: _Plan) -> Artifact | Rejected:
        with self._artifacts.scratch() as scratch:
            folder = Path(scratch)
            (folder / _SOURCE).write_text(plan.candidate.source)
            arguments = [*self._arguments(plan.flags), _SOURCE, "-o", _LIBRARY]
            outcome = plan.toolkit.run(folder, arguments, self.timeout_s)
            words = diagnostics(outcome, folder, _MOST_WORDS)
            if outcome.code is None:
                slow = f"the compiler was stopped after {self.timeout_s:g} s\n{_said(words)}"
                return Rejected(Stage.BUILD, Reason.COMPILE_TIMEOUT, slow.strip())
            library = folder / _LIBRARY
            if outcome.code != 0 or library.is_symlink() or not library.is_file():
                self._artifacts.blame(folder / _SOURCE)
                text = _said(words) or f"nvcc ended with status {outcome.code} and said nothing"
                return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, text)
            entry = self._artifacts.publish(plan.key, library, outcome.seconds, words)
        return self._artifact(plan, entry, cached=False)

    def _usual(self, toolkit: Toolkit) -> LoadCode:
        """What nvcc puts into every library that holds a kernel."""
        compilers = (*_compiler(toolkit.toolchain), *_compiler(self._host_compiler()))
        path = self.cache / "probes" / f"{content_hash('cuda', _NOTHING, *compilers)}.so"
        if path.is_file():
            return load_code(path)
        return self._artifacts.make(lambda: self._build_usual(toolkit, path))

    def _build_usual(self, toolkit: Toolkit, path: Path) -> LoadCode:
        with self._artifacts.scratch() as scratch:
            folder = Path(scratch)
            (folder / _SOURCE).write_text(_NOTHING)
            arguments = [*self._arguments(["-O3"]), _SOURCE, "-o", _LIBRARY]
            outcome = toolkit.run(folder, arguments, self.timeout_s)
            if outcome.code != 0:
                self._artifacts.blame(folder / _SOURCE)
                text = diagnostics(outcome, folder)
                raise HarnessError(f"{toolkit.version} does not compile an empty kernel: {text}")
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / _LIBRARY, path)
        return load_code(path)

    def _artifact(self, plan: _Plan, entry: Entry, cached: bool) -> Artifact:
        return Artifact(
            path=self._artifacts.path(plan.key),
            candidate=plan.candidate.identity,
            key=plan.key,
            toolchain=plan.toolkit.toolchain,
            seconds=entry.seconds,
            cached=cached,
            log=_said(entry.log),
            binary_hash=entry.binary_hash,
            language="cuda",
            resources=parse_resources(entry.log),
        )


def cuda_host(
    toolkit: Toolkit, toolchain: Toolchain, architecture: str, source: str = "cuda_host.cu"
) -> Host:
    """How a worker runs a CUDA artifact: it sees the driver and the GPU's device files too.

    Args:
        toolkit: has nvcc.
        toolchain: compiles the host's part.
        architecture: what its own kernels are compiled for.
        source: the program; see `build_cuda_runtime`.
    """
    program = build_cuda_runtime(toolkit, toolchain, architecture, source=source)
    libraries = tuple(library_files())
    return Host(
        (str(program),),
        build_clock(toolchain),
        visible=libraries,
        devices=tuple(device_files()),
        environment=FrozenMap(
            {
                "CUDA_MODULE_LOADING": "EAGER",  # nothing is loaded inside a timed call
                "CUDA_CACHE_DISABLE": "1",
                "LD_LIBRARY_PATH": ":".join(dict.fromkeys(str(p.parent) for p in libraries)),
            }
        ),
    )


def solo_host(toolchains: Sequence[Toolchain], architecture: str) -> Host | None:
    """The program that runs one CUDA artifact alone (`worker/solo.cu`); None without a toolkit."""
    toolkit = find_toolkit()
    if toolkit is None or not toolchains:
        return None
    return cuda_host(toolkit, first_gnu(toolchains), architecture, "solo.cu")


def first_gnu(toolchains: Sequence[Toolchain]) -> Toolchain:
    """The first g++, which nvcc knows best; else the first."""
    return next((t for t in toolchains if t.name.startswith("g++")), toolchains[0])


def _said(log: str, limit: int = 4000) -> str:
    text = without_resources(log)
    return text if len(text) <= limit else f"{text[:limit]}\n[… clipped …]"


def _compiler(toolchain: Toolchain) -> tuple[str, str, str]:
    try:
        stamp = str(os.stat(toolchain.path).st_mtime_ns)
    except OSError:
        stamp = "missing"
    return toolchain.path, toolchain.version, stamp


def _flags(text: str) -> tuple[str, ...] | str:
    """The flags as arguments, or a sentence about the one that is not allowed."""
    try:
        flags = tuple(shlex.split(text))
    except ValueError as error:
        return f"FLAGS cannot be split into arguments: {error}"
    for flag in flags:
        if not _FLAG.fullmatch(flag):
            return (
                f"the flag '{flag}' is not allowed; FLAGS of CUDA C++ may hold -O, -D, -U, -std, "
                "-use_fast_math, -ftz, -prec-div, -prec-sqrt, -fmad and -maxrregcount"
            )
    return flags
