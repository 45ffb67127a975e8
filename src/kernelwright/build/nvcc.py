"""The CUDA toolkit: where it is, what it compiles for, and how it is run."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kernelwright.build.compilers import compile_in
from kernelwright.cuda_driver import first_gpu
from kernelwright.model import Toolchain
from kernelwright.sandbox import Outcome, real_paths

ARCHITECTURE_VARIABLE = "KERNELWRIGHT_CUDA_ARCHITECTURE"
MISSING = (
    "no CUDA compiler was found: install NVIDIA's CUDA toolkit 12.4 or newer, and put nvcc on the "
    "PATH or set CUDA_HOME"
)
_ARCHITECTURE = re.compile(r"sm_(\d+)([af]?)")
_TOP = re.compile(r"^#\$ TOP=(.*)$", re.MULTILINE)
_RELEASE = re.compile(r"release (\d+\.\d+), V([\d.]+)")


@dataclass(frozen=True, slots=True)
class Toolkit:
    """An installed CUDA toolkit."""

    nvcc: str
    """The program itself, not a script in front of it where that could be found out."""
    top: Path
    version: str
    """`nvcc 13.0.88`."""
    architectures: tuple[str, ...]
    """What it compiles for, such as `sm_90`."""

    @property
    def toolchain(self) -> Toolchain:
        """As results name it; it brings no OpenMP."""
        return Toolchain("nvcc", self.nvcc, self.version, "none", 1)

    @property
    def runtime_folder(self) -> Path:
        """Where `libcudart.so` lies."""
        for name in ("lib64", "lib", "targets/x86_64-linux/lib"):
            if (self.top / name / "libcudart.so").exists():
                return (self.top / name).resolve()
        return self.top / "lib64"

    def refuses(self, architecture: str) -> str | None:
        """None when it compiles for an architecture, else a sentence."""
        match = _ARCHITECTURE.fullmatch(architecture)
        if match and f"sm_{match[1]}" in self.architectures:
            return None
        known = ", ".join(self.architectures)
        return f"{self.version} does not compile for '{architecture}', only for {known}"

    def run(self, folder: Path, arguments: Sequence[str], timeout_s: float) -> Outcome:
        """Run nvcc in `folder`, the only place where it can write."""
        return compile_in(folder, self.nvcc, arguments, timeout_s, real_paths([self.top]))


def for_architecture(architecture: str) -> str:
    """The flag that makes code for one architecture alone."""
    return f"-gencode=arch=compute_{architecture[3:]},code={architecture}"


def default_architecture() -> str | None:
    """That of the GPU here, or the one named in the environment; None where there is neither."""
    named = os.environ.get(ARCHITECTURE_VARIABLE)
    gpu = first_gpu() if not named else None
    return named or (gpu.architecture if gpu else None)


@lru_cache(maxsize=1)
def find_toolkit() -> Toolkit | None:
    """The toolkit of CUDA_HOME, of the PATH, or of /usr/local/cuda; None where there is none."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [os.path.join(home, "bin", "nvcc")] if home else []
    places += [shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]
    for place in places:
        if place and os.access(place, os.X_OK):
            found = _examine(place)
            if found is not None:
                return found
    return None


def _examine(nvcc: str) -> Toolkit | None:
    try:
        version = _RELEASE.search(_ask(nvcc, "--version"))
        codes = re.findall(r"sm_\d+", _ask(nvcc, "--list-gpu-code"))
        with tempfile.NamedTemporaryFile(suffix=".cu") as empty:
            top = _TOP.search(_ask(nvcc, "--dryrun", "-E", empty.name))
    except (OSError, subprocess.SubprocessError):
        return None
    if version is None or top is None:
        return None
    folder = Path(top[1].strip()).resolve()
    program = folder / "bin" / "nvcc"
    chosen = str(program) if program.is_file() else os.path.abspath(nvcc)
    return Toolkit(chosen, folder, f"nvcc {version[2]}", tuple(codes))


def _ask(nvcc: str, *arguments: str) -> str:
    done = subprocess.run(
        [nvcc, *arguments], capture_output=True, text=True, timeout=30, check=True,
        env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout + done.stderr
