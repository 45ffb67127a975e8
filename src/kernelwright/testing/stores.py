"""What every archive must do: subclass `StoreConformance` and give `create` and `open`."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import pytest

from kernelwright.errors import ArchiveError
from kernelwright.store import Archive
from kernelwright.testing import samples


class StoreConformance:
    """Tests of a store; `Archive` stands for anything with the same methods."""

    @abstractmethod
    def create(self, folder: Path, campaign: dict[str, Any]) -> Archive:
        """A new store, open for writing."""

    @abstractmethod
    def open(self, folder: Path, *, read_only: bool = False) -> Archive:
        """An existing store."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Where the store is made."""
        return tmp_path / "deep" / "run"

    def test_everything_comes_back(self, folder: Path) -> None:
        """Records read back after closing equal what was written, in order."""
        with self.create(folder, {"problem": "scaled", "seed": 3}) as store:
            store.add_machine(samples.machine())
            assert store.add_family(samples.family()) == samples.family().identity
            first = store.add_verdict(samples.candidate(), samples.measured(), 12.5)
            second = store.add_verdict(samples.candidate(4), samples.rejected())
            third = store.add_verdict(samples.candidate(), samples.measured(7.0))
            key = store.put_text("a log\n")
            store.add_event("resumed", after=2)
        with self.open(folder, read_only=True) as store:
            assert store.campaign == {"problem": "scaled", "seed": 3}
            assert store.machine() == samples.machine()
            assert store.families() == (samples.family(),)
            assert repr(store.families()[0].lineage) == repr(samples.family().lineage)
            assert list(store.candidates().values()) == [samples.candidate(), samples.candidate(4)]
            found = store.verdicts()
            assert [v.id for v in found] == [first, second, third]
            assert [v.verdict for v in found] == [
                samples.measured(), samples.rejected(), samples.measured(7.0),
            ]  # fmt: skip
            assert [v.value for v in found] == [12.5, None, None]
            assert store.verdicts(after=second) == found[2:]
            assert store.evidence()[1] == (samples.candidate(4), samples.rejected())
            assert store.get_text(key) == "a log\n"
            assert [(e.kind, e.document) for e in store.events()] == [("resumed", {"after": 2})]
            assert store.events("other") == ()

    def test_an_empty_store_is_readable(self, folder: Path) -> None:
        """Nothing was judged yet."""
        with self.create(folder, {}) as store:
            assert store.verdicts() == ()
            assert store.machine() is None
            assert store.campaign == {}

    def test_candidates_are_stored_once_and_found_by_prefix(self, folder: Path) -> None:
        """Identity is identity."""
        with self.create(folder, {}) as store:
            identity = store.add_candidate(samples.candidate())
            store.add_candidate(samples.candidate())
            assert len(store.candidates()) == 1
            assert store.candidate(identity[:10]) == samples.candidate()
            with pytest.raises(ArchiveError, match="no candidate"):
                store.candidate("zz")
            store.add_candidate(samples.candidate(4))
            with pytest.raises(ArchiveError, match="several"):
                store.candidate("")

    def test_a_reader_sees_what_a_writer_adds(self, folder: Path) -> None:
        """While the writer stays open; the reader cannot write."""
        with self.create(folder, {}) as writer, self.open(folder, read_only=True) as reader:
            for count in range(1, 4):
                writer.add_verdict(samples.candidate(), samples.measured(), 1.0)
                assert len(reader.verdicts()) == count
            with pytest.raises(ArchiveError):
                reader.add_event("no")

    def test_one_writer(self, folder: Path) -> None:
        """A second writer is refused until the first one closes."""
        with self.create(folder, {}), pytest.raises(ArchiveError, match="in use"):
            self.open(folder)
        self.open(folder).close()

    def test_create_does_not_overwrite(self, folder: Path) -> None:
        """An existing store is opened, not made again."""
        self.create(folder, {}).close()
        with pytest.raises(ArchiveError, match="already"):
            self.create(folder, {})

    def test_a_missing_store_is_an_error(self, folder: Path) -> None:
        """One sentence, no new files."""
        with pytest.raises(ArchiveError, match="not a run folder"):
            self.open(folder)
        assert not folder.exists()

    def test_a_rejection_has_no_value(self, folder: Path) -> None:
        """A failed candidate has no time, here either."""
        with self.create(folder, {}) as store:
            with pytest.raises(ArchiveError, match="no value"):
                store.add_verdict(samples.candidate(), samples.rejected(), 1.0)
            assert store.verdicts() == ()
