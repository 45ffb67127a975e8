"""Disks fill up and folders are deleted while a campaign runs: one sentence, nothing lost."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fault_campaign import request, script, settings, without_operator

from kernelwright.build import CppBuilder, artifacts, builder, discover_toolchains
from kernelwright.build.cache import user_cache_folder
from kernelwright.campaign import Silent, optimize
from kernelwright.errors import ArchiveError, MachineError
from kernelwright.model import Candidate, FrozenMap, Reason, Rejected
from kernelwright.sandbox import Outcome, isolation
from kernelwright.store import Archive, Blobs

GOOD = 6
KERNEL = """
#include "kernelwright.h"
extern "C" int kernel(const float*, float*, int64_t, const void*, void*, int64_t, void*) {
    return N;
}
"""


class After(Silent):
    """Does something after so many evaluations."""

    def __init__(self, evaluations, act):
        self.evaluations, self.act = evaluations, act

    def update(self, status):
        if status.evaluations == self.evaluations:
            self.act()


def verdicts(run):
    with Archive.open(run, read_only=True) as archive:
        return archive.verdicts()


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_a_cache_that_is_emptied_all_the_time_costs_no_candidate(tmp_path, monkeypatch):
    cache = tmp_path / "cache" / "kernelwright"
    known = shutil.ignore_patterns("artifacts", "scratch")  # but for what the machine can do
    shutil.copytree(user_cache_folder(), cache, ignore=known)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    script(monkeypatch, 0, 3)
    without_operator(monkeypatch)
    asked = request(tmp_path, 3)

    class Emptying(Silent):
        def update(self, status):
            shutil.rmtree(cache / "artifacts" if status.evaluations > 1 else cache)

    document = optimize(asked, Emptying(), settings())
    assert (document["evaluations"], document["rejected"]) == (3, {})
    assert document["best"] is not None
    assert sum(v.value is not None for v in verdicts(asked.folder)) == 3


def test_a_run_folder_that_is_deleted_ends_the_campaign_in_one_sentence(tmp_path, monkeypatch):
    script(monkeypatch, 0, GOOD)
    asked = request(tmp_path, GOOD)
    gone = After(2, lambda: shutil.rmtree(asked.folder))
    with pytest.raises(ArchiveError, match="deleted or moved") as caught:
        optimize(asked, gone, settings())
    assert str(asked.folder) in one_sentence(caught)
    assert not Archive.exists(asked.folder)


FULL = """
import sys
from pathlib import Path

import pytest

sys.path.insert(0, {here!r})
from fault_campaign import request, script, settings, without_operator
from test_disk import After, GOOD, one_sentence, verdicts

from kernelwright.campaign import Silent, optimize
from kernelwright.errors import ArchiveError
from kernelwright.store import Archive

folder = Path({folder!r})
filler = folder / "filler"


def fill():
    with filler.open("wb", buffering=0) as file:
        for step in (1 << 16, 1 << 10, 1):
            try:
                while file.write(bytes(step)) == step:
                    pass
            except OSError:
                pass


patch = pytest.MonkeyPatch()
script(patch, 0, GOOD)
without_operator(patch)
asked = request(folder, GOOD)
told = []
with pytest.raises(ArchiveError, match="archive.db|cannot be written") as caught:
    optimize(asked, After(3, fill), settings())
print(one_sentence(caught))
filler.unlink()
before = verdicts(asked.folder)
assert len(before) == 3, before


class Late(Silent):
    def stage(self, text):
        if text == "writing the report":
            fill()


with pytest.raises(ArchiveError, match="is its disk full|No space left") as caught:
    optimize(asked, Late(), settings())
print(one_sentence(caught))
filler.unlink()
after = verdicts(asked.folder)
assert after[:3] == before
assert len({{v.candidate for v in after if v.value is not None}}) == GOOD
with Archive.open(asked.folder, read_only=True) as archive:
    assert archive.events("result")[0].document["evaluations"] == GOOD
"""


def test_a_disk_that_fills_up_ends_the_campaign_in_one_sentence_and_keeps_all(tmp_path):
    if isolation() != "sandbox":
        pytest.skip("a small disk needs bubblewrap")
    disk = tmp_path / "disk"
    disk.mkdir()
    here = str(Path(__file__).parent)
    bubblewrap = ["bwrap", "--dev-bind", "/", "/", "--size", str(12 << 20), "--tmpfs", str(disk)]
    code = FULL.format(here=here, folder=str(disk))
    done = subprocess.run(
        [*bubblewrap, "--", sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.fixture
def compiler(tmp_path):
    return CppBuilder(discover_toolchains()[0], tmp_path / "cache")


def candidate(number):
    return Candidate("cpp", "kernel", KERNEL, FrozenMap({"N": number, "FLAGS": "-O1"}))


@pytest.mark.parametrize("which", ["probe", "kernel"])
def test_a_scratch_folder_deleted_under_the_compiler_is_made_again(compiler, monkeypatch, which):
    real, calls = builder.compile_in, []
    if which == "kernel":
        compiler.build(candidate(1))  # and the probe

    def hindered(folder, *rest):
        calls.append(folder)
        if len(calls) == 1:
            shutil.rmtree(folder.parent)
            folder.mkdir(parents=True)
        return real(folder, *rest)

    monkeypatch.setattr(builder, "compile_in", hindered)
    assert not isinstance(compiler.build(candidate(0)), Rejected)
    assert len(calls) == {"probe": 4, "kernel": 2}[which]


def test_a_scratch_folder_that_is_always_deleted_is_the_users_to_mend(compiler, monkeypatch):
    def gone(folder, *rest):
        shutil.rmtree(folder.parent)
        folder.mkdir(parents=True)
        return Outcome(1, "", 0.0)

    monkeypatch.setattr(builder, "compile_in", gone)
    with pytest.raises(MachineError, match=r"cache folder .* cannot be used: No such file"):
        compiler.build(candidate(0))


def test_a_compiler_that_fails_on_a_full_disk_says_nothing_about_the_candidate(
    compiler, monkeypatch
):
    wrong = Candidate("cpp", "kernel", "no C++", FrozenMap({"FLAGS": "-O1"}))
    first = compiler.build(wrong)
    assert isinstance(first, Rejected)
    assert first.reason is Reason.COMPILE_ERROR
    monkeypatch.setattr(artifacts, "_LEAST_FREE", 1 << 62)
    with pytest.raises(MachineError, match=r"No space left on device; free some space"):
        compiler.build(wrong)
    assert not isinstance(compiler.build(candidate(1)), Rejected)


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    compiler = CppBuilder(discover_toolchains()[0], tmp_path / "file" / "cache")
    with pytest.raises(MachineError, match="XDG_CACHE_HOME"):
        compiler.build(candidate(0))


def test_a_text_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    blobs = Blobs(tmp_path / "run" / "blobs")
    kept = blobs.put("kept")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArchiveError, match="No space left on device; what was judged before"):
        blobs.put("lost")
    assert blobs.get(kept) == "kept"
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
