"""Peers that a problem itself calls wrong."""

import pytest

from kernelwright import suite
from kernelwright.model import Dtype
from kernelwright.problems import baselines, load_problem, plainly_wrong


def wrong(name, peer, dtype=Dtype.F32):
    problem = load_problem(suite.find(name))
    return plainly_wrong(problem, baselines(problem)[peer], dtype)


def test_ties_in_another_order_are_wrong():
    assert "'indices' are wrong under 'ties'" in wrong("topk_rows", "torch.topk")
    assert wrong("topk_rows", "eager") == ""


@pytest.mark.parametrize("name", ["kmeans_assign", "softmax_attention", "w4a16_gemm"])
def test_sound_peers_are_not(name):
    problem = load_problem(suite.find(name))
    for peer in problem.peers:
        assert wrong(name, peer) == "", peer


def test_a_problem_without_a_verdict_of_its_own_finds_nothing_wrong():
    assert wrong("histogram", "scatter_add_", Dtype.U8) == ""
