"""Running a compiler: what it may see, and how long it may take."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernelwright.build.header import include_folder
from kernelwright.model import Toolchain
from kernelwright.sandbox import Outcome, View, compiler_prefix, real_paths, run_confined

BASE_FLAGS = ("-std=c++17", "-fPIC", "-fopenmp")
DEFAULT_FLAGS = "-O3 -march=native"
PROBE_SOURCE = Path(__file__).parent / "probe.cpp"
_PLACE = re.compile(
    r"(?:In file included from |\s+from )?([^\s:(][^:(]*)"
    r"(?::(?:\d+|\s*Assembler messages)|\(\d+\):)"
)
_KNOWN_FILE = re.compile(
    r"/usr/(local/)?(include|lib/(gcc|llvm|clang)[^/]*)/|/usr/local/cuda[^/]*/|/tmp/[\w-]+\.s$"
)
_WORDS_OF_FAILURE = ("virtual memory exhausted", "out of memory", "Killed signal")


def compile_in(
    folder: Path,
    toolchain_path: str,
    arguments: Sequence[str],
    timeout_s: float,
    more: Sequence[Path] = (),
) -> Outcome:
    """Run the compiler in `folder`, the only place where it can write; it sees `more` as well."""
    own = [include_folder(), PROBE_SOURCE.parent]
    readable = real_paths([*compiler_prefix(toolchain_path), *own, *more])
    view = View(read_only=readable, writable=(folder,), system=True, folder=folder)
    return run_confined([toolchain_path, *arguments], view, timeout_s)


def diagnostics(outcome: Outcome, folder: Path, limit: int = 4000) -> str:
    """The compiler's words without paths of this machine, clipped to `limit` characters.

    What it says about files other than the candidate's, our header and the compilers' own is left
    out: compilers quote the lines that they read, whatever file a candidate makes them read.
    """
    text = outcome.output.replace(f"{include_folder()}/", "").replace(f"{folder}/", "").strip()
    text = "\n".join(_without_foreign_files(text.splitlines()))
    if len(text) > limit:
        text = f"{text[: limit * 3 // 4]}\n[… clipped …]\n{text[-limit // 4 :]}"
    if any(words in text for words in _WORDS_OF_FAILURE):
        text += "\nThe compiler ran out of the memory that it may use."
    return text


def _without_foreign_files(lines: Sequence[str]) -> Iterator[str]:
    """Messages begin with a file and a line; what follows indented belongs to them."""
    foreign, said = False, False
    for line in lines:
        place = _PLACE.match(line)
        if place:
            foreign = "/" in place[1] and not _KNOWN_FILE.match(os.path.normpath(place[1]))
        elif not line[:1].isspace():
            foreign = False
        if not foreign:
            yield line
        elif not said:
            said = True
            yield "[what is said about a file that is not the candidate's is not shown]"


def error_limit(toolchain: Toolchain) -> str:
    """The flag that stops the compiler after a few errors."""
    return "-ferror-limit=10" if "clang" in toolchain.version.lower() else "-fmax-errors=10"
