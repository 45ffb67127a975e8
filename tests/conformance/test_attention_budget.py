"""The budget of attention covers scores that are summed in any order."""

import pytest
import torch

from kernelwright.model import Dtype, FrozenMap, Workload
from kernelwright.numerics import tolerance
from kernelwright.problems import load_problem, run_reference, run_terms, sound_runs
from kernelwright.suite import find

SIZES = {
    "softmax_attention": dict(S=150, D=64, L=300, E=32),
    "attention_gqa_causal": dict(B=1, Hk=2, G=2, S=200, D=64),
}
DRAWS = 6


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("distribution", ["sharp", "normal"])
def test_another_order_of_the_depth_is_right_and_rounded_scores_are_wrong(name, distribution):
    problem = load_problem(find(name))
    workload = Workload(name, Dtype.F32, FrozenMap(SIZES[name]), FrozenMap(), distribution)
    for seed in range(DRAWS):
        inputs = problem.make_inputs(workload, seed)
        exact = run_reference(problem, inputs, {})[0].numpy()
        runs = [run[0].float().numpy() for run in sound_runs(problem, inputs, {})]
        terms = run_terms(problem, inputs, {})[problem.signature.outputs[0].name]
        assert terms is not None
        allowed = tolerance(exact, runs, Dtype.F32, terms.numpy())
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        turned = {**inputs, "q": inputs["q"][..., order], "k": inputs["k"][..., order]}

        def error(changed):
            found = problem(**changed)
            first = found if isinstance(found, torch.Tensor) else found[0]
            return (abs(first.double().numpy() - exact) / allowed).max()  # noqa: B023

        assert error(turned) <= 1
        coarse = {**inputs, "k": inputs["k"].half().float()}
        assert error(coarse) > 3, "keys of half the precision must fail"
