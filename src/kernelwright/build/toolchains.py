"""Which compilers are here and really run OpenMP on several threads."""

from kernelwright.model import FrozenMap, Toolchain


def discover_toolchains() -> tuple[tuple[Toolchain, ...], FrozenMap[str, str]]:
    """Usable compilers, and those that were found but cannot be used, with the reason."""
    raise NotImplementedError
