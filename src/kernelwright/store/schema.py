"""Tables of the archive. Rows are added and never changed: the database itself refuses both."""

from sqlalchemy import (
    DDL,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    event,
)

SCHEMA_VERSION = 1
"""Raised when a table changes; `archive.py` must go on reading every earlier version."""

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("key", String, primary_key=True),
    Column("value", Text, nullable=False),
)
campaign = Table(
    "campaign",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("document", Text, nullable=False),
)
families = Table(
    "families",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", String, nullable=False, unique=True),
    Column("source", String, nullable=False),  # hash of a text in the blobs
    Column("document", Text, nullable=False),
)
candidates = Table(
    "candidates",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("identity", String, nullable=False, unique=True),
    Column("source", String, nullable=False),
    Column("document", Text, nullable=False),
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("candidate", ForeignKey("candidates.identity"), nullable=False),
    Column("outcome", String, nullable=False),  # `measured` or the stage of the rejection
    Column("reason", String),
    Column("value", Float),  # what the search minimises
    Column("document", Text, nullable=False),
    Index("verdicts_by_candidate", "candidate"),
)
samples = Table(
    "samples",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("verdict", ForeignKey("verdicts.id"), nullable=False),
    Column("workload", Integer, nullable=False),  # place in the verdict's workloads
    Column("role", String, nullable=False),
    Column("values", LargeBinary, nullable=False),  # zlib of little-endian float64, microseconds
    Index("samples_by_verdict", "verdict"),
)
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("document", Text, nullable=False),
)
machines = Table(
    "machines",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("created", String, nullable=False),
    Column("document", Text, nullable=False),
)

for _table in metadata.tables.values():
    for _action in ("UPDATE", "DELETE"):
        _trigger = DDL(
            f"CREATE TRIGGER {_table.name}_no_{_action.lower()} BEFORE {_action} ON {_table.name} "
            f"BEGIN SELECT RAISE(ABORT, 'the archive is append-only'); END"
        )
        event.listen(_table, "after_create", _trigger.execute_if(dialect="sqlite"))
