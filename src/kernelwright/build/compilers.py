"""Running a compiler: what it may see, and how long it may take."""

import os
from collections.abc import Sequence
from pathlib import Path

from kernelwright.build.header import include_folder
from kernelwright.model import Toolchain
from kernelwright.sandbox import Outcome, View, real_paths, run_confined

BASE_FLAGS = ("-std=c++17", "-fPIC", "-fopenmp")
DEFAULT_FLAGS = "-O3 -march=native"
PROBE_SOURCE = Path(__file__).parent / "probe.cpp"
_WORDS_OF_FAILURE = ("virtual memory exhausted", "out of memory", "Killed signal")


def compiler_prefix(path: str) -> tuple[Path, ...]:
    """Folders outside /usr that the compiler at `path` needs, such as a conda environment."""
    prefixes = {Path(p).parent.parent for p in (os.path.abspath(path), os.path.realpath(path))}
    home = Path.home()
    outside = [p for p in prefixes if p.parts[1:2] not in (("usr",), ("bin",), ())]
    return tuple(p for p in outside if p != home and p not in home.parents)


def compile_in(
    folder: Path, toolchain_path: str, arguments: Sequence[str], timeout_s: float
) -> Outcome:
    """Run the compiler in `folder`, the only place where it can write."""
    readable = real_paths([*compiler_prefix(toolchain_path), include_folder(), PROBE_SOURCE.parent])
    view = View(read_only=readable, writable=(folder,), system=True, folder=folder)
    return run_confined([toolchain_path, *arguments], view, timeout_s)


def diagnostics(outcome: Outcome, folder: Path, limit: int = 4000) -> str:
    """The compiler's words without paths of this machine, clipped to `limit` characters."""
    text = outcome.output.replace(f"{include_folder()}/", "").replace(f"{folder}/", "").strip()
    if len(text) > limit:
        text = f"{text[: limit * 3 // 4]}\n[… clipped …]\n{text[-limit // 4 :]}"
    if any(words in text for words in _WORDS_OF_FAILURE):
        text += "\nThe compiler ran out of the memory that it may use."
    return text


def error_limit(toolchain: Toolchain) -> str:
    """The flag that stops the compiler after a few errors."""
    return "-ferror-limit=10" if "clang" in toolchain.version.lower() else "-fmax-errors=10"
