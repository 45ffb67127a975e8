"""Which compilers are here and really run OpenMP on several threads."""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from kernelwright.build.cache import read_json, user_cache_folder, write_json
from kernelwright.build.compilers import BASE_FLAGS, PROBE_SOURCE, compile_in, diagnostics
from kernelwright.model import FrozenMap, Toolchain, content_hash

_NAME = re.compile(r"(g\+\+|clang\+\+)(?:-(\d+))?")


def _rank(name: str) -> tuple[int, int, int]:
    """Unnumbered before numbered, g++ before clang++, newer before older."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return (match[2] is not None, match[1] != "g++", -int(match[2] or 0))


def _compilers_in_path() -> list[tuple[str, str]]:
    """Names and paths of compilers, best first; links to one that is listed already left out."""
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        names = os.listdir(folder) if os.path.isdir(folder) else []
        for name in names:
            path = os.path.join(folder, name)
            if _NAME.fullmatch(name) and os.access(path, os.X_OK):
                found.setdefault(name, os.path.abspath(path))
    unique: dict[str, tuple[str, str]] = {}
    for name in sorted(found, key=_rank):
        unique.setdefault(os.path.realpath(found[name]), (name, found[name]))
    return list(unique.values())


def _version(path: str) -> str:
    done = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=20, check=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout.splitlines()[0].strip()


def _probe(name: str, path: str, version: str) -> Toolchain | str:
    """Build and run the OpenMP probe; a sentence when it does not run on several threads."""
    threads = max(2, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="kernelwright-") as scratch:
        program = Path(scratch) / "probe"
        arguments = [*BASE_FLAGS, "-O1", "-DKERNELWRIGHT_PROBE_MAIN", str(PROBE_SOURCE)]
        outcome = compile_in(Path(scratch), path, [*arguments, "-o", str(program)], 60)
        if outcome.code != 0:
            lines = diagnostics(outcome, Path(scratch)).splitlines() or ["no output"]
            return f"does not build an OpenMP program: {lines[0]}"
        env = {"OMP_NUM_THREADS": str(threads), "OMP_DYNAMIC": "false"}
        try:
            run = subprocess.run(
                [program], env=env, capture_output=True, text=True, timeout=20, check=True
            )
            loaded = subprocess.run(
                [program], env={**env, "LD_TRACE_LOADED_OBJECTS": "1"},
                capture_output=True, text=True, timeout=20, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            return f"builds an OpenMP program that does not run: {error}"
    ran = int(run.stdout)
    if ran != threads:
        return f"OpenMP ran on {ran} of {threads} threads: install its OpenMP library"
    runtime = "libgomp" if "libgomp" in loaded.stdout else "libomp"
    return Toolchain(name, path, version, runtime, ran)


def _examine(name: str, path: str, known: dict[str, Any]) -> Toolchain | str:
    try:
        version = _version(path)
        status = os.stat(path)
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"does not answer --version: {error}"
    cores = len(os.sched_getaffinity(0))
    stamp = [path, version, str(status.st_mtime_ns), str(status.st_size), str(cores)]
    key = content_hash(*stamp, PROBE_SOURCE.read_text())
    if key not in known:
        result = _probe(name, path, version)
        if isinstance(result, str):
            return result  # not remembered: the mend may be one package away
        known[key] = [result.openmp, result.threads]
    openmp, threads = known[key]
    return Toolchain(name, path, version, openmp, threads)


def discover_toolchains() -> tuple[tuple[Toolchain, ...], FrozenMap[str, str]]:
    """Usable compilers, and those that were found but cannot be used, with the reason.

    A compiler is usable when a program that it built ran an OpenMP region on all cores (at least
    two). Successes are remembered on disk by path, time stamp and version.
    """
    store = user_cache_folder() / "toolchains.json"
    remembered = read_json(store)
    known: dict[str, Any] = dict(remembered) if isinstance(remembered, dict) else {}
    before = len(known)
    usable: list[Toolchain] = []
    missing: dict[str, str] = {}
    for name, path in _compilers_in_path():
        result = _examine(name, path, known)
        if isinstance(result, str):
            missing[name] = result
        else:
            usable.append(result)
    if len(known) != before:
        write_json(store, known)
    return tuple(usable), FrozenMap(missing)
