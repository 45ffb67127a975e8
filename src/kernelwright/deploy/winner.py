"""Writes the winner as files that can be shipped."""

import hashlib
import platform
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelwright.build import find_toolkit, for_architecture, include_folder
from kernelwright.build.compilers import BASE_FLAGS, DEFAULT_FLAGS
from kernelwright.deploy.operator import OperatorText, render_operator
from kernelwright.deploy.source import bound_python_source, bound_source
from kernelwright.errors import MachineError
from kernelwright.model import Candidate, Dtype, Machine, PublicProblem, Toolchain
from kernelwright.problems import ProblemReference

_TILES = re.compile(r"\b(_tile_\w+|__tile_\w+|ldtilecfg)\b")
"""What a source that uses the matrix unit (AMX) cannot do without."""


@dataclass(frozen=True, slots=True)
class WinnerFiles:
    """What `write_winner` wrote."""

    source: Path
    """`best.cpp` or `best.cu`: compiles by the command in its head."""
    header: Path
    operator: Path
    """`best.py`."""
    reference: Path
    """The reference's file, for what the kernel cannot take."""
    library: Path | None
    """`libbest.so`."""


def write_winner(
    folder: Path,
    candidate: Candidate,
    public: PublicProblem,
    dtype: Dtype,
    reference: ProblemReference,
    machine: Machine,
    library: Path | None = None,
    evidence: Sequence[str] = (),
) -> WinnerFiles:
    """Write `best.cpp` (or `.cu`), `kernelwright.h`, `best.py`, the reference and the library.

    Args:
        folder: made when missing; files of an earlier winner are replaced.
        candidate: the winner, in C++ or CUDA C++.
        public: the problem; its name becomes the function's name.
        dtype: the element type that the kernel was built and judged for.
        reference: where the reference is written; its file is copied.
        machine: where it was judged; holds the compiler that built it.
        library: the judged library, to be shipped beside; None: compile at the first import.
        evidence: sentences for the head of both files, such as the measured speed-up.

    Raises:
        ProblemError: the sizes do not follow from the shapes of the inputs.
        MachineError: the machine lacks the compiler that the candidate names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gpu = candidate.language == "cuda"
    files = WinnerFiles(
        source=folder / ("best.cu" if gpu else "best.cpp"),
        header=folder / "kernelwright.h",
        operator=folder / "best.py",
        reference=folder / f"reference{Path(reference.path).suffix}",
        library=None if library is None else folder / "libbest.so",
    )
    toolchain, flags = (_how_built_for_gpu if gpu else _how_built)(candidate, machine)
    fits = None if machine.gpu is None else machine.gpu.architecture
    target = [for_architecture(fits)] if gpu and fits else []
    command = [toolchain.name, *flags, *target, files.source.name, "-o", "libbest.so"]
    place = machine.cpu if not gpu or machine.gpu is None else machine.gpu.name
    headline = f"{public.name} in {dtype}: {candidate.family or 'a kernel'}, by kernelwright."
    notes = [headline, *evidence, f"Judged as built by {toolchain.version} on {place}."]
    source = bound_source(candidate, notes, command)
    text = OperatorText(
        entry=candidate.entry,
        headline=headline,
        evidence=tuple(evidence),
        compiler=toolchain.path,
        flags=flags,
        key=candidate.identity[:12],
        reference_file=files.reference.name,
        reference_name=reference.function or public.name,
        matrix_unit=bool(_TILES.search(candidate.source)),
        shipped_isa=None if library is None else fits if gpu else isa_fingerprint(),
        gpu=gpu,
    )
    operator = render_operator(public, dtype, text)
    files.source.write_text(source)
    _copy(include_folder() / "kernelwright.h", files.header)
    _copy(Path(reference.path), files.reference)
    if library is None:
        (folder / "libbest.so").unlink(missing_ok=True)
    else:
        _copy(library, folder / "libbest.so")
    files.operator.write_text(operator)
    return files


def write_source(folder: Path, candidate: Candidate, evidence: Sequence[str] = ()) -> Path:
    """Write a winner in Python without an operator, its tunables bound: `best_kernel.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = [f"{candidate.family or 'A kernel'}, judged by kernelwright.", *evidence]
    path = folder / "best_kernel.py"
    path.write_text(bound_python_source(candidate, notes))
    return path


def _how_built(candidate: Candidate, machine: Machine) -> tuple[Toolchain, tuple[str, ...]]:
    """The compiler and every flag, without the macros of the tunables."""
    named = candidate.tunables.get("CXX")
    chosen = [t for t in machine.toolchains if named is None or t.name == named]
    if not chosen:
        raise MachineError(f"the compiler '{named or 'g++'}' of the winner is not on this machine")
    flags = str(candidate.tunables.get("FLAGS", DEFAULT_FLAGS))
    return chosen[0], (*BASE_FLAGS, "-shared", *shlex.split(flags))


def _how_built_for_gpu(candidate: Candidate, machine: Machine) -> tuple[Toolchain, tuple[str, ...]]:
    """The same of CUDA C++, without the architecture; the runtime library comes along."""
    toolkit = find_toolkit()
    if toolkit is None:
        raise MachineError(f"nvcc, which built the winner, is not on this machine: {machine.name}")
    flags = shlex.split(str(candidate.tunables.get("FLAGS", "-O3")))
    standard = () if any(flag.startswith("-std=") for flag in flags) else ("-std=c++17",)
    return toolkit.toolchain, ("-shared", "-Xcompiler=-fPIC", *standard, *flags)


def _copy(source: Path, target: Path) -> None:
    """Copy under a new inode: a process may have the old library mapped."""
    if source.resolve() == target.resolve():
        return
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def isa_fingerprint() -> str:
    """Fingerprint of this machine's instruction set, as `best.py` takes it."""
    flags: list[str] = []
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        first = next((line for line in lines if line.startswith(("flags", "Features"))), "")
        flags = sorted(first.partition(":")[2].split())
    except OSError:
        pass
    return hashlib.sha256(" ".join([platform.machine(), *flags]).encode()).hexdigest()[:16]
