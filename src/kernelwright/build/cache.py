"""Folders and small JSON files that outlive a process and may be deleted at any time."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernelwright.errors import MachineError


def user_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/kernelwright` or `~/.cache/kernelwright`; made when missing.

    Falls back to a private folder in the temporary directory where the home is read-only.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "kernelwright"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"kernelwright-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Turn what a full, missing or read-only disk raises into one sentence.

    Raises:
        MachineError: naming the folder and the mend.
    """
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"the cache folder '{folder}' cannot be used: {error.strerror or error}; "
            "free some space there, or set XDG_CACHE_HOME to another folder"
        ) from None


def read_json(path: Path) -> Any:
    """The parsed file, or None when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: Any) -> None:
    """Replace the file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(value, file)
    os.replace(file.name, path)
