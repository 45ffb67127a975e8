"""Writes the golden archive of the current schema and record versions.

    python tests/golden/make_archive.py tests/golden

Run it once for each new schema or record version; never overwrite an older file.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

from kernelwright.store import RECORD_VERSION, SCHEMA_VERSION, Archive
from kernelwright.testing import samples


def fill(folder: Path) -> None:
    """One of everything, in a new archive."""
    with Archive.create(folder, {"problem": "scaled", "budget": {"evaluations": 3}}) as archive:
        archive.add_machine(samples.machine())
        archive.add_family(samples.family())
        archive.add_verdict(samples.candidate(), samples.measured(accepted=False), 12.5)
        archive.add_verdict(samples.candidate(4), samples.rejected())
        archive.add_verdict(samples.candidate(), samples.measured(), 12.25)
        archive.add_event("note", text="half way", count=2)


def main(target: Path) -> None:
    """Write `archive-v<schema>-r<record>.tar.gz` into a folder."""
    path = target / f"archive-v{SCHEMA_VERSION}-r{RECORD_VERSION}.tar.gz"
    if path.exists():
        sys.exit(f"{path} is there already: golden files are never written again")
    with tempfile.TemporaryDirectory() as scratch:
        fill(Path(scratch) / "run")
        with tarfile.open(path, "w:gz") as archive:
            archive.add(Path(scratch) / "run", "run")
    print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
