"""Everything a campaign learned, in one folder: `archive.db` and `blobs/`.

Every `add_*` returns once the row is on disk; what it returned survives `kill -9`. Any number of
processes may read a folder while one writes it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import sqlalchemy
from sqlalchemy import insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or

from kernelwright.errors import ArchiveError
from kernelwright.model import Candidate, Family, Machine, Measured, Rejected, Verdict
from kernelwright.model.records import from_json, to_json
from kernelwright.store import schema
from kernelwright.store.blobs import Blobs
from kernelwright.store.database import WriterLock, check_version, connect, reading, translated
from kernelwright.store.raw_samples import sample_rows, with_samples, without_samples

Document = dict[str, Any]
_DATABASE = "archive.db"


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """One verdict as it was stored."""

    id: int
    created: str
    """UTC, ISO 8601."""
    candidate: str
    """Identity."""
    verdict: Verdict
    value: float | None
    """What the search minimised; None for a rejection or where none was given."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One line of a campaign's history."""

    id: int
    created: str
    kind: str
    document: Document


class Archive:
    """An open run folder. Use `create`, `open` or `exists`; close it or use it as a context."""

    def __init__(
        self, folder: Path, engine: sqlalchemy.Engine, lock: WriterLock | None, version: int
    ) -> None:
        self.folder = folder
        self.schema_version = version
        self.path = folder / _DATABASE
        self._engine = engine
        self._lock = lock
        self._blobs = Blobs(folder / "blobs")

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a folder holds an archive."""
        return (folder / _DATABASE).exists()

    @classmethod
    def create(cls, folder: Path, campaign: Mapping[str, Any]) -> Self:
        """Make a run folder (its parents too) and open it for writing.

        Args:
            folder: must not hold an archive already.
            campaign: what was asked for, as plain JSON; read back as `campaign`.

        Raises:
            ArchiveError: there is an archive already, or the folder cannot be written.
        """
        path = folder / _DATABASE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(folder / "writer.lock")
        except OSError as error:
            raise ArchiveError(
                f"the run folder '{folder}' cannot be made: {error.strerror}"
            ) from None
        try:
            if path.exists():
                raise ArchiveError(f"the run folder '{folder}' holds an archive already: open it")
            partial = folder / f".{_DATABASE}.partial"
            _initialise(partial, _dump(campaign))
            partial.rename(path)  # from here on the folder is an archive, never half of one
            engine = connect(path, read_only=False)
            return cls(folder, engine, lock, check_version(engine, path))
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, folder: Path, *, read_only: bool = False) -> Self:
        """Open a run folder.

        Args:
            folder: the run folder.
            read_only: reads while another process may write; an archive of an older schema can
                only be opened like this.

        Raises:
            ArchiveError: there is no archive, it is damaged, of a newer schema, or (for writing)
                of an older one or in use by another process.
        """
        path = folder / _DATABASE
        if not path.is_file():
            raise ArchiveError(f"'{folder}' is not a run folder: it has no {_DATABASE}")
        lock = None
        try:
            lock = None if read_only else WriterLock(folder / "writer.lock")
        except OSError as error:
            raise ArchiveError(
                f"the run folder '{folder}' cannot be written: {error.strerror}"
            ) from None
        try:
            engine = connect(path, read_only=read_only)
            version = check_version(engine, path)
            if version < schema.SCHEMA_VERSION and not read_only:
                raise ArchiveError(
                    f"the archive '{path}' has the older schema {version}: it can be read, but not "
                    f"continued; choose another folder"
                )
            return cls(folder, engine, lock, version)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def close(self) -> None:
        """Close the database and let another process write."""
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Writing

    def put_text(self, text: str) -> str:
        """Store a source or a log; returns its hash."""
        return self._blobs.put(text)

    def add_family(self, family: Family) -> str:
        """Store a family, once; returns its identity."""
        self._add_source(schema.families, family)
        return family.identity

    def add_candidate(self, candidate: Candidate) -> str:
        """Store a candidate, once; returns its identity."""
        self._add_source(schema.candidates, candidate)
        return candidate.identity

    def add_verdict(
        self, candidate: Candidate, verdict: Verdict, value: float | None = None
    ) -> int:
        """Store a verdict with its raw samples, and the candidate if it is new, as one step.

        Args:
            candidate: what was judged.
            verdict: may be one of several on the same candidate (screened, then accepted).
            value: what the search minimises, for resuming; a rejection has none.

        Returns:
            The verdict's number; the row is on disk.

        Raises:
            ArchiveError: a rejection was given a value, or the archive cannot be written.
        """
        if isinstance(verdict, Rejected) and value is not None:
            raise ArchiveError("a rejected candidate has no value")
        rejected = isinstance(verdict, Rejected)
        row = {
            "created": _now(),
            "candidate": self.add_candidate(candidate),
            "outcome": str(verdict.stage) if rejected else "measured",
            "reason": str(verdict.reason) if rejected else None,
            "value": value,
            "document": _dump(to_json(without_samples(verdict))),
        }
        with translated(self.path), self._engine.begin() as connection:
            number = connection.execute(insert(schema.verdicts).values(row)).inserted_primary_key
            key = int(cast(Sequence[Any], number)[0])
            rows = list(sample_rows(key, verdict))
            if rows:
                connection.execute(insert(schema.samples), rows)
        return key

    def add_event(self, kind: str, **document: Any) -> int:
        """Store a line of history with plain JSON details; returns its number."""
        return self._add(schema.events, created=_now(), kind=kind, document=_dump(document))

    def add_machine(self, machine: Machine) -> int:
        """Store the machine that what follows is measured on; returns its number."""
        return self._add(schema.machines, created=_now(), document=_dump(to_json(machine)))

    # Reading

    @reading
    def get_text(self, key: str) -> str:
        """The text with this hash.

        Raises:
            ArchiveError: it is missing or damaged.
        """
        return self._blobs.get(key)

    @property
    @reading
    def campaign(self) -> Document:
        """What was asked for when the folder was made."""
        return self._load(self._rows(select(schema.campaign.c.document))[0].document)

    @reading
    def machine(self) -> Machine | None:
        """The machine stored last."""
        table = schema.machines
        rows = self._rows(select(table.c.document).order_by(table.c.id.desc()).limit(1))
        return from_json(self._load(rows[0].document), Machine) if rows else None

    @reading
    def families(self) -> tuple[Family, ...]:
        """Every family, oldest first."""
        return tuple(self._sourced(row, Family) for row in self._all(schema.families))

    @reading
    def candidates(self) -> dict[str, Candidate]:
        """Every candidate by identity, oldest first."""
        rows = self._all(schema.candidates)
        return {row.identity: self._sourced(row, Candidate) for row in rows}

    @reading
    def candidate(self, identity: str) -> Candidate:
        """The candidate whose identity begins like this.

        Raises:
            ArchiveError: none does, or several do.
        """
        column = schema.candidates.c.identity
        found = self._rows(
            select(schema.candidates).where(column.startswith(identity, autoescape=True))
        )
        if len(found) != 1:
            many = "several candidates" if found else "no candidate"
            raise ArchiveError(f"the archive '{self.path}' has {many} '{identity}'")
        return self._sourced(found[0], Candidate)

    @reading
    def verdicts(self, after: int = 0) -> tuple[StoredVerdict, ...]:
        """Every verdict with its samples, oldest first, with a number above `after`."""
        table, samples = schema.verdicts, schema.samples
        rows = self._rows(select(table).where(table.c.id > after).order_by(table.c.id))
        last = rows[-1].id if rows else after  # a writer may have added more in between
        chosen = (samples.c.verdict > after) & (samples.c.verdict <= last)
        taken: dict[int, list[Any]] = {}
        for sample in self._rows(select(samples).where(chosen).order_by(samples.c.id)):
            taken.setdefault(sample.verdict, []).append(sample)
        return tuple(self._verdict(row, taken.get(row.id, [])) for row in rows)

    @reading
    def evidence(self) -> tuple[tuple[Candidate, Verdict], ...]:
        """Every verdict beside its candidate, oldest first, as proposers may see it.

        Without what was measured at held-out sizes: they stay secret while candidates are made.
        """
        candidates = self.candidates()
        return tuple((candidates[v.candidate], public_verdict(v.verdict)) for v in self.verdicts())

    @reading
    def events(self, kind: str | None = None) -> tuple[StoredEvent, ...]:
        """Every event (of one kind), oldest first."""
        table = schema.events
        query = select(table).order_by(table.c.id)
        rows = self._rows(query if kind is None else query.where(table.c.kind == kind))
        return tuple(StoredEvent(r.id, r.created, r.kind, self._load(r.document)) for r in rows)

    # Inside

    def _add(self, table: sqlalchemy.Table, **row: Any) -> int:
        with translated(self.path), self._engine.begin() as connection:
            number = connection.execute(insert(table).values(row)).inserted_primary_key
        return int(cast(Sequence[Any], number)[0])

    def _add_source(self, table: sqlalchemy.Table, record: Family | Candidate) -> None:
        row = {
            "identity": record.identity,
            "source": self.put_text(record.source),  # on disk before the row that names it
            "document": _dump(to_json(replace(record, source=""))),
        }
        statement = insert_or(table).values(row).on_conflict_do_nothing()
        with translated(self.path), self._engine.begin() as connection:
            connection.execute(statement)

    def _rows(self, query: sqlalchemy.Select[Any]) -> Sequence[Any]:
        with translated(self.path), self._engine.connect() as connection:
            return connection.execute(query).all()

    def _all(self, table: sqlalchemy.Table) -> Sequence[Any]:
        return self._rows(select(table).order_by(table.c.id))

    def _load(self, text: str) -> Document:
        return json.loads(text)

    def _sourced(self, row: Any, kind: type[Any]) -> Any:
        record = replace(
            from_json(self._load(row.document), kind), source=self.get_text(row.source)
        )
        if record.identity != row.identity:
            raise ArchiveError(
                f"the archive '{self.path}' is damaged ({row.identity[:12]} has changed)"
            )
        return record

    def _verdict(self, row: Any, samples: Sequence[Any]) -> StoredVerdict:
        verdict = from_json(self._load(row.document), cast(type[Verdict], Measured | Rejected))
        if isinstance(verdict, Measured) and samples:
            verdict = with_samples(verdict, samples)
        return StoredVerdict(row.id, row.created, row.candidate, verdict, row.value)


def _initialise(path: Path, campaign: str) -> None:
    """Write a whole, closed database with one campaign in it."""
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    engine = connect(path, read_only=False, create=True)
    with translated(path):
        with engine.begin() as connection:
            schema.metadata.create_all(connection)
            version = {"key": "schema_version", "value": str(schema.SCHEMA_VERSION)}
            connection.execute(insert(schema.meta).values(version))
            row = {"created": _now(), "document": campaign}
            connection.execute(insert(schema.campaign).values(row))
        engine.dispose()


def _dump(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def public_verdict(verdict: Verdict) -> Verdict:
    """A verdict without what was measured at held-out sizes."""
    if isinstance(verdict, Rejected):
        return verdict
    shown = tuple(w for w in verdict.workloads if w.workload.tier != "heldout")
    return replace(verdict, workloads=shown)
