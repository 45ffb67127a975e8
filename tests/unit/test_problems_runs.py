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
from kernelwright.numerics import tolerance
from kernelwright.problems import (
    baselines,
    equivalence_errors,
    problem,
    reorder,
    round_to,
    run_function,
    run_reference,
    run_terms,
    sound_runs,
)
from kernelwright.problems.distributions import STANDARD
from kernelwright.problems.reorder import (
    ORDERS,
    ReorderedSums,
    ordered_cumsum,
    ordered_matmul,
    ordered_sum,
)
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


@pytest.mark.parametrize(
    "shapes",
    [
        ((7,), (7,)),
        ((5, 7), (7,)),
        ((5, 7), (7, 3)),
        ((2, 5, 7), (2, 7, 3)),
        ((1, 0), (0, 4)),
        ((0, 7), (7, 3)),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_products_are_exact_where_float32_is(order, shapes):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randint(-9, 9, shape, generator=generator).float() for shape in shapes)
    assert torch.equal(ordered_matmul(order, a, b), a @ b)


def test_the_sequential_product_errs_as_one_accumulator_does(monkeypatch):
    """Libraries split the inner dimension; a register tile adds term after term."""
    generator = torch.Generator().manual_seed(5)
    a = torch.randn((96, 1024), generator=generator)
    b = torch.randn((1024, 80), generator=generator)
    total = np.zeros((96, 80), np.float32)
    for k in range(1024):
        total += a[:, k : k + 1].numpy() * b[k : k + 1].numpy()
    found = ordered_matmul("sequential", a, b)
    exact = a.double() @ b.double()
    plainest = np.linalg.norm(total - exact.numpy())
    assert (found - exact).norm() == pytest.approx(plainest, rel=0.25)  # with or without FMA
    few = a[:5]  # with few rows, libraries split the inner dimension
    assert (few @ b - exact[:5]).norm() < 0.7 * (found - exact)[:5].norm()
    error = {order: (ordered_matmul(order, a, b) - exact).norm() for order in ORDERS}
    assert error["sequential"] > 1.5 * error["blocked"]
    monkeypatch.setattr(reorder, "_STEPS", 96 * 80 * 300)  # too large: four terms at a time
    coarse = ordered_matmul("sequential", a, b)
    assert not torch.equal(coarse, found)
    torch.testing.assert_close(coarse, found, rtol=1e-4, atol=1e-4)


def test_products_on_a_device_take_few_steps(monkeypatch):
    """Every step is a launch there, for all batches at once; the fake device only has shapes."""
    made = []
    blocked = reorder._blocked_product
    monkeypatch.setattr(
        reorder, "_blocked_product", lambda a, b, step: made.append(step) or blocked(a, b, step)
    )
    a, b = torch.empty((3, 2, 16384), device="meta"), torch.empty((3, 16384, 5), device="meta")
    assert ordered_matmul("sequential", a, b).shape == (3, 2, 5)
    assert made == [16384 // 128]


def test_sequential_running_sums_are_made_once():
    calls = []

    @problem(dtypes=("f32",), sizes={"cpu": [dict(N=9)]})
    def running(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        calls.append(1)
        return x.cumsum(0)

    w = running.bench_workload(None, "f32")
    found = sound_runs(running, running.make_inputs(w, 1), {})
    assert len(found) == len(ORDERS)
    assert len(calls) == len(ORDERS) - 1
    assert found[ORDERS.index("sequential")] is found[ORDERS.index("plain")]


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


def test_sound_runs_differ_on_a_long_sum_and_are_not_rounded_to_the_output(case):
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
    assert coarse[0][0].dtype is torch.float32
    assert ((coarse[0][0].double() - exact[0]).abs() <= 1e-2).all()
    # where rounding is part of the mathematics it has been done
    assert torch.equal(coarse[0][2], coarse[0][2].bfloat16().float())


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


# Sizes that only expressions tell, convolutions, packed weights


def test_slices_know_sizes_that_stand_in_expressions_only():
    @problem(sizes={"cpu": [dict(B=6, K=2, G=3)]}, slices="B", work="B*K*G")
    def grouped(x: Float[Tensor, "B K*G"], k: Float[Tensor, "B K"]) -> Float[Tensor, "B K*G"]:
        """Scale groups."""
        seen.append(x.shape[0])
        return x * k.repeat_interleave(x.shape[1] // k.shape[1], 1)

    seen: list[int] = []
    inputs = grouped.make_inputs(grouped.bench_workload(), 1)
    pieces = run_function(
        grouped, grouped.function, inputs, {}, inside=torch.float64, slice_points=12
    )
    assert seen == [2, 2, 2]  # 6 points a row
    wanted = grouped(**{n: t.double() for n, t in inputs.items()})
    assert torch.equal(pieces[0], wanted)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 2, 1), (2, 3, 2), (3, 0, 1)])
def test_convolutions_in_any_order_are_convolutions(groups, stride, padding, dilation):
    x, w, b = torch.randn(2, 6, 25, 19), torch.randn(6, 6 // groups, 7, 5), torch.randn(6)
    wanted = torch.nn.functional.conv2d(
        x.double(), w.double(), b.double(), stride, padding, dilation, groups
    )
    found = set()
    for order in ORDERS:
        with ReorderedSums(order):
            y = torch.nn.functional.conv2d(x, w, b, stride, padding, dilation, groups)
        assert y.dtype is torch.float32
        torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-4)
        found.add(y.sum(dtype=torch.float64).item())
    assert len(found) > 1  # the orders do differ


def test_a_peer_gets_packed_weights_and_only_static_ones():
    @problem(sizes={"cpu": [dict(N=4)]}, static=("w",))
    def scaled(x: Float[Tensor, "N"], w: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Scale."""
        return x * w

    times = []

    def inverse(w):
        times.append(1)
        return {"w": 1 / w}

    @scaled.peer("by division", prepare=inverse)
    def by_division(x, w):
        return x / w

    inputs = {"x": torch.ones(4), "w": torch.full((4,), 4.0)}
    baseline = baselines(scaled)["by division"]
    assert torch.equal(baseline(inputs, {})[0], torch.full((4,), 4.0))
    call, packed = baseline.bind(inputs, {})
    assert torch.equal(packed[0], torch.full((4,), 0.25))
    call(), call()
    assert len(times) == 2  # once for each binding, not in the call


ORACLE_CASES = {
    "sum": lambda x: x.sum(-1),
    "variance": lambda x: x.var(-1),
    "softmax": lambda x: torch.softmax(x, -1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "cumsum": lambda x: x.cumsum(-1),
    "product": lambda x: x @ x.T,
}


@pytest.mark.parametrize("distribution", ["normal", "offset", "cancelling", "mixed_rows"])
@pytest.mark.parametrize("name", ORACLE_CASES)
def test_the_oracle_errs_less_than_a_millionth_of_what_kernels_may(name, distribution):
    """Other orders of summation in float64 show its error: here about 2^-29 of it."""
    generator = torch.Generator().manual_seed(11)
    x = STANDARD[distribution]((48, 1500), generator).float()
    compute, oracle = ORACLE_CASES[name], ORACLE_CASES[name](x.double()).numpy()
    runs, others = [], []
    for order in ORDERS:
        with ReorderedSums(order):
            runs.append(compute(x).numpy())
            others.append(compute(x.double()).numpy())
    allowed = tolerance(oracle, runs, Dtype.F32)
    assert max(np.max(np.abs(other - oracle) / allowed) for other in others) < 2.0**-26


@pytest.mark.parametrize(
    ("terms", "right"), [(256, True), (1024, True), (1 << 18, False)]
)  # fmt: skip
def test_one_accumulator_will_do_for_a_thousand_terms_but_not_for_many(terms, right):
    """See `docs/numerics.md`: covering it for long sums would hide operands in TF32."""
    x = (np.random.default_rng(4).standard_normal((32, terms)) + 1e4).astype(np.float32)
    oracle, runs = x.astype(np.float64).mean(-1), []
    for order in ORDERS:
        with ReorderedSums(order):
            runs.append(torch.from_numpy(x).mean(-1).numpy())
    single = np.add.accumulate(x, axis=-1)[:, -1] / np.float32(terms)
    allowed = tolerance(oracle, runs, Dtype.F32)
    assert (np.max(np.abs(single - oracle) / allowed) < 1) == right
