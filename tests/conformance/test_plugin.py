"""A third party's package, really installed, gives the campaign a proposer and a strategy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).parent / "plugin"
SUPPORT = Path(__file__).parents[1] / "unit"
CAMPAIGN = """
import json, sys
from dataclasses import replace
from pathlib import Path
from campaign_support import problem_file, quick, small_request
from kernelwright.campaign import optimize

folder = Path(sys.argv[1])
request = small_request(problem_file(folder), folder / "run", evaluations=3)
request = replace(request, proposers=("handmade",), strategy="largest-first")
print(json.dumps(optimize(request, settings=quick())))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in PLUGIN.iterdir():
        if file.is_file():
            (source / file.name).write_text(file.read_text())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
           "--disable-pip-version-check", "--target", str(folder), str(source)]  # fmt: skip
    done = subprocess.run(pip, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed, *command):
    paths = [str(installed), str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=240, env=environment
    )


def test_its_proposer_and_strategy_run_a_campaign(installed, tmp_path):
    done = run(installed, "-c", CAMPAIGN, str(tmp_path))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.strip().splitlines()[-1])
    assert document["best"]["proposer"] == "handmade"
    assert document["best"]["family"] == "by hand"
    assert document["evaluations"] == 3
    assert document["workloads"][0]["speedup"]["eager"] > 0


def test_its_language_is_judged(installed, tmp_path):
    (tmp_path / "mine.bas").write_text("10 PRINT")
    code = """
import json, sys
from pathlib import Path
from campaign_support import problem_file, quick
from kernelwright.build import languages
from kernelwright.campaign import evaluate
from kernelwright.problems import parse_reference
from kernelwright.propose import own_kernel_family

assert languages() == ("cpp", "cuda", "python", "triton", "basic")
folder = Path(sys.argv[1])
family = own_kernel_family(folder / "mine.bas", "basic", "kernel")
reference = parse_reference(str(problem_file(folder)))
print(json.dumps(evaluate(reference, family, baselines=(), settings=quick())))
"""
    done = run(installed, "-c", code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["verdict"] == "measured"


def test_without_it_the_names_are_unknown_and_the_sentence_says_what_there_is(tmp_path):
    command = ["-m", "kernelwright", "optimize", "rms_norm", "--run", str(tmp_path / "run")]
    done = run(tmp_path, *command, "--proposers", "handmade")
    assert done.returncode == 2
    assert "there is no proposer 'handmade'" in done.stderr
    assert "Traceback" not in done.stderr
