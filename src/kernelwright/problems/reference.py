"""Where a problem is written: a value that can cross processes and be stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelwright.errors import ProblemError


@dataclass(frozen=True, slots=True)
class ProblemReference:
    """A file, and the function in it (None: the only problem in the file)."""

    path: str
    function: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """As plain data."""
        return {"path": self.path, "function": self.function}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "ProblemReference":
        """Back from plain data."""
        return ProblemReference(data["path"], data["function"])

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.path}:{self.function}" if self.function else self.path


def parse_reference(text: str) -> ProblemReference:
    """Read `file.py` or `file.py:function`; the path becomes absolute.

    Raises:
        ProblemError: the text has another form, or there is no such file.
    """
    path, colon, function = text, "", ""
    if not text.endswith((".py", ".pkl")):
        path, colon, function = text.rpartition(":")
    if not path.endswith((".py", ".pkl")) or (colon and not function.isidentifier()):
        raise ProblemError(
            f"'{text}' is not a problem: give the name of a shipped problem, `file.py` or "
            "`file.py:function`"
        )
    if not Path(path).is_file():
        raise ProblemError(f"there is no problem file '{path}'")
    return ProblemReference(str(Path(path).resolve()), function or None)
