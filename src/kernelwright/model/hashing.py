"""Content hashes over several parts, length-prefixed so that parts cannot run together."""

import hashlib


def content_hash(*parts: str | bytes) -> str:
    """SHA-256 (hex) of the parts, each preceded by its length in bytes (8, little-endian)."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
