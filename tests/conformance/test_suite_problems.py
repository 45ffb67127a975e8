"""Every shipped problem: admitted, complete, and as its declaration says."""

import inspect

import pytest
import torch

from kernelwright import suite
from kernelwright.errors import ProblemError, Unsupported
from kernelwright.model import Dtype
from kernelwright.problems import (
    Expectation,
    Problem,
    admit,
    baselines,
    load_problem,
    run_reference,
    trace_program,
)
from kernelwright.problems.admission import trivial_answers

DTYPES = {
    "histogram": {Dtype.U8, Dtype.I32},
    "kvq_decode_attention": {Dtype.BF16, Dtype.F16},
    "log_bessel_iv": {Dtype.F32, Dtype.F64},
    "nbody_forces": {Dtype.F32},
    "w4a16_gemm": {Dtype.BF16, Dtype.F16, Dtype.F32},
}
"""Where they are not f32 and bf16."""
OPTIONAL = {"numba"}
"""Peers that are absent where a library is not installed."""
CASTS = (".to(", ".float()", ".double()", ".half()", ".bfloat16()", ".type(", "dtype")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name: str) -> Problem:
    return load_problem(suite.find(name))


def all_dtypes():
    return [
        (name, dtype)
        for name in suite.names()
        for dtype in sorted(DTYPES.get(name, {Dtype.F32, Dtype.BF16}))
    ]


def test_sets_scenarios_and_misspelt_names():
    assert set(suite.names("starter")) <= set(suite.names())
    assert "kmeans_assign" in suite.names("core")
    with pytest.raises(ProblemError, match="no set 'stater': choose from starter, core, unmatched"):
        suite.names("stater")
    assert suite.scenario("softmax") == "llm"
    with pytest.raises(ProblemError, match="no shipped problem 'sofmax': did you mean softmax"):
        suite.find("sofmax")


@pytest.mark.parametrize("name", suite.names())
def test_declaration_is_complete(name):
    p = load(name)
    public = p.public()
    assert p.name == name
    assert public.scenario == suite.scenario(name)
    assert public.summary.endswith(".")
    assert public.source
    assert {"cpu", "gpu"} <= set(public.sizes)
    assert set(p.dtypes) == DTYPES.get(name, {Dtype.F32, Dtype.BF16})
    assert len(p.distributions) >= 3
    assert p.peers
    assert p.trivial_answers
    assert not any(cast in public.reference_text for cast in CASTS)
    for target in ("cpu", "gpu"):
        cost = p.cost_of(p.bench_workload(None, None, target).sizes, p.dtypes[0])
        assert cost.bytes_read > 0 < cost.bytes_written


@pytest.mark.parametrize(("name", "dtype"), all_dtypes())
def test_admitted(name, dtype):
    report = admit(load(name), dtype)
    assert report.ok, "\n".join(map(str, report.findings))
    assert report.tried > 20


@pytest.mark.parametrize("name", sorted(set(suite.names()) - set(suite.SETS["unmatched"])))
def test_the_expression_form_is_found(name):
    assert trace_program(load(name)).outputs


@pytest.mark.parametrize("name", suite.names("unmatched"))
def test_what_is_called_unmatched_is_outside_of_the_expression_form(name):
    with pytest.raises(Unsupported):
        trace_program(load(name))


@pytest.mark.parametrize(("name", "dtype"), all_dtypes())
def test_every_check_workload_runs_and_most_are_usable(name, dtype):
    p = load(name)
    usable = 0
    workloads = p.check_workloads(dtype, 5)
    for w in workloads:
        expectation = Expectation.of(p, p.make_inputs(w, 3), w.scalars)
        usable += expectation.usable()
        for run in expectation.sound:
            assert expectation.accepts(run), w.label()
    assert usable > 0.9 * len(workloads)


@pytest.mark.parametrize("name", suite.names())
def test_every_peer_is_right(name):
    p = load(name)
    found = baselines(p)
    dtype = Dtype.F32 if Dtype.F32 in p.dtypes else p.dtypes[0]
    for w in [w for w in p.check_workloads(dtype, 6) if w.distribution == "normal"][:8]:
        inputs = p.make_inputs(w, 3)
        expectation = Expectation.of(p, inputs, w.scalars)
        for peer in p.peers:
            try:
                answer = found[peer](inputs, w.scalars)
            except ImportError:
                assert peer in OPTIONAL
                continue
            assert expectation.accepts(answer), f"{peer} at {w.label()}"


@pytest.mark.parametrize("name", suite.names())
def test_references_do_not_change_their_inputs(name):
    p = load(name)
    w = p.check_workloads(p.dtypes[0], 1)[3]
    inputs = p.make_inputs(w, 3)
    before = {n: t.clone() for n, t in inputs.items()}
    outputs = run_reference(p, inputs, w.scalars, "eager")
    for n, t in inputs.items():
        assert torch.equal(t, before[n])
        assert all(
            o.untyped_storage().data_ptr() != t.untyped_storage().data_ptr() for o in outputs
        )


