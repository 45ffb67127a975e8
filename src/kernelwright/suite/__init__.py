"""The shipped problems: one file each, `<scenario>/<name>.py`, found by name.

Nothing here is imported: a problem file is loaded by `problems.load_problem`, where torch may be.
"""

from difflib import get_close_matches
from functools import cache
from pathlib import Path

from kernelwright.errors import ProblemError
from kernelwright.problems import ProblemReference

__all__ = ["find", "names", "scenario"]


@cache
def _files() -> dict[str, Path]:
    folder = Path(__file__).parent
    found = (p for p in folder.glob("*/*.py") if not p.stem.startswith("_"))
    return {path.stem: path for path in sorted(found, key=lambda p: (p.parent.name, p.stem))}


def names() -> tuple[str, ...]:
    """Every shipped problem, ordered by scenario, then by name."""
    return tuple(_files())


def scenario(name: str) -> str:
    """The scenario of a shipped problem.

    Raises:
        ProblemError: there is none of that name.
    """
    return Path(find(name).path).parent.name


def find(name: str) -> ProblemReference:
    """Where a shipped problem is.

    Raises:
        ProblemError: there is none of that name; the nearest ones are suggested.
    """
    if name not in _files():
        near = get_close_matches(name, names(), 3)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "`kernelwright problems` lists them"
        )
        raise ProblemError(f"there is no shipped problem '{name}': {hint}")
    return ProblemReference(str(_files()[name].resolve()), name)
