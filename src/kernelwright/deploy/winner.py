"""Writes the winner as files that can be shipped."""

import hashlib
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernelwright.deploy.operator import OperatorText, render_operator
from kernelwright.deploy.source import bound_source
from kernelwright.model import Candidate, Dtype, PublicProblem
from kernelwright.problems import ProblemReference


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """How the judged library was built, without the macros of the tunables."""

    compiler: str
    """Path of the compiler."""
    version: str
    flags: tuple[str, ...]
    """Every flag, such as `-std=c++17`, `-shared`, `-O3`; no `-D`, no `-I`, no file."""
    header: Path
    """The `kernelwright.h` that it was built with."""
    library: Path | None = None
    """The judged shared library, to be shipped beside; None: compile at the first import."""


@dataclass(frozen=True, slots=True)
class WinnerFiles:
    """What `write_winner` wrote."""

    source: Path
    """`best.cpp`: compiles by the command in its head."""
    header: Path
    operator: Path
    """`best.py`."""
    reference: Path
    """The reference's file, for what the kernel cannot take."""
    library: Path | None
    """`best.so`."""


def write_winner(
    folder: Path,
    candidate: Candidate,
    public: PublicProblem,
    dtype: Dtype,
    reference: ProblemReference,
    build: BuildRecord,
    evidence: Sequence[str] = (),
) -> WinnerFiles:
    """Write `best.cpp`, `kernelwright.h`, `best.py`, the reference and the library.

    Args:
        folder: made when missing; files of an earlier winner are replaced.
        candidate: the winner, in C++.
        public: the problem; its name becomes the function's name.
        dtype: the element type that the kernel was built and judged for.
        reference: where the reference is written; its file is copied.
        build: how the judged library was made.
        evidence: sentences for the head of both files, such as the measured speed-up.

    Raises:
        ProblemError: the sizes do not follow from the shapes of the inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copied = folder / f"reference{Path(reference.path).suffix}"
    if Path(reference.path).resolve() != copied.resolve():
        shutil.copyfile(reference.path, copied)
    files = WinnerFiles(
        source=folder / "best.cpp",
        header=folder / "kernelwright.h",
        operator=folder / "best.py",
        reference=copied,
        library=None if build.library is None else folder / "best.so",
    )
    command = [build.compiler, *build.flags, "best.cpp", "-o", "best.so"]
    headline = f"{public.name} in {dtype}: {candidate.family or 'a kernel'}, by kernelwright."
    source = bound_source(candidate, [headline, *evidence, f"Compiler: {build.version}"], command)
    text = OperatorText(
        entry=candidate.entry,
        headline=headline,
        evidence=tuple(evidence),
        compiler=build.compiler,
        flags=build.flags,
        key=candidate.identity[:12],
        reference_file=copied.name,
        reference_name=reference.function or public.name,
        shipped_isa=None if build.library is None else isa_fingerprint(),
    )
    operator = render_operator(public, dtype, text)
    files.source.write_text(source)
    shutil.copyfile(build.header, files.header)
    if build.library is None:
        (folder / "best.so").unlink(missing_ok=True)
    else:
        _replace(build.library, folder / "best.so")
    files.operator.write_text(operator)
    return files


def _replace(source: Path, target: Path) -> None:
    """Copy under a new inode: a process may have the old library mapped."""
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
