"""Running references: oracle, eager, and float32 inside in several orders."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int32
from torch import Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype
from kernelwright.problems import (
    baselines,
    equivalence_errors,
    problem,
    round_to,
    run_function,
    run_reference,
    run_terms,
    sound_runs,
)
from kernelwright.problems.reorder import ORDERS, ReorderedSums, ordered_cumsum, ordered_sum
from kernelwright.problems.rounding import computing_for

N = 20_011
GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn((N,), generator=GENERATOR)
ROWS = torch.randn((5, 4099), generator=GENERATOR)
MANY = torch.randn((400, 4099), generator=GENERATOR)
SQUARE = torch.randn((63, 63), generator=GENERATOR)

SUMMING = {
    "sum": lambda: X.sum(),
    "sum of some axes": lambda: ROWS.view(5, 1, 4099).sum((1, 2), keepdim=True),
    "sum over rows": lambda: ROWS.sum(0),
    "mean": lambda: X.mean(),
    "mean of rows": lambda: ROWS.mean(-1, keepdim=True),
    "cumsum": lambda: X.cumsum(0),
    "cumsum down": lambda: ROWS.T.cumsum(0),
    "var": lambda: ROWS.var(-1),
    "var biased": lambda: ROWS.var(-1, correction=0, keepdim=True),
    "std": lambda: ROWS.std(-1),
    "var_mean": lambda: torch.var_mean(ROWS, -1)[0],
    "softmax": lambda: torch.softmax(ROWS, -1),
    "softmax down": lambda: torch.softmax(ROWS.T, 0),
    "log_softmax": lambda: torch.log_softmax(MANY, -1),
    "logsumexp": lambda: torch.logsumexp(MANY, -1),
    "layer_norm": lambda: F.layer_norm(ROWS, (4099,), ROWS[0], ROWS[1], 1e-5),
    "norm": lambda: torch.linalg.vector_norm(ROWS, dim=-1),
    "norm 1": lambda: torch.linalg.vector_norm(ROWS, 1, dim=-1),
    "mm": lambda: ROWS @ ROWS.T,
    "bmm": lambda: ROWS[None] @ ROWS.T[None],
    "mv": lambda: ROWS @ ROWS[0],
    "dot": lambda: X @ X,
    "addmm": lambda: torch.addmm(SQUARE[:5, :5], ROWS, ROWS.T, beta=2, alpha=3),
    "linear": lambda: F.linear(ROWS, ROWS, ROWS[0, :5]),
    "einsum": lambda: torch.einsum("ik,jk->ij", ROWS, ROWS),
}


@pytest.mark.parametrize("name", SUMMING)
def test_every_order_is_right_and_the_orders_differ(name):
    plain = SUMMING[name]()
    found = []
    for order in ORDERS:
        with ReorderedSums(order):
            found.append(SUMMING[name]())
    for value in found:
        assert value.dtype is torch.float32
        assert value.shape == plain.shape
        torch.testing.assert_close(value, plain, rtol=2e-4, atol=2e-4)
    assert any(not torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17, 127, 128, 129, 1000, 4096, 4097])
@pytest.mark.parametrize("order", ORDERS)
def test_orders_are_exact_where_float32_is(order, length):
    x = torch.randint(-9, 9, (3, length), generator=torch.Generator().manual_seed(length)).float()
    assert torch.equal(ordered_sum(order, x, [-1]), x.sum(-1))
    assert torch.equal(ordered_sum(order, x, None, True), x.sum().reshape(1, 1))
    assert torch.equal(ordered_cumsum(order, x, 1), x.cumsum(1))
    assert torch.equal(ordered_cumsum(order, x.T, 0), x.T.cumsum(0))


def test_integer_sums_are_left_alone():
    with ReorderedSums("blocked"):
        assert torch.arange(10).sum() == 45
        assert torch.tensor([True, True]).sum() == 2


def test_running_sums_carry_float32_unlike_torch():
    x = torch.full((1 << 18,), 0.1)
    exact = x.double().cumsum(0)
    theirs = (x.cumsum(0) - exact).abs().max()
    with ReorderedSums("plain"):
        sequential = (x.cumsum(0) - exact).abs().max()
    assert sequential > 100 * theirs  # that torch's carry is float64 is why the mode exists


@problem(
    dtypes=("f32", "bf16"),
    sizes={"cpu": [dict(T=40, H=30_001)]},
    slices="T",
    outputs=("total", "place", "stored"),
)
def totals(
    x: Float[Tensor, "T H"], a: float = 2.0
) -> tuple[Float[Tensor, "T"], Int32[Tensor, "T"], Float[Tensor, "T H"]]:
    """Row sums, where the greatest is, and the rounded product."""
    return (x * a).sum(-1), x.argmax(-1), round_to(x * 1.001)


@totals.terms
def totals_terms(x, a):
    return (x * a).abs().sum(-1), None, None


@pytest.fixture(scope="module")
def case():
    w = totals.bench_workload(None, "bf16")
    return totals.make_inputs(w, 1), dict(w.scalars)


def test_sound_runs_differ_on_a_long_sum_and_are_rounded_once(case):
    w = totals.bench_workload(None, "f32")
    inputs = totals.make_inputs(w, 1)
    runs = sound_runs(totals, inputs, w.scalars)
    oracle = run_reference(totals, inputs, w.scalars)
    assert len({tuple(run[0].tolist()) for run in runs}) == len(ORDERS)
    for run in runs:
        error = (run[0].double() - oracle[0]).abs()
        assert 0 < error.max() < 1e-2
        assert torch.equal(run[1], oracle[1])
    coarse = sound_runs(totals, *case)
    exact = run_reference(totals, *case)
    assert coarse[0][0].dtype is torch.bfloat16
    # float32 inside: the only visible error is the one rounding to bf16
    assert (
        (coarse[0][0].double() - exact[0]).abs() <= 1.01 * 2.0**-8 * exact[0].abs() + 1e-2
    ).all()


def test_oracle_is_float64_and_eager_as_written(case):
    inputs, scalars = case
    total, place, stored = run_reference(totals, inputs, scalars)
    assert (total.dtype, place.dtype, stored.dtype) == (torch.float64, torch.int32, torch.float64)
    eager = run_reference(totals, inputs, scalars, "eager")
    assert [t.dtype for t in eager] == [torch.bfloat16, torch.int32, torch.bfloat16]
    expected = np.array([math.fsum((row * 2).tolist()) for row in inputs["x"].double()])
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-10, atol=1e-8)


def test_slices_change_nothing(case):
    inputs, scalars = case
    whole = run_function(
        totals, totals.function, inputs, scalars, inside=torch.float64, slice_points=None
    )
    tiny = run_function(
        totals, totals.function, inputs, scalars, inside=torch.float64, slice_points=1
    )
    for a, b in zip(whole, tiny, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_terms_by_output(case):
    terms = run_terms(totals, *case)
    assert terms["place"] is None
    assert (terms["total"] >= run_reference(totals, *case)[0].abs()).all()
    assert terms["total"].dtype is torch.float64


def test_rounding_follows_the_workload_not_the_tensor(case):
    inputs, scalars = case
    stored = run_reference(totals, inputs, scalars)[2]
    assert torch.equal(stored, stored.bfloat16().double())
    assert not torch.equal(stored, inputs["x"].double() * 1.001)
    x = torch.tensor([1.0 + 2.0**-9], dtype=torch.float64)
    assert round_to(x) is x  # outside any run the tensor's own dtype is the workload's
    with computing_for(Dtype.BF16):
        assert round_to(x).item() == 1.0
        assert round_to(x, "f32").item() == 1.0 + 2.0**-9
    assert round_to(x, Dtype.BF16).item() == 1.0
    with pytest.raises(ProblemError, match="unknown dtype 'bf17'"):
        round_to(x, "bf17")


def test_rounding_lets_gradients_through():
    x = torch.tensor([1.3], requires_grad=True)
    with computing_for(Dtype.BF16):
        (round_to(x) * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.item() == 3


def test_tracing_keeps_the_rounding():
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lambda x: round_to(x) + round_to(x, "f16"))(torch.ones(2))
    called = [(n.target, n.args[1]) for n in graph.graph.nodes if "round_to" in str(n.target)]
    assert [dtype for _, dtype in called] == ["workload", "f16"]


def test_the_compiler_sees_ordinary_operators_not_an_opaque_rounding():
    graphs = []

    def keep(graph, example_inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    function = torch.compile(lambda x: round_to(x * 2) + round_to(x, "f16"), backend=keep)
    x = torch.tensor([1.0 + 2.0**-9, 1.0 + 2.0**-12])
    assert torch.equal(function(x), x * 2 + x.half().float())
    assert len(graphs) == 1
    assert "round_to" not in graphs[0]


def test_baselines_deliver_declared_types(case):
    @totals.peer("by hand")
    def by_hand(x, a):
        return x.sum(-1) * a, x.argmax(-1), x * 1.001

    found = baselines(totals)
    assert list(found) == ["eager", "compile", "by hand"]
    for name in ("eager", "by hand"):
        outputs = found[name](*case)
        assert [t.dtype for t in outputs] == [torch.bfloat16, torch.int32, torch.bfloat16]
    with pytest.raises(ProblemError, match="has the baseline 'eager' already"):
        totals.peer("eager")


def test_results_that_do_not_fit_are_said():
    @problem(sizes={"cpu": [dict(N=4, M=6)]})
    def outer(x: Float[Tensor, "N"], y: Float[Tensor, "M"]) -> Float[Tensor, "M N"]:
        """Outer product, declared the wrong way round."""
        return x[:, None] * y

    @problem(sizes={"cpu": [dict(N=4)]})
    def pair(x: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
        """One result too few."""
        return x

    @problem(sizes={"cpu": [dict(N=4)]})
    def broken(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Fails."""
        return x.reshape(-1, 3)

    for p, says in [
        (outer, r"the result 'out' has the shape \(4, 6\), declared is \(M, N\) with N=4, M=6"),
        (pair, "declares 2 tensors as its result but returned 1"),
        (broken, r"fails on x \[4\] torch.float64: RuntimeError"),
    ]:
        w = p.bench_workload()
        with pytest.raises(ProblemError, match=says):
            run_reference(p, p.make_inputs(w, 0), w.scalars)


def test_equivalence_takes_masks_and_errors_and_refuses_other_shapes():
    @problem(sizes={"cpu": [dict(N=3)]})
    def same(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Itself."""
        return x * 1.0

    inputs = {"x": torch.tensor([1.0, 2.0, 3.0])}
    arguments = (same, inputs, {}, {"out": inputs["x"]}, {"out": inputs["x"].double()})
    assert equivalence_errors(*arguments) == {}
    same.equivalent(lambda trial: {"out": trial.actual["out"] < 2.5})
    assert equivalence_errors(*arguments)["out"].tolist() == [0, 0, math.inf]
    same.equivalent(lambda trial: {"out": torch.tensor([0.5, math.nan, 2.0])})
    assert equivalence_errors(*arguments)["out"].tolist() == [0.5, math.inf, 2.0]
    same.equivalent(lambda trial: {"out": torch.zeros(2)})
    with pytest.raises(ProblemError, match="not 'out' of"):
        equivalence_errors(*arguments)
