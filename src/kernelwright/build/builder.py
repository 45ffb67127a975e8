"""Building C++ candidates: flags, cache, limits, and the compiler's words when it fails."""

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kernelwright.build.artifact import Artifact
from kernelwright.build.artifacts import ArtifactCache, Entry
from kernelwright.build.compilers import (
    BASE_FLAGS,
    DEFAULT_FLAGS,
    PROBE_SOURCE,
    compile_in,
    diagnostics,
    error_limit,
)
from kernelwright.build.header import include_folder
from kernelwright.build.inspection import inspect, load_code
from kernelwright.build.protocol import build_side_by_side
from kernelwright.build.runtime import build_clock, build_runtime
from kernelwright.errors import HarnessError
from kernelwright.model import (
    Candidate,
    Dtype,
    Host,
    Reason,
    Rejected,
    Signature,
    Stage,
    Toolchain,
    content_hash,
)

_FLAG = re.compile(
    r"-(O\w*|m[\w=+.,-]+|f[\w=+.,:-]+|W(?![lpa],)[\w=+-]*|D\w+(=[\w.]+)?|U\w+|std=[\w+]+|pthread)"
)
_FORBIDDEN_FLAG = re.compile(r"plugin|module|-fdump|-fuse-ld|-save-temps")
_MACRO = re.compile(r"[A-Za-z_]\w*")
_LIBRARY = "kernel.so"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that decides the binary of one candidate."""

    candidate: Candidate
    toolchain: Toolchain
    flags: tuple[str, ...]
    macros: tuple[str, ...]
    key: str


@lru_cache(maxsize=1)
def _isa() -> str:
    """What `-march=native` may depend on: the CPU's name and flags as the kernel reports them."""
    wanted = ("model name", "flags", "Features", "CPU part")
    with open("/proc/cpuinfo") as lines:
        facts = {line.strip() for line in lines if line.partition(":")[0].strip() in wanted}
    return "\n".join(sorted(facts))


def _flags(text: str) -> tuple[str, ...] | str:
    """The flags as arguments, or a sentence about the one that is not allowed."""
    try:
        flags = tuple(shlex.split(text))
    except ValueError as error:
        return f"FLAGS cannot be split into arguments: {error}"
    for flag in flags:
        if not _FLAG.fullmatch(flag) or _FORBIDDEN_FLAG.search(flag):
            return f"the flag '{flag}' is not allowed; FLAGS may hold -O, -m, -f, -W, -D, -std"
    return flags


