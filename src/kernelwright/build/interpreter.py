"""This Python as Python candidates see it: the interpreter, its library, torch and numpy."""

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from kernelwright.sandbox import real_paths

PACKAGES = ("torch", "numpy", "numba")
"""What candidates may import beside the standard library, where installed."""
WITHHELD = ("kernelwright",)
"""What they may not import even where no sandbox hides it."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The interpreter that runs candidates, and the files that it needs."""

    program: Path
    """The real file, outside of any virtual environment."""
    versions: tuple[str, ...]
    """`python 3.12.4`, `torch 2.13.0`, ...: of the interpreter and of `PACKAGES`."""
    library: tuple[Path, ...]
    """Standard library and shared libraries."""
    packages: tuple[Path, ...]
    """Files and folders of `PACKAGES` and of everything that they require."""
    hidden: tuple[Path, ...]
    """Folders of packages inside `library`: what else is installed stays out of sight."""
    paths: tuple[str, ...]
    """Folders in which `packages` lie, for `sys.path`."""


@lru_cache(maxsize=2)
def interpreter(more: tuple[str, ...] = ()) -> Interpreter:
    """The running Python's; where it lies in a virtual environment, what that was made from.

    Args:
        more: packages beside `PACKAGES` that candidates may import.
    """
    offered = (*PACKAGES, *more)
    versions = [f"python {sys.version.split()[0]}"]
    found: list[Path] = []
    for distribution in _required(offered):
        name = distribution.metadata["Name"]
        if name in offered:
            versions.append(f"{name} {distribution.version}")
        found += _roots(distribution)
    packages = real_paths(found)
    multiarch = sysconfig.get_config_var("MULTIARCH") or "lib"
    folders = [f"/lib/{multiarch}", f"/usr/lib/{multiarch}", "/lib64", "/usr/lib64"]
    folders += [sysconfig.get_path("stdlib"), "/etc/ld.so.cache"]
    if sys.base_prefix != "/usr":
        folders.append(os.path.join(sys.base_prefix, "lib"))
    library = real_paths(folders)
    return Interpreter(
        program=Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)),
        versions=tuple(versions),
        library=library,
        packages=packages,
        hidden=real_paths(path for folder in library for path in _package_folders(folder)),
        paths=tuple(dict.fromkeys(str(path.parent) for path in packages)),
    )


def _package_folders(folder: Path) -> Iterator[Path]:
    for name in ("site-packages", "dist-packages"):
        yield folder / name
        yield from folder.glob(f"python*/{name}")


def _required(names: tuple[str, ...]) -> Iterator[metadata.Distribution]:
    """The installed ones of these packages and, over and over, of what they require."""
    waiting, seen = list(names), set[str]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop(0)).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        yield distribution
        for requirement in distribution.requires or ():
            match = re.match(r"[\w.-]+", requirement)
            if match and "extra ==" not in requirement:
                waiting.append(match[0])


def _roots(distribution: metadata.Distribution) -> list[Path]:
    """The files and folders beside other packages' that a package consists of."""
    names = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__", "/"}
    names |= set((distribution.read_text("top_level.txt") or "").split())
    names |= {f"{name}.py" for name in names if name.isidentifier()}
    return [Path(str(distribution.locate_file(name))) for name in sorted(names)]
