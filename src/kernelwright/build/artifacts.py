"""The cache of artifacts: one file each, keyed by everything that decides it."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kernelwright.build.cache import disk_trouble, read_json, write_json

_LEAST_FREE = 16 << 20
"""Bytes of disk; with less, a compiler that fails says nothing about what it compiled."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a built file."""

    binary_hash: str
    """SHA-256 of its bytes."""
    seconds: float
    log: str


@dataclass(frozen=True, slots=True)
class ArtifactCache:
    """Files below `folder`, which is made when missing and may be shared between processes."""

    folder: Path
    name: str
    """What the files are called."""

    def path(self, key: str) -> Path:
        """Where the file of this key is, if there is one."""
        return self._entry(key) / self.name

    def find(self, key: str) -> Entry | None:
        """The entry when it is there and its bytes are those that were built."""
        record = read_json(self._entry(key) / "build.json")
        if record is None:
            return None
        try:
            digest = hashlib.sha256(self.path(key).read_bytes()).hexdigest()
            if digest != record["binary_hash"]:
                return None
            return Entry(digest, record["seconds"], record["log"])
        except (OSError, KeyError):
            return None

    def publish(self, key: str, file: Path, seconds: float, log: str) -> Entry:
        """Copy a built file into the cache in one step; a damaged or equal entry gives way."""
        found = Entry(hashlib.sha256(file.read_bytes()).hexdigest(), seconds, log)
        record = {"binary_hash": found.binary_hash, "seconds": seconds, "log": log}
        target = self._entry(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.scratch() as scratch:
            entry = Path(scratch) / "entry"
            entry.mkdir()
            shutil.copyfile(file, entry / self.name)
            (entry / self.name).chmod(0o755)
            write_json(entry / "build.json", record)
            try:
                os.rename(entry, target)
            except OSError:  # another process was first, or the entry there is damaged
                os.replace(entry / self.name, target / self.name)
                os.replace(entry / "build.json", target / "build.json")
        return found

    def scratch(self) -> "tempfile.TemporaryDirectory[str]":
        """A folder beside the artifacts, so that a rename is enough to publish."""
        place = self.folder / "scratch"
        place.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=place)

    def make(self, build: Callable[[], Result]) -> Result:
        """What `build` makes with `scratch` and `publish`; again where its scratch was deleted.

        Raises:
            MachineError: the folder cannot be written.
        """
        with disk_trouble(self.folder):
            try:
                return build()
            except FileNotFoundError:
                return build()

    @staticmethod
    def blame(source: Path) -> None:
        """Call when a compiler has failed: is it the candidate's fault, or the disk's?

        Args:
            source: what it compiled, in its scratch.

        Raises:
            OSError: the source has been deleted, or the disk is full.
        """
        if not source.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        disk = os.statvfs(source.parent)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source.parent))

    def _entry(self, key: str) -> Path:
        return self.folder / "artifacts" / key[:2] / key
