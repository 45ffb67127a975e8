import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from kernelwright.errors import ArchiveError
from kernelwright.store import Archive, Blobs
from kernelwright.testing import samples

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def folder(tmp_path):
    with Archive.create(tmp_path / "run", {"problem": "scaled"}) as archive:
        for lanes in (4, 8, 16):
            archive.add_verdict(samples.candidate(lanes), samples.measured(float(lanes)), lanes)
    return tmp_path / "run"


def execute(folder, *statements):
    with closing(sqlite3.connect(folder / "archive.db")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("archive-*.tar.gz")), ids=lambda p: p.name)
def test_archives_of_every_version_open(path, tmp_path):
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    with Archive.open(tmp_path / "run", read_only=True) as archive:
        assert archive.campaign["budget"] == {"evaluations": 3}
        assert archive.machine() == samples.machine()
        assert archive.families() == (samples.family(),)
        verdicts = [(v.candidate, v.verdict, v.value) for v in archive.verdicts()]
        assert verdicts == [
            (samples.candidate().identity, samples.measured(accepted=False), 12.5),
            (samples.candidate(4).identity, samples.rejected(), None),
            (samples.candidate().identity, samples.measured(), 12.25),
        ]
        assert archive.events("note")[0].document == {"text": "half way", "count": 2}


def test_the_current_version_has_a_golden_file():
    from kernelwright.store import RECORD_VERSION, SCHEMA_VERSION

    assert (GOLDEN / f"archive-v{SCHEMA_VERSION}-r{RECORD_VERSION}.tar.gz").exists()


@pytest.mark.parametrize("table", ["verdicts", "samples", "campaign", "candidates", "meta"])
def test_the_database_refuses_to_forget(folder, table):
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        execute(folder, f"DELETE FROM {table}")
    column = "value" if table == "meta" else "id"
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        execute(folder, f"UPDATE {table} SET {column} = {column}")


WRITER = """
import sys
from pathlib import Path
from kernelwright.store import Archive
from kernelwright.testing import samples

archive = Archive.open(Path(sys.argv[1]))
while True:
    number = archive.add_verdict(samples.candidate(), samples.measured(), 1.5)
    print(number, flush=True)
"""


@pytest.mark.parametrize("count", [1, 5, 12])
def test_what_was_acknowledged_survives_kill_9(folder, count):
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        acknowledged = [int(writer.stdout.readline()) for _ in range(count)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    assert writer.returncode == -signal.SIGKILL
    with Archive.open(folder) as archive:
        found = {v.id: v for v in archive.verdicts()}
        assert set(acknowledged) <= set(found)
        assert len(found) <= 3 + len(acknowledged) + 1
        assert all(found[number].verdict == samples.measured() for number in acknowledged)
        assert archive.add_verdict(samples.candidate(), samples.rejected()) > max(acknowledged)


def test_a_half_made_folder_is_not_an_archive_and_can_be_made_again(tmp_path):
    (tmp_path / ".archive.db.partial").write_bytes(b"SQLite format 3\0 torn")
    with pytest.raises(ArchiveError, match="not a run folder"):
        Archive.open(tmp_path)
    Archive.create(tmp_path, {"a": 1}).close()
    assert Archive.open(tmp_path, read_only=True).campaign == {"a": 1}


@pytest.mark.parametrize("keep", [0, 10, 100, 4096, 0.5])
def test_a_torn_database_is_one_sentence(folder, keep):
    path = folder / "archive.db"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    for read_only in (True, False):
        with pytest.raises(ArchiveError) as caught:
            Archive.open(folder, read_only=read_only)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_an_overwritten_page_is_found(folder):
    path = folder / "archive.db"
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 6] = os.urandom(4096 * 5)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="is damaged"):
        Archive.open(folder, read_only=True)


def test_other_files_and_other_databases_are_refused(tmp_path):
    (tmp_path / "archive.db").write_text("not a database, but a text that is long enough" * 40)
    with pytest.raises(ArchiveError, match="is damaged"):
        Archive.open(tmp_path, read_only=True)
    (tmp_path / "archive.db").unlink()
    execute(tmp_path, "CREATE TABLE meta (key TEXT, value TEXT)")
    with pytest.raises(ArchiveError, match="not an archive of kernelwright"):
        Archive.open(tmp_path, read_only=True)


def set_version(folder, version):
    drop, add = "DROP TRIGGER meta_no_update", f"UPDATE meta SET value = '{version}'"
    execute(folder, drop, add)


def test_a_newer_schema_is_refused(folder):
    set_version(folder, 999)
    for read_only in (True, False):
        with pytest.raises(ArchiveError, match=r"schema 999, newer than .* update kernelwright"):
            Archive.open(folder, read_only=read_only)


def test_an_older_schema_is_read_but_not_continued(folder):
    set_version(folder, 0)
    with pytest.raises(ArchiveError, match="older schema 0: it can be read, but not continued"):
        Archive.open(folder)
    with Archive.open(folder, read_only=True) as archive:
        assert len(archive.verdicts()) == 3


def test_a_torn_document_is_one_sentence(folder):
    execute(folder, "DROP TRIGGER verdicts_no_update", "UPDATE verdicts SET document = '{\"type'")
    with (
        Archive.open(folder, read_only=True) as archive,
        pytest.raises(ArchiveError, match="damaged"),
    ):
        archive.verdicts()


def test_damaged_and_missing_texts_are_found(folder):
    [blob] = (folder / "blobs").glob("*/*.z")
    good = blob.read_bytes()
    with Archive.open(folder, read_only=True) as archive:
        blob.write_bytes(good[:-9])
        with pytest.raises(ArchiveError, match="cannot be read"):
            archive.candidates()
        blob.write_bytes(zlib.compress(b"another text"))
        with pytest.raises(ArchiveError, match="does not have its hash"):
            archive.candidates()
        blob.unlink()
        with pytest.raises(ArchiveError, match="lacks the text"):
            archive.candidates()


def test_texts_are_stored_once_whatever_they_hold(tmp_path):
    blobs = Blobs(tmp_path)
    for text in ("", "½ \ud800 \r\n", "x" * 100_000):
        key = blobs.put(text)
        assert blobs.put(text) == key
        assert blobs.get(key) == text
        assert key in blobs
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert max(path.stat().st_size for path in files) < 1000


def test_a_read_only_folder_can_be_read(folder):
    path = folder / "archive.db"
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    path.chmod(stat.S_IRUSR)
    try:
        with Archive.open(folder, read_only=True) as archive:
            assert len(archive.verdicts()) == 3
    finally:
        folder.chmod(stat.S_IRWXU)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match="cannot be made"):
        Archive.create(tmp_path / "file" / "run", {})


def test_what_proposers_may_see_has_no_held_out_sizes(tmp_path):
    with Archive.create(tmp_path / "run", {}) as archive:
        archive.add_verdict(samples.candidate(), samples.accepted())
        ((_, shown),) = archive.evidence()
        (stored,) = archive.verdicts()
    assert "4093" in repr(stored.verdict.workloads[1].workload.sizes)
    assert "4093" not in repr(shown)
    assert shown.workloads[0].workload == stored.verdict.workloads[0].workload
