"""Sizes, distributions and scalars of workloads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype, FrozenMap
from kernelwright.problems import problem, public_from_json, public_to_json
from kernelwright.problems.distributions import STANDARD
from kernelwright.problems.workloads import CHECK_WORK, HELDOUT_BYTES, HELDOUT_WORK


def scale(low=1, high=5000, **declared):
    @problem(
        sizes={"cpu": [dict(T=low, H=min(high, 128))]},
        ranges=dict(T=(low, high), H=(1, high)),
        **declared,
    )
    def scaled(
        x: Float[Tensor, "T H"], keep: Bool[Tensor, "H"], a: float = 1e-6, double_it: bool = False
    ) -> Float[Tensor, "T H"]:
        """Scale what is kept."""
        return torch.where(keep, x * a * (2 if double_it else 1), x)

    return scaled


def test_checks_meet_awkward_sizes_all_distributions_and_other_scalars():
    p = scale()
    found = p.check_workloads(Dtype.F32, seed=1)
    sizes = {name: {w.sizes[name] for w in found} for name in ("T", "H")}
    for seen in sizes.values():
        assert 1 in seen
        assert any(n > 1 and n % 2 for n in seen)
        assert any(n > 1000 for n in seen)
        assert seen & {15, 16, 17, 31, 32, 33, 63, 64, 65}
    assert FrozenMap({"T": 1, "H": 1}) in {w.sizes for w in found}
    assert {w.distribution for w in found} == set(p.distributions)
    assert {w.scalars["a"] for w in found} == {1e-6, 1e-3}
    assert {w.scalars["double_it"] for w in found} == {False, True}
    assert {w.tier for w in found} == {"check"}
    assert len(found) == len(set(found)) < 60
    assert sum(w.sizes["T"] * w.sizes["H"] for w in found) < 4_000_000


def test_declared_work_limits_the_sizes():
    p = scale(work="T*H*T")
    found = p.check_workloads(Dtype.F32, 1)
    assert max(w.sizes["T"] for w in found) > 250
    assert all(w.sizes["T"] ** 2 * w.sizes["H"] <= CHECK_WORK for w in found)
    for w in p.heldout_workloads(Dtype.F32, 1, 40):
        assert w.sizes["T"] ** 2 * w.sizes["H"] <= HELDOUT_WORK
    with pytest.raises(ProblemError, match="work names 'N', which is none of T, H"):
        scale(work="N*T")


def test_checks_depend_on_the_seed_only():
    p = scale()
    assert p.check_workloads(Dtype.F32, 1) == p.check_workloads(Dtype.F32, 1)
    assert p.check_workloads(Dtype.F32, 1) != p.check_workloads(Dtype.F32, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6), st.integers(0, 2**40))
def test_every_workload_respects_the_ranges(low, span, seed):
    p = scale(low, low + span)
    found = p.check_workloads(Dtype.BF16, seed) + p.heldout_workloads(Dtype.BF16, seed, 6)
    for w in found:
        assert low <= w.sizes["T"] <= low + span
        assert 1 <= w.sizes["H"] <= low + span
    for w in p.heldout_workloads(Dtype.BF16, seed, 6):
        assert w.sizes["T"] * w.sizes["H"] <= HELDOUT_WORK
        assert sum(t.nbytes(w.sizes, w.dtype) for t in p.signature.tensors) <= HELDOUT_BYTES


def test_heldout_sizes_spread_over_magnitudes():
    found = scale().heldout_workloads(Dtype.F32, 3, 60)
    sizes = [w.sizes["T"] for w in found]
    assert min(sizes) < 30
    assert max(sizes) > 1500
    assert {w.tier for w in found} == {"heldout"}
    assert len({w.distribution for w in found}) > 1


def test_inputs_follow_workload_and_seed():
    p = scale()
    w = p.bench_workload(dict(T=9, H=5), "bf16")
    inputs = p.make_inputs(w, 7)
    assert list(inputs) == ["x", "keep"]
    assert inputs["x"].dtype is torch.bfloat16
    assert inputs["x"].shape == (9, 5)
    assert inputs["keep"].dtype is torch.bool
    again, other = p.make_inputs(w, 7), p.make_inputs(w, 8)
    assert torch.equal(inputs["x"], again["x"])
    assert not torch.equal(inputs["x"], other["x"])


@pytest.mark.parametrize("name", sorted(STANDARD))
def test_standard_distributions_are_finite_and_of_their_shape(name):
    for shape in [(), (1,), (7,), (4096,), (3, 65), (2, 3, 1)]:
        values = STANDARD[name](shape, torch.Generator().manual_seed(1))
        assert values.shape == shape
        assert values.dtype is torch.float64
        assert values.isfinite().all()


def test_hard_distributions_are_hard():
    draw = {n: f((4, 4096), torch.Generator().manual_seed(5)) for n, f in STANDARD.items()}
    assert draw["huge"].abs().max() > 2e4
    assert draw["tiny"].abs().max() < 1e-2
    assert draw["outliers"].abs().max() > 500 > draw["outliers"].abs().median() * 100
    assert (draw["offset"].mean() / draw["offset"].std()) > 50
    cancelling = draw["cancelling"]
    assert (cancelling.sum(-1).abs() < cancelling.abs().sum(-1) / 500).all()
    assert cancelling[..., :2048].abs().mean() > 50
    spread = STANDARD["mixed_rows"]((64, 512), torch.Generator().manual_seed(5)).std(-1)
    assert spread.max() / spread.min() > 1e4
    assert STANDARD["outliers"]((1,), torch.Generator().manual_seed(5)).abs() > 1


@pytest.mark.parametrize(
    ("sizes", "dtype", "says"),
    [
        (dict(T=3), "f32", "needs a size for 'H'"),
        (dict(T=3, H=4, K=1), "f32", "has no size 'K', only T, H"),
        (dict(T=0, H=4), "f32", "T=0 is outside its range, 1 to 5000"),
        (dict(T=9999, H=4), "f32", "T=9999 is outside"),
        (dict(T=2.5, H=4), "f32", "T=2.5 is outside"),
        (dict(T=3, H=4), "f64", "not declared for f64, only f32, bf16"),
        (dict(T=3, H=4), "float", "unknown dtype 'float'"),
        (3, "f32", "declares 1 bench sizes for 'cpu': give them, T=...,H=..."),
    ],
)
def test_unusable_sizes_are_said(sizes, dtype, says):
    with pytest.raises(ProblemError) as caught:
        scale().bench_workload(sizes, dtype)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        (dict(dtypes=("f31",)), "unknown dtype 'f31'"),
        (dict(dtypes=()), "declares no dtype"),
        (dict(distributions=("normal", "weird")), "distributions names 'weird'"),
        (dict(distributions=("huge",)), "must include 'normal'"),
        (dict(scalar_choices={"b": (1,)}), "scalar_choices names 'b'"),
        (dict(slices="K"), "slices names 'K'"),
        (dict(low=7, high=3), "range of 'T' is (7, 3)"),
    ],
)
def test_unusable_declarations_are_said(declared, says):
    with pytest.raises(ProblemError) as caught:
        scale(**declared)
    assert says in str(caught.value)


def test_integers_need_a_maker_and_makers_are_checked():
    @problem(sizes={"cpu": [dict(N=8, M=4)]})
    def pick(x: Float[Tensor, "N"], i: Int32[Tensor, "M"]) -> Float[Tensor, "M"]:
        """Pick."""
        return x[i]

    w = pick.bench_workload()
    with pytest.raises(ProblemError, match="nothing says which integers 'i' may hold"):
        pick.make_inputs(w, 0)

    @pick.inputs("normal")
    def indices(sizes, scalars, generator):
        return {"i": torch.randint(sizes["N"], (sizes["M"],), generator=generator)}

    inputs = pick.make_inputs(w, 0)
    assert inputs["i"].dtype is torch.int32
    assert inputs["i"].max() < 8

    @pick.inputs("short")
    def short(sizes, scalars, generator):
        return {"i": torch.zeros(1, dtype=torch.int64)}

    @pick.inputs("wrong name")
    def wrong(sizes, scalars, generator):
        return {"j": torch.zeros(1)}

    for name, says in [("short", r"shape \(1,\), declared is \(4,\)"), ("wrong name", "makes 'j'")]:
        bad = [x for x in pick.check_workloads(Dtype.F32, 0) if x.distribution == name]
        at_bench = type(w)(w.problem, w.dtype, w.sizes, w.scalars, name)
        assert bad
        with pytest.raises(ProblemError, match=says):
            pick.make_inputs(at_bench, 0)
    with pytest.raises(ProblemError, match="defined twice"):
        pick.inputs("short")(short)


def test_a_scalar_that_is_a_size_comes_from_the_sizes():
    @problem(sizes={"cpu": [dict(N=8, k=3)]}, ranges=dict(N=(8, 64), k=(1, 8)))
    def first(x: Float[Tensor, "N"], k: int) -> Float[Tensor, "k"]:
        """The first k."""
        return x[:k]

    w = first.bench_workload()
    assert w.scalars == {"k": 3}
    assert {x.scalars["k"] == x.sizes["k"] for x in first.check_workloads(Dtype.F32, 0)} == {True}


def test_public_record_survives_json_and_hides_decorators():
    import json

    public = scale(slices="T", source="here").public()
    assert public_from_json(json.loads(json.dumps(public_to_json(public)))) == public
    assert public.summary == "Scale what is kept."
    assert public.reference_text.startswith("def scaled(")
    assert "torch.where" in public.reference_text
