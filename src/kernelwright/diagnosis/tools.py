"""Programs of others that look at kernels: where they are, and how they are run."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from kernelwright.build import find_toolkit
from kernelwright.sandbox import View, real_paths, run_confined

_DISASSEMBLY_S = 30.0
_OF_THE_SYSTEM = (Path("/"), Path("/usr"), Path("/usr/local"))
"""Whose programs and libraries compilers and tools see anyway."""


def find_tool(name: str) -> str | None:
    """`cuobjdump`, `ncu`, `compute-sanitizer`, `objdump`: on the PATH or in the toolkit."""
    found = shutil.which(name)
    toolkit = find_toolkit()
    if found is None and toolkit is not None:
        found = shutil.which(name, path=str(toolkit.top / "bin"))
    return os.path.abspath(found) if found else None


def places_of(tool: str) -> tuple[Path, ...]:
    """Folders that NVIDIA's tools need, beside those of the system."""
    toolkit = find_toolkit()
    tops = [Path(path).parent.parent for path in (tool, os.path.realpath(tool))]
    wanted = [*(top for top in tops if top not in _OF_THE_SYSTEM), Path("/opt/nvidia")]
    wanted += [*Path("/usr/local").glob("cuda*"), *([toolkit.top] if toolkit else [])]
    return real_paths(wanted)


def disassemble(tool: str, options: Sequence[str], library: Path) -> str | None:
    """What a disassembler says about a library, which may be hostile; None: it failed.

    Args:
        tool: its path.
        options: before the library's name.
        library: a built kernel.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = View(
            read_only=real_paths([library, *places_of(tool)]),
            writable=(folder,),
            system=True,
            folder=folder,
        )
        command = ["/bin/sh", "-c", 'exec "$@" > said', "sh", tool, *options, str(library)]
        outcome = run_confined(command, view, _DISASSEMBLY_S)
        said = folder / "said"
        return said.read_text(errors="replace") if outcome.code == 0 else None