class CppBuilder:
    """Builds C++ candidates into shared libraries, in a cache that is keyed by everything.

    Args:
        toolchains: Compilers that may be used; the first is the default of `CXX`.
        cache: Folder of the artifacts; made when missing; may be shared between processes.
        timeout_s: Longest compilation of one candidate.
        inspects: Reject libraries that `inspection` finds fault with; off only to test what else
            withstands them.
    """

    def __init__(
        self,
        toolchains: Sequence[Toolchain],
        cache: Path,
        timeout_s: float = 60.0,
        inspects: bool = True,
    ) -> None:
        self.inspects = inspects
        self.toolchains = tuple(toolchains)
        self.cache = cache
        self.timeout_s = timeout_s
        self._artifacts = ArtifactCache(cache, _LIBRARY)
        self._header = (include_folder() / "kernelwright.h").read_text()
        self._probe = PROBE_SOURCE.read_text()

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        if self.toolchains:
            return None
        return (
            "no usable C++ compiler with OpenMP was found: "
            "install g++ 11 or newer, or clang++ 15 or newer with libomp"
        )

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        if candidate.language != "cpp":
            return f"this builder compiles C++, not {candidate.language}"
        plan = self._plan(candidate)
        return plan.diagnostic if isinstance(plan, Rejected) else None

    def key(self, candidate: Candidate) -> str | Rejected:
        """Hash of everything that decides the candidate's binary."""
        plan = self._plan(candidate)
        return plan if isinstance(plan, Rejected) else plan.key

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """Compile, link, cache and inspect one candidate.

        Raises:
            HarnessError: our own probe does not compile with a toolchain's default flags.
            MachineError: the cache cannot be written.
        """
        plan = self._plan(candidate)
        if isinstance(plan, Rejected):
            return plan
        built = self._cached(plan) or self._artifacts.make(lambda: self._compile(plan))
        return self._inspected(plan, built) if isinstance(built, Artifact) else built

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Build several candidates, as many at once as there are cores; by identity."""
        return build_side_by_side(self.build, candidates)

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """The native host, built by the artifact's compiler; the C ABI says the rest."""
        runtime = build_runtime(artifact.toolchain)
        return Host((str(runtime),), build_clock(artifact.toolchain))

    def _plan(self, candidate: Candidate) -> _Plan | Rejected:
        missing = self.available()
        if missing:
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, missing)
        values = dict(candidate.tunables)
        name = str(values.pop("CXX", self.toolchains[0].name))
        toolchain = next((t for t in self.toolchains if t.name == name), None)
        if toolchain is None:
            known = ", ".join(t.name for t in self.toolchains)
            text = f"CXX = {name} is not usable on this machine, which has {known}"
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, text)
        flags = _flags(str(values.pop("FLAGS", DEFAULT_FLAGS)))
        if isinstance(flags, str):
            return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, flags)
        for macro in values:
            if not _MACRO.fullmatch(macro):
                text = f"the tunable '{macro}' is not a name that the preprocessor takes"
                return Rejected(Stage.DECLARE, Reason.BAD_DECLARATION, text)
        macros = tuple(f"-D{k}={values[k]}" for k in sorted(values))
        parts = (candidate.source, self._header, self._probe, _isa(), *self._compiler(toolchain))
        key = content_hash("2", *parts, str(len(flags)), *flags, *macros)
        return _Plan(candidate, toolchain, flags, macros, key)

    @staticmethod
    def _compiler(toolchain: Toolchain) -> tuple[str, str, str]:
        try:
            stamp = str(os.stat(toolchain.path).st_mtime_ns)
        except OSError:
            stamp = "missing"
        return toolchain.path, toolchain.version, stamp

    def _cached(self, plan: _Plan) -> Artifact | None:
        entry = self._artifacts.find(plan.key)
        return None if entry is None else self._artifact(plan, entry, cached=True)

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
        )

    def _inspected(self, plan: _Plan, artifact: Artifact) -> Artifact | Rejected:
        """The artifact, unless it does what a library must not; cached ones are looked at too."""
        probe = self._artifacts.make(lambda: self._probe_object(plan))
        if isinstance(probe, Rejected) or not self.inspects:
            return artifact
        findings = inspect(artifact.path, load_code(probe.with_suffix(".so")))
        return Rejected(Stage.BUILD, Reason.UNSAFE_LIBRARY, findings) if findings else artifact

    def _compile(self, plan: _Plan) -> Artifact | Rejected:
        probe = self._probe_object(plan)
        if isinstance(probe, Rejected):
            return probe
        with self._artifacts.scratch() as scratch:
            folder = Path(scratch)
            (folder / "kernel.cpp").write_text(plan.candidate.source)
            shutil.copyfile(probe, folder / "probe.o")
            arguments = [*BASE_FLAGS, *plan.flags, error_limit(plan.toolchain), "-shared"]
            arguments += ["-Wl,-z,defs", "-Wl,--build-id=none", f"-I{include_folder()}"]
            arguments += [*plan.macros, "kernel.cpp", "probe.o", "-o", _LIBRARY]
            outcome = compile_in(folder, plan.toolchain.path, arguments, self.timeout_s)
            text = diagnostics(outcome, folder)
            if outcome.code is None:
                slow = f"the compiler was stopped after {self.timeout_s:g} s\n{text}"
                return Rejected(Stage.BUILD, Reason.COMPILE_TIMEOUT, slow.strip())
            library = folder / _LIBRARY
            if outcome.code != 0 or library.is_symlink() or not library.is_file():
                self._artifacts.blame(folder / "kernel.cpp")
                text = text or f"the compiler ended with status {outcome.code} and said nothing"
                return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, text)
            entry = self._artifacts.publish(plan.key, library, outcome.seconds, text)
        return self._artifact(plan, entry, cached=False)

    def _probe_object(self, plan: _Plan) -> Path | Rejected:
        """The thread probe compiled with the candidate's compiler and flags.

        Beside it lies a library of nothing else, which shows what the toolchain itself adds.
        """
        compiler = self._compiler(plan.toolchain)
        key = content_hash("probe", self._probe, _isa(), *compiler, *plan.flags)
        path = self.cache / "probes" / f"{key}.o"
        if path.is_file() and path.with_suffix(".so").is_file():
            return path
        with self._artifacts.scratch() as scratch:
            folder = Path(scratch)
            flags = [*BASE_FLAGS, *plan.flags]
            shutil.copyfile(PROBE_SOURCE, folder / "probe.cpp")
            arguments = [*flags, "-c", "probe.cpp", "-o", "probe.o"]
            outcome = compile_in(folder, plan.toolchain.path, arguments, self.timeout_s)
            if outcome.code == 0:
                arguments = [*flags, "-shared", "probe.o", "-o", "probe.so"]
                outcome = compile_in(folder, plan.toolchain.path, arguments, self.timeout_s)
            if outcome.code != 0:
                self._artifacts.blame(folder / "probe.cpp")
                text = diagnostics(outcome, folder)
                if " ".join(plan.flags) == DEFAULT_FLAGS:
                    raise HarnessError(f"the thread probe does not compile: {text}")
                message = f"FLAGS = {' '.join(plan.flags)} cannot be compiled: {text}"
                return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, message)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder / "probe.so", path.with_suffix(".so"))
            os.replace(folder / "probe.o", path)
        return path
