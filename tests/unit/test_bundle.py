"""Bundles: packed here, judged by a Python that has torch alone, brought back; hostile results."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from campaign_support import problem_file

from kernelwright.campaign.bundle import work_of_run, write_bundle
from kernelwright.cli import main
from kernelwright.errors import UserError
from kernelwright.evaluation.bundled import read_bundle, results_digest
from kernelwright.model import Measured, Rejected
from kernelwright.store import Archive
from kernelwright.testing import samples

KERNEL = """
#include "kernelwright.h"
#include <math.h>
// @tune CHUNK = 4, 8
extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H,
                      const void*, void*, int64_t, void*) {
#pragma omp parallel for schedule(static, CHUNK)
  for (int64_t t = 0; t < T; ++t) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t h = 0; h < H; ++h) sum += x[t * H + h] * x[t * H + h];
    for (int64_t h = 0; h < H; ++h)
      out[t * H + h] = x[t * H + h] / (1 + expf(-w[h])) * sum / (float)H;
  }
  return 0;
}
"""
ASKED = ["--size", "T=64,H=128", "--dtype", "f32", "--baselines", "eager"]


def run_main(*arguments):
    """Exit code of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code or 0
    return 0


def needed_by(name, found=None):
    """A distribution and all that it requires."""
    found = {} if found is None else found
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return found  # for another platform
    if distribution.name not in found:
        found[distribution.name] = distribution
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                needed_by(re.match(r"[\w.-]+", requirement)[0], found)
    return found


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python with torch, what torch requires, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for distribution in needed_by("torch").values():
        tops = {path.parts[0] for path in distribution.files if path.parts[0] not in ("..", "bin")}
        for top in tops:
            link = site / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A bundle of a right and a wrong kernel, and its run folder."""
    folder = tmp_path_factory.mktemp("packed")
    problem = problem_file(folder)
    for name, text in (("right", KERNEL), ("wrong", KERNEL.replace("sum /", "2 * sum /"))):
        (folder / f"{name}.cpp").write_text(text)
    code = run_main("bundle", folder / "right.cpp", folder / "wrong.cpp", "--like", problem,
                    "-o", folder / "bundle", "--run", folder / "run", *ASKED)  # fmt: skip
    assert code == 0
    return folder


def evaluate(python, folder, *arguments):
    """Run a bundle as a cluster would: nothing of this process's environment but paths."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME")
            if name in os.environ}  # fmt: skip
    return subprocess.run(
        [python, "-I", folder / "evaluate.py", *arguments],
        env=kept | {"KERNELWRIGHT_ISOLATION": "process"}, capture_output=True, text=True,
        timeout=240, cwd="/",
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(packed, bare_python):
    there = packed / "elsewhere" / "moved"
    shutil.copytree(packed / "bundle", there)
    done = evaluate(bare_python, there, "--seconds", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rejected: check, wrong_result" in done.stdout
    return there


def test_a_bare_python_lacks_what_the_bundle_brings(bare_python):
    for name in ("numpy", "jaxtyping", "cloudpickle", "sqlalchemy", "typer", "kernelwright"):
        done = subprocess.run([bare_python, "-I", "-c", f"import {name}"], capture_output=True)
        assert done.returncode == 1, name


def test_verdicts_come_back_into_the_run_folder(packed, evaluated, tmp_path, capsys):
    run = shutil.copytree(packed / "run", tmp_path / "run")
    assert run_main("bundle", "--import", evaluated, "--run", run, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["isolation"] == document["machine_facts"]["isolation"] == "process"
    assert [line["verdict"] for line in document["candidates"]] == ["measured", "rejected"]
    assert document["candidates"][0]["median_us"] > 0
    assert document["candidates"][0]["best_baseline"] == "eager"
    assert document["generality"]["checked"] > 0
    with Archive.open(run, read_only=True) as archive:
        verdicts = [stored.verdict for stored in archive.verdicts()]
        assert [type(verdict) for verdict in verdicts] == [Measured, Rejected]
        assert archive.machine().named("cpu") == document["machine"]
        assert document["best"]["candidate"] == archive.verdicts()[0].candidate
    assert run_main("report", run) == 0
    assert run_main("bundle", "--import", evaluated, "--run", run) == 2
    assert f"these results are in '{run}' already" in capsys.readouterr().err


def test_people_are_told_what_came_back(packed, evaluated, tmp_path, capsys):
    run = shutil.copytree(packed / "run", tmp_path / "run")
    assert run_main("bundle", "--import", evaluated / "results.json", "--run", run) == 0
    said = capsys.readouterr().out
    assert re.search(r"own:right.cpp +[\d.]+ \S+  [\d.]+x \[[\d.]+, [\d.]+\] over eager", said)
    assert re.search(r"own:wrong.cpp +rejected: check, wrong_result", said)
    assert "isolation process" in said


def forged(change):
    """Results with a change, and the digest that belongs to them."""

    def make(document):
        change(document)
        return document | {"digest": results_digest(document)}

    return make


def measured(document):
    return document["verdicts"][0]["verdict"]["data"]


def bench(document):
    return measured(document)["workloads"][0]


def set_item(where, key, value):
    return forged(lambda document: where(document).__setitem__(key, value))


HOSTILE = {
    "no JSON": (lambda document: "{", "holds no results"),
    "no object": (lambda document: [1], "holds no results"),
    "deep": (lambda document: "[" * 100_000, "holds no results"),
    "altered": (lambda document: document | {"dtype": "bf16"}, "was altered after"),
    "manifest": (forged(lambda d: d.update(manifest="0" * 64)), "about another bundle"),
    "problem": (forged(lambda d: d.update(problem="0" * 64)), "about another problem"),
    "sizes": (forged(lambda d: d.update(sizes={"T": 1, "H": 1})), "about another sizes"),
    "target": (forged(lambda d: d.update(target="cuda")), "about another target"),
    "other kernel": (
        forged(lambda d: d["verdicts"][0].update(candidate="f" * 64)), "was not packed",
    ),
    "twice": (forged(lambda d: d["verdicts"].append(d["verdicts"][0])), "or a second one"),
    "unhashable": (forged(lambda d: d["verdicts"][0].update(candidate=[])), "was not packed"),
    "no verdict": (forged(lambda d: d["verdicts"].insert(0, 3)), "verdict 1 is damaged"),
    "verdict of another kind": (
        forged(lambda d: d["verdicts"][0].update(verdict=d["machine"])), "cannot be read",
    ),
    "unknown field": (forged(lambda d: measured(d).update(own=1)), "does not know"),
    "not accepted": (set_item(measured, "accepted", False), "is no acceptance"),
    "nothing measured": (set_item(measured, "workloads", []), "is no acceptance"),
    "negative time": (
        set_item(bench, "time_us", {"median": -1.0, "low": -1.0, "high": -1.0}), "no clock says",
    ),
    "no time": (
        set_item(bench, "time_us", {"median": "nan", "low": "nan", "high": "nan"}), "no clock",
    ),
    "empty claim": (
        forged(lambda d: measured(d)["claim"]["accepted"].update(median=0.0, low=0.0)), "no clock",
    ),
    "no roof": (forged(lambda d: bench(d)["bound"].update(roof_rate=0.0)), "no clock"),
    "negative samples": (
        forged(lambda d: bench(d)["samples_us"].update(candidate=[-1.0])), "no clock",
    ),
    "impossible machine": (
        forged(lambda d: d["machine"]["data"].update(copy_gbs="inf")), "rates that no machine has",
    ),
    "huge number": (
        forged(lambda d: bench(d)["time_us"].update(median=10**400)), "cannot be read",
    ),
    "too wrong": (set_item(bench, "error", 3.0), "no right kernel has"),
    "smaller": (
        forged(lambda d: bench(d)["workload"]["sizes"].update(T=1)), "at the sizes that were",
    ),
    "other type": (
        forged(lambda d: bench(d)["workload"].update(dtype="bf16")), "another problem or type",
    ),
    "name": (
        forged(lambda d: d["machine"]["data"].update(name="../\x1b[2J")), "has no plain name",
    ),
    "isolation": (
        forged(lambda d: d["machine"]["data"].update(isolation="perfect")), "neither sandbox nor",
    ),
    "endless": (
        forged(lambda d: d["verdicts"][1]["verdict"]["data"].update(diagnostic="x" * 200_000)),
        "endless diagnostic",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_results_are_refused_as_a_whole(packed, evaluated, tmp_path, capsys, name):
    change, message = HOSTILE[name]
    document = change(json.loads((evaluated / "results.json").read_text()))
    file = tmp_path / "results.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    before = (packed / "run" / "archive.db").read_bytes()
    assert run_main("bundle", "--import", file, "--run", packed / "run") == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    with Archive.open(packed / "run", read_only=True) as archive:
        assert not archive.verdicts()
    assert (packed / "run" / "archive.db").read_bytes() == before


def test_other_results_of_the_same_bundle_are_refused(packed, evaluated, tmp_path, capsys):
    run = shutil.copytree(packed / "run", tmp_path / "run")
    assert run_main("bundle", "--import", evaluated, "--run", run) == 0
    document = json.loads((evaluated / "results.json").read_text())
    file = tmp_path / "results.json"
    file.write_text(json.dumps(forged(lambda d: d.update(written="later"))(document)))
    assert run_main("bundle", "--import", file, "--run", run) == 2
    assert "has results already" in capsys.readouterr().err


def test_an_altered_bundle_is_not_judged(packed, bare_python, tmp_path):
    there = shutil.copytree(packed / "bundle", tmp_path / "bundle")
    (candidate, *_) = sorted((there / "candidates").iterdir())
    candidate.write_text(candidate.read_text().replace("expf", "sinf"))
    done = evaluate(bare_python, there)
    assert done.returncode == 2
    assert f"is not as it was packed: candidates/{candidate.name} was altered" in done.stderr
    (there / "more.py").write_text("")
    with pytest.raises(UserError, match=r"was altered|more.py does not belong"):
        read_bundle(there)
    (there / "manifest.json").unlink()
    with pytest.raises(UserError, match="is no bundle"):
        read_bundle(there)


def test_a_bundle_says_what_is_missing_there(packed, bare_python, tmp_path):
    there = shutil.copytree(packed / "bundle", tmp_path / "bundle")
    (there / "compiled").rename(there / "gone")
    (there / "compiled" / "cpython-39-riscv").mkdir(parents=True)
    done = evaluate(bare_python, there)
    assert done.returncode == 2
    assert "has no numpy, and the bundle's is for cpython-39-riscv" in done.stderr
    without_torch = subprocess.run(
        [sys.executable, "-I", "-S", there / "evaluate.py"], capture_output=True, text=True
    )
    assert without_torch.returncode == 2
    assert "has no torch" in without_torch.stderr


def test_what_cannot_be_packed_is_one_sentence(packed, tmp_path, capsys):
    for arguments, message in [
        (["bundle"], "say what to pack and where"),
        (["bundle", tmp_path, "-o", tmp_path / "b"], "is no run folder"),
        (["bundle", "--import", tmp_path], "say where verdicts go"),
        (["bundle", "--import", tmp_path, "--run", packed / "run"], "there are no results"),
        (["bundle", packed / "right.cpp", "--like", packed / "scaled_gate.py", "-o",
          packed / "bundle", *ASKED], "is there already"),
        (["bundle", packed / "right.cpp", "--like", packed / "scaled_gate.py", "-o",
          tmp_path / "b", "--run", packed / "run", *ASKED], "holds an archive already"),
    ]:  # fmt: skip
        assert run_main(*arguments) == 2, message
        assert message in capsys.readouterr().err


def test_a_numpy_for_another_python_is_unpacked(packed, tmp_path, capsys):
    wheel = tmp_path / "numpy-2.4.6-cp312-cp312-manylinux_2_27_x86_64.whl"
    with ZipFile(wheel, "w") as file:
        file.writestr("numpy/__init__.py", "")
    more = ["--like", packed / "scaled_gate.py", "--run", tmp_path / "run", *ASKED]
    place = [packed / "right.cpp", "-o", tmp_path / "bundle"]
    assert run_main("bundle", *place, *more, "--numpy", tmp_path / "numpy.whl") == 2
    assert "is no wheel of numpy" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "bundle")
    assert run_main("bundle", *place, *more, "--numpy", wheel) == 0
    (there,) = (tmp_path / "bundle" / "compiled").iterdir()
    assert there.name == "cpython-312-x86_64-linux-gnu"
    assert read_bundle(tmp_path / "bundle").candidates


def test_the_best_of_a_run_are_packed(packed, tmp_path, capsys):
    problem = problem_file(tmp_path)
    with Archive.open(packed / "run", read_only=True) as packed_run:
        asked = packed_run.campaign
        right, wrong = packed_run.candidates().values()
    asked = asked | {"reference": {"path": str(problem), "function": None}}
    with Archive.create(tmp_path / "run", asked) as archive:
        archive.add_verdict(wrong, samples.measured(), 2.0)
        archive.add_verdict(right, samples.measured(), 1.0)
        work = work_of_run(archive, 1)
        assert work.candidates == (right,)
        write_bundle(tmp_path / "bundle", work, tmp_path / "back")
        assert read_bundle(tmp_path / "bundle").candidates == (right,)
        problem.write_text(problem.read_text() + "\n")
        with pytest.raises(UserError, match="has changed since"):
            work_of_run(archive, 1)
        archive.add_verdict(wrong, samples.rejected())
        archive.add_verdict(right, samples.rejected())
        with pytest.raises(UserError, match="nothing was measured"):
            work_of_run(archive, 1)
