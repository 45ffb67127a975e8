"""Row values that are reduced once more: two steps in one kernel."""

import numpy as np
import pytest
import torch
from compiled_kernel import build, call, narrow, this_machine, widen

from kernelwright import codegen
from kernelwright.codegen import predicted_us
from kernelwright.expr import evaluate, skeleton
from kernelwright.expr.staging import stage
from kernelwright.model import Dtype, Signature, TensorArgument
from kernelwright.problems.trace import trace

FAST = {"FLAGS": "-O1 -march=native"}
SIZES = ((1, 1), (1, 5000), (3, 1), (7, 33), (130, 257), (40000, 3))


def signature(*outputs):
    inputs = (TensorArgument("x", ("T", "C")), TensorArgument("kept", ("T", "C")))
    return Signature(inputs, tuple(TensorArgument(name, dims) for name, dims in outputs))


def losses(x, kept):
    loss = -(kept * torch.log(x.abs().clamp(min=1e-6))).sum(-1)
    return loss, loss.sum()


FORMS = {
    "losses": (losses, signature(("loss", ("T",)), ("total", ()))),
    "mean of log sums": (lambda x, kept: (x + kept).logsumexp(-1).mean(), signature(("out", ()))),
    "largest norm": (
        lambda x, kept: (x * kept).square().sum(-1).sqrt().amax(), signature(("out", ())),
    ),
    "of softmax": (
        lambda x, kept: (x.softmax(-1) * kept).sum(-1).square().sum(), signature(("out", ())),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_what_they_are_reduced_to(form, dtype):
    function, declared = FORMS[form]
    program = trace(function, declared, {})
    assert skeleton(program) == "rowwise map-reduce-map"
    (family,) = codegen.families(program, dtype, this_machine(), {"T": 7, "C": 33}, "kernel")
    library = build(family, FAST)
    draw = np.random.default_rng(0)
    for T, C in SIZES:
        inputs = {n: narrow(draw.standard_normal((T, C)), dtype) for n in ("x", "kept")}
        sizes = {"T": T, "C": C}
        got = call(library, declared, dtype, inputs, sizes)
        wide = {n: widen(v, dtype) for n, v in inputs.items()}
        want = evaluate(program, wide, {}, sizes)
        for output in declared.outputs:
            close = np.allclose(
                got[output.name], want[output.name], rtol=3e-5 + 2 * dtype.unit_roundoff, atol=1e-3
            )
            assert close, (form, T, C, output.name)


def test_a_schedule_is_predicted():
    program = trace(losses, FORMS["losses"][1], {})
    machine = this_machine()
    (family,) = codegen.families(program, Dtype.F32, machine, {"T": 64, "C": 64}, "kernel")
    time = predicted_us(family, family.defaults[0], program, {"T": 64, "C": 64}, Dtype.F32, machine)
    assert 0 < time < float("inf")


def test_sums_of_sums_are_left_alone():
    declared = signature(("out", ()))
    assert stage(trace(lambda x, kept: (x * kept).sum(), declared, {}), frozenset()) is None
    distances = trace(lambda x, kept: (x.sum() - kept).square().sum(), declared, {})
    assert stage(distances, frozenset()) is None


def test_rows_that_need_the_whole_are_left_alone():
    """The second step would run among the rows of the first."""
    declared = signature(("out", ("T",)))
    program = trace(
        lambda x, kept: (x * x.exp().sum(-1).log().sum()).square().sum(-1), declared, {}
    )
    assert stage(program, frozenset()) is None
    assert codegen.families(program, Dtype.F32, this_machine(), {}, "kernel") == ()
