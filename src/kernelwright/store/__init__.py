"""The archive: append-only SQLite and content-addressed files."""

from kernelwright.model.records import RECORD_VERSION, from_json, to_json
from kernelwright.store.archive import Archive, StoredEvent, StoredVerdict, public_verdict
from kernelwright.store.blobs import Blobs
from kernelwright.store.schema import SCHEMA_VERSION

__all__ = [
    "RECORD_VERSION",
    "SCHEMA_VERSION",
    "Archive",
    "Blobs",
    "StoredEvent",
    "StoredVerdict",
    "from_json",
    "public_verdict",
    "to_json",
]
