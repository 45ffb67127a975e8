"""A problem that judges its own outputs: near ties of labels are right, far ones are not."""

from dataclasses import replace

import pytest

from kernelwright.build import CppBuilder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Candidate, FrozenMap, Measured, Rejected
from kernelwright.suite import find

KMEANS = """
#include "kernelwright.h"
extern "C" int kernel(const float* x, const float* c, int32_t* label, float* distance,
                      int64_t N, int64_t D, int64_t K, const void*, void*, int64_t, void*) {
#pragma omp parallel for
  for (int64_t i = 0; i < N; ++i) {
    float best = 3e38f;
    int32_t at = 0;
    for (int64_t k = @FIRST@; k < K; ++k) {
      float sum = 0;
      for (int64_t d = 0; d < D; ++d) {
        float difference = x[i * D + d] - c[k * D + d];
        sum += difference * difference;
      }
      if (sum @LESS@ best) { best = sum; at = (int32_t)k; }
    }
    label[i] = at;
    distance[i] = best;
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    machine = probe()
    builder = CppBuilder(machine.toolchains, tmp_path_factory.mktemp("cache"))
    sizes = FrozenMap({"N": 512, "D": 16, "K": 8})
    settings = replace(JudgeSettings.quick(), baselines=())
    judge = Judge(find("kmeans_assign"), "f32", sizes, machine, builder, seed=5, settings=settings)
    with judge.open():
        yield judge


def screened(judge, first="0", less="<"):
    source = KMEANS.replace("@FIRST@", first).replace("@LESS@", less)
    candidate = Candidate("cpp", "kernel", source, FrozenMap({"FLAGS": "-O2"}))
    artifact = judge.builder.build(candidate)
    assert not isinstance(artifact, Rejected), artifact.diagnostic
    return judge.screen(candidate, artifact).verdict


def test_a_right_assignment_passes(judge):
    assert isinstance(screened(judge), Measured)


def test_ties_to_the_higher_index_fail(judge):
    verdict = screened(judge, less="<=")
    assert isinstance(verdict, Rejected)
    assert str(verdict.reason) == "wrong_result"
    assert "label" in verdict.diagnostic
    assert "ties inputs" in verdict.diagnostic


def test_a_forgotten_centroid_fails(judge):
    verdict = screened(judge, first="(K > 1)")
    assert isinstance(verdict, Rejected)
    assert str(verdict.stage) == "check"
