"""Opening the SQLite file of a run folder: for one writer, or for any number of readers."""

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy
from sqlalchemy.exc import DatabaseError, DBAPIError, SQLAlchemyError

from kernelwright.errors import ArchiveError
from kernelwright.store import schema

_DAMAGE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError,
           zlib.error)  # fmt: skip
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_WAIT_S = 30.0
"""How long a statement waits for another process's lock."""


class HasPath(Protocol):
    """Something that reads one database file."""

    path: Path


Holder = TypeVar("Holder", bound=HasPath)


def connect(path: Path, *, read_only: bool, create: bool = False) -> sqlalchemy.Engine:
    """An engine on a database file; a writer uses the write-ahead log and flushes each commit.

    Without `create` a file that is missing, also later, is an error and not an empty database.
    """

    def creator() -> sqlite3.Connection:
        if not read_only:
            uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        elif os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
            uri = f"{path.absolute().as_uri()}?mode=ro"
        else:  # a reader of a WAL database writes its -shm file, which a read-only disk refuses
            uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, timeout=_WAIT_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    return sqlalchemy.create_engine("sqlite://", creator=creator, poolclass=sqlalchemy.NullPool)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn database errors into one sentence about the file.

    Raises:
        ArchiveError: the file is damaged, locked, full or not a database.
    """
    try:
        yield
    except UnicodeDecodeError:  # what SQLite says about a fault may quote it
        raise ArchiveError(f"the archive '{path}' is damaged (a text is not UTF-8)") from None
    except (SQLAlchemyError, sqlite3.Error) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        text = (str(original).splitlines() or [type(original).__name__])[0]
        if not path.is_file():
            raise ArchiveError(
                f"the archive '{path}' is gone: its run folder was deleted or moved while it was "
                f"in use; choose another folder"
            ) from None
        if isinstance(error, DatabaseError | sqlite3.DatabaseError) and _is_damage(text):
            raise ArchiveError(f"the archive '{path}' is damaged ({text})") from None
        if _is_full(text):
            text += "; is its disk full? What was judged before is kept"
        raise ArchiveError(f"the archive '{path}' cannot be used: {text}") from None


def reading(method: Callable[Concatenate[Holder, Arguments], Result]) -> Callable[..., Result]:
    """Turn whatever damaged rows do to a reading method into one sentence about the file.

    Raises:
        ArchiveError: a stored value is not what was stored.
    """

    @wraps(method)
    def read(self: Holder, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return method(self, *args, **kwargs)
        except _DAMAGE as error:
            what = (str(error).splitlines() or [""])[0][:80]
            raise ArchiveError(
                f"the archive '{self.path}' is damaged ({type(error).__name__}: {what})"
            ) from error

    return read


def _is_full(text: str) -> bool:
    return "disk is full" in text or "disk I/O error" in text


def _is_damage(text: str) -> bool:
    return any(sign in text for sign in ("malformed", "not a database", "corrupt", "no such"))


def check_version(engine: sqlalchemy.Engine, path: Path) -> int:
    """Schema version of a database that is whole.

    Raises:
        ArchiveError: it is damaged, not an archive, or of a newer schema.
    """
    with translated(path), engine.connect() as connection:
        faults = connection.execute(sqlalchemy.text("PRAGMA quick_check(1)")).scalars().all()
        if faults != ["ok"]:
            raise ArchiveError(
                f"the archive '{path}' is damaged ({str(faults[0]).splitlines()[0]})"
            )
        query = sqlalchemy.select(schema.meta.c.value).where(schema.meta.c.key == "schema_version")
        found: Any = connection.execute(query).scalar_one_or_none()
    if found is None or not str(found).isdigit():
        raise ArchiveError(f"'{path}' is not an archive of kernelwright: it has no schema version")
    version = int(found)
    if version > schema.SCHEMA_VERSION:
        raise ArchiveError(
            f"the archive '{path}' has schema {version}, newer than this program reads "
            f"({schema.SCHEMA_VERSION}): update kernelwright"
        )
    return version


class WriterLock:
    """One writer per run folder; the system lets go of it when the process ends, however."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ArchiveError(
                f"the run folder '{path.parent}' is in use by another process: wait for it or "
                f"choose another folder"
            ) from None

    def release(self) -> None:
        """Let another process write."""
        self._file.close()