# The gate itself: it must refuse what it is there to refuse


def weakened(name: str, **changes) -> Problem:
    """A shipped problem with some of its parts replaced."""
    p = load(name)
    for attribute, value in changes.items():
        setattr(p, attribute, value)
    return p


def said(p: Problem, dtype: Dtype = Dtype.F32) -> str:
    return "\n".join(map(str, admit(p, dtype).findings))


def test_the_gate_refuses_inputs_that_let_zeros_pass():
    p = load("swiglu")
    p.inputs("empty")(lambda sizes, scalars, generator: {"g": torch.zeros(sizes["M"], sizes["N"])})
    assert "empty: trivial zeros for out: a wrong answer passes" in said(p)


def test_the_gate_refuses_rows_that_let_the_mean_pass():
    p = load("softmax")
    p.inputs("flat")(lambda sizes, scalars, generator: {"x": torch.ones(sizes["T"], sizes["H"])})
    assert "flat: trivial the mean for out: a wrong answer passes" in said(p)


def test_the_gate_refuses_an_input_or_scalar_that_does_not_matter():
    p = weakened("rms_norm", function=lambda x, w, eps: x * x.square().mean(-1, True).rsqrt())
    text = said(p)
    assert "all: input w: changing it changes no output" in text
    assert "all: scalar eps: changing it changes no output" in text
    p = weakened("swiglu", function=lambda g, v, beta: torch.ones_like(g) * 3)
    assert "normal: output out: depends on no input" in said(p)


def test_the_gate_refuses_what_float32_cannot_do():
    p = load("matrix_vector_mul")

    @p.inputs("hopeless")
    def hopeless(sizes, scalars, generator):
        A = torch.randn((sizes["M"], sizes["N"]), generator=generator) * 1e12
        half = sizes["N"] // 2
        A[:, half : 2 * half] = -A[:, :half]
        A[:, -1] = torch.randn(sizes["M"], generator=generator)
        return {"A": A, "x": torch.ones(sizes["N"]) / 3}

    assert "hopeless: float32: is itself off by more than 1 %" in said(p)


def test_the_gate_refuses_wrong_slices():
    p = weakened("softmax", function=lambda x: torch.softmax(x, 0))
    assert "slices T: values differ" in said(p)


def test_the_gate_refuses_an_equivalence_that_accepts_everything():
    p = load("kmeans_assign")
    p.equivalent(lambda trial: {n: torch.zeros(t.shape) for n, t in trial.actual.items()})
    text = said(p)
    assert "trivial first half of the centroids: a wrong answer passes" in text
    assert "output label: depends on no input" in text


@pytest.mark.parametrize("name", suite.names())
def test_own_trivial_answers_have_the_reference_signature(name):
    p = load(name)
    wanted = list(inspect.signature(p.function).parameters)
    for function in (*p.trivial_answers.values(), *p.peers.values()):
        assert list(inspect.signature(function).parameters) == wanted


# Assignment has an equivalence of its own


def kmeans(x, c, label, distance):
    p = load("kmeans_assign")
    inputs = {"x": torch.tensor(x), "c": torch.tensor(c)}
    expectation = Expectation.of(p, inputs, {})
    return expectation.worst((torch.tensor(label, dtype=torch.int32), torch.tensor(distance)))


def test_assignment_forgives_close_seconds_and_nothing_else():
    x, near, far = [[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0 + 1e-6]]
    assert max(kmeans(x, near + far, [0], [1.0]).values()) <= 1
    assert max(kmeans(x, near + far, [1], [1.000002]).values()) <= 1  # 2e-6 worse: a fair tie
    assert kmeans(x, [*near, [0.0, 1.001]], [1], [1.002001])["label"] > 1  # 2e-3 worse: wrong
    assert kmeans(x, [*near, *near], [1], [1.0])["label"] > 1  # a tie goes to the lower index
    assert kmeans(x, near + far, [2], [1.0])["label"] > 1
    assert kmeans(x, near + far, [-1], [1.0])["label"] > 1
    assert kmeans(x, near + far, [0], [1.001])["distance"] > 1
    assert kmeans(x, near + far, [0], [float("nan")])["distance"] > 1


def test_ties_are_planted_and_trivial_answers_cover_each_output():
    p = load("kmeans_assign")
    w = next(
        w for w in p.check_workloads(Dtype.F32, 1) if w.distribution == "ties" and w.sizes["K"] > 30
    )
    inputs = p.make_inputs(w, 1)
    distance = (inputs["x"][:, None] - inputs["c"]).square().sum(-1).sort(-1).values
    assert (distance[:, 0] == distance[:, 1]).float().mean() > 0.5
    expectation = Expectation.of(p, inputs, w.scalars)
    names = [name for name, _ in trivial_answers(p, expectation)]
    assert {"zeros for label", "zeros for distance", "subsample", "second nearest"} <= set(names)
