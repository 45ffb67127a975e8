"""Texts by content: zlib-compressed files named by the hash of what they hold."""

import os
import re
import tempfile
import zlib
from pathlib import Path

from kernelwright.errors import ArchiveError
from kernelwright.model import content_hash

_KEY = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """A folder of compressed texts, `ab/cdef....z`; each is written once and never changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, text: str) -> str:
        """Store a text and return its hash; one that is there already is not written again.

        Written to a temporary file that is flushed to disk and renamed, so that a reader sees the
        whole text or none, whenever this process is killed. A temporary file may be left over then.

        Raises:
            ArchiveError: the disk is full, or the folder was deleted or cannot be written.
        """
        data = text.encode("utf-8", "surrogatepass")
        key = content_hash(data)
        path = self._path(key)
        if path.exists():
            return key
        try:
            _write(path, zlib.compress(data, 6))
        except OSError as error:
            raise ArchiveError(
                f"the run folder '{self._folder.parent}' cannot be written: "
                f"{error.strerror or error}; what was judged before is kept"
            ) from None
        return key

    def get(self, key: str) -> str:
        """The text with this hash.

        Raises:
            ArchiveError: it is missing or damaged.
        """
        path = self._path(key)
        if not _KEY.fullmatch(key):
            raise ArchiveError(f"'{key[:12]}' is no hash of a text: the archive is damaged")
        try:
            data = zlib.decompress(path.read_bytes())
        except FileNotFoundError:
            raise ArchiveError(f"the archive lacks the text {key[:12]} ('{path}')") from None
        except (OSError, zlib.error) as error:
            raise ArchiveError(f"the text '{path}' cannot be read: {error}") from None
        if content_hash(data) != key:
            raise ArchiveError(f"the text '{path}' is damaged: it does not have its hash")
        return data.decode("utf-8", "surrogatepass")

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.z"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
