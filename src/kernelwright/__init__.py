"""Kernelwright: fast kernels that can be trusted.

    import kernelwright
    result = kernelwright.optimize("rms_norm")                     # a shipped problem
    result = kernelwright.optimize(my_function, (x, w))            # your own function
    print(result["workloads"][0]["speedup"], result["best"]["path"])

Importing this package imports nothing else; every name below loads what it needs when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelwright.api import (
        draft_problem,
        evaluate,
        load_problem,
        open_archive,
        optimize,
        profile,
    )
    from kernelwright.problems import problem, round_to

__version__ = "0.1.0"

__all__ = [
    "draft_problem",
    "evaluate",
    "load_problem",
    "open_archive",
    "optimize",
    "problem",
    "profile",
    "round_to",
]

_HOMES = {"problem": "kernelwright.problems", "round_to": "kernelwright.problems"}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'kernelwright' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "kernelwright.api")), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
