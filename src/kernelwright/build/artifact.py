"""What a build yields."""

from dataclasses import dataclass
from pathlib import Path

from kernelwright.build.ptxas import KernelResources
from kernelwright.model import Language, Toolchain


@dataclass(frozen=True, slots=True)
class Artifact:
    """A built kernel in the build cache: one file, which its language's host loads."""

    path: Path
    candidate: str
    """Identity of the candidate that asked for it."""
    key: str
    """Hash of everything that decides the binary; the name of its folder in the cache."""
    toolchain: Toolchain
    seconds: float
    """What the compiler took; for a cached artifact, what it took then."""
    cached: bool
    log: str
    """Warnings of the compiler, clipped."""
    binary_hash: str
    """SHA-256 of the file: two assignments with the same binary are the same kernel."""
    language: Language = "cpp"
    resources: tuple[KernelResources, ...] = ()
    """Of each CUDA kernel in it."""
