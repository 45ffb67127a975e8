"""The archive: append-only SQLite and content-addressed files."""
