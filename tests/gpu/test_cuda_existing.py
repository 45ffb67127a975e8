"""Existing kernels with a signature of their own, judged on a GPU."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from gpu_support import builder
from test_cuda_judge import QUICK

from kernelwright import suite
from kernelwright.build import Artifact
from kernelwright.campaign.evaluate import at_defaults
from kernelwright.evaluation import Judge
from kernelwright.machine import probe
from kernelwright.model import Measured
from kernelwright.propose import ForeignCall, own_kernel_family

EAGER = replace(QUICK, baselines=("eager",))
PAGE = (Path(__file__).parents[2] / "docs" / "existing-kernels.md").read_text()
CALLED = {"in": "x", "result": "out", "rows": "T", "columns": "H"}
LAUNCHED = {"in": "x", "result": "out", "columns": "H"}
CALLS = {
    "softmax": ForeignCall(CALLED),
    "softmax_rows": ForeignCall(LAUNCHED, grid="T", block="THREADS"),
}


@pytest.fixture(scope="module")
def judge():
    sizes = {"T": 2048, "H": 1024}
    made = Judge(suite.find("softmax"), "f32", sizes, probe(), builder(), 1, EAGER, "cuda")
    with made.open():
        yield made


@pytest.mark.parametrize("entry", CALLS)
def test_the_page_is_right(judge, tmp_path, entry):
    path = tmp_path / "softmax.cu"
    found = re.search(r"<!-- file: softmax.cu -->\n```cpp\n(.*?)```", PAGE, re.DOTALL)
    path.write_text(found[1])
    candidate = at_defaults(own_kernel_family(path, entry=entry, call=CALLS[entry]), judge)
    assert dict(candidate.tunables) == {"THREADS": 128}
    artifact = builder().build(candidate)
    assert isinstance(artifact, Artifact), artifact
    verdict = judge.accept(candidate, artifact)
    assert isinstance(verdict, Measured), verdict
