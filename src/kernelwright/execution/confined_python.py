"""Python processes of ours that run a user's file: what they see, and what they inherit."""

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernelwright.sandbox import View, compiler_prefix, holds_home, isolation, real_paths

_SCRATCH_BYTES = 8 << 30
"""Of /tmp, which lies in memory: torch's compiler writes a few MiB per graph."""
_KEPT = (
    *("PATH", "LANG", "LANGUAGE", "TZ", "CC", "CXX", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("TORCHINDUCTOR_FREEZING", "TORCHINDUCTOR_MAX_AUTOTUNE", "TORCH_COMPILE_DISABLE"),
)
_KEPT_PREFIXES = ("LC_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_", "ATEN_")
_HARDWARE = Path("/sys/devices/system")
"""Caches and cores, which torch asks for."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """What such a process inherits, by a list of what is allowed: no keys, no tokens, no home.

    Without a sandbox the home stays, because the files are there anyway and torch caches in it.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    kept.setdefault("PATH", os.defpath)
    kept["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    if isolation() == "sandbox":
        kept |= {"HOME": "/tmp", "TMPDIR": "/tmp", "USER": "user", "LOGNAME": "user"}
        kept["TORCHINDUCTOR_CACHE_DIR"] = "/tmp/inductor"
    else:
        named = ("HOME", "TMPDIR", "USER", "LOGNAME", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME")
        kept |= {name: os.environ[name] for name in named if name in os.environ}
    return kept | dict(extra)


def python_view(
    files: Sequence[Path] = (), writable: Sequence[Path] = (), devices: Sequence[Path] = ()
) -> View:
    """What such a process sees: Python, our package, compilers, and what belongs to `files`.

    Args:
        files: a problem's file is seen with the folder that it lies in; a folder as a whole.
            Of the user's home, what holds it, and /tmp only the Python files are seen.
        writable: folders that it may write to.
        devices: device files that it may open.
    """
    found = [Path(entry) for entry in (sys.prefix, sys.base_prefix, sys.exec_prefix)]
    found = [path for path in found if str(path) not in ("/usr", "/usr/local")]
    found += [Path(entry) for entry in sys.path if entry]
    for name in ("LD_LIBRARY_PATH", "LD_PRELOAD"):
        found += [Path(entry) for entry in os.environ.get(name, "").split(":") if entry]
    for name in (os.environ.get("CXX"), os.environ.get("CC"), "g++", "gcc", "clang++", "clang"):
        compiler = shutil.which(name) if name else None
        found += compiler_prefix(compiler) if compiler else ()
    for file in files:
        alone = file.is_dir() or file.suffix == ".pkl"
        found.append(file if alone else file.parent)
        found.append(file)
    seen = [part for path in found for part in _without_home(path.absolute())]
    return View(
        read_only=real_paths([*seen, _HARDWARE]),
        writable=tuple(writable),
        devices=tuple(devices),
        system=True,
        scratch_bytes=_SCRATCH_BYTES,
        folder=Path("/tmp"),
    )


def _without_home(path: Path) -> list[Path]:
    """The path, but only the Python files of a folder that is everybody's or holds the home."""
    shared = path.resolve() in {Path("/tmp"), Path("/var/tmp"), Path(tempfile.gettempdir())}
    if path.is_dir() and (shared or holds_home(path)):
        return sorted(path.glob("*.py"))
    return [path]
