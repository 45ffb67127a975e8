# ruff: noqa: E501  (tables of small files)
"""Loading problem files; problems derived from plain functions."""

import json
import subprocess
import sys

import pytest
import torch

from kernelwright.errors import ProblemError
from kernelwright.model import Dtype
from kernelwright.problems import (
    ProblemReference,
    load_problem,
    parse_reference,
    reference_from_callable,
    run_reference,
)

HEADER = """
import torch
from jaxtyping import Float
from torch import Tensor
from kernelwright.problems import problem
"""
ONE = (
    HEADER
    + """
@problem(sizes={"cpu": [dict(N=8)]})
def double(x: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    '''Twice.'''
    return x * 2
"""
)


def write(folder, text, name="file.py"):
    path = folder / name
    path.write_text(text)
    return ProblemReference(str(path))


def test_a_declared_problem_loads(tmp_path):
    reference = write(tmp_path, ONE + "alias = double\n")
    loaded = load_problem(reference)
    assert loaded.name == "double"
    assert torch.equal(loaded(torch.ones(3)), torch.full((3,), 2.0))
    assert load_problem(ProblemReference(reference.path, "double")).signature == loaded.signature
    assert loaded.declaration.derived == ()


@pytest.mark.parametrize(
    ("text", "function", "says"),
    [
        ("x = 1\n", None, "has no problem: decorate a function with @problem"),
        (ONE, "triple", "has no function 'triple', it has double"),
        (ONE, "missing", "has no function 'missing'"),
        (ONE + ONE.replace(HEADER, "").replace("double", "triple"), None, "several problems (double, triple): say which, file.py:double"),
        ("def f(x): return x\ndef g(x): return x\n", None, "several functions (f, g)"),
        ("def f(x):\n    return x\n", None, "plain function without example inputs"),
        ("def f(x:\n", None, "line 1 is not Python"),
        ("import no_such_module\n", None, "fails while it is imported: ModuleNotFoundError"),
        ("def f(x): return x\ndef get_inputs(): return 1 / 0\n", None, "get_inputs() of"),
        ("def f(x): return x\ndef get_inputs(): return []\n", None, "do not fit: missing a required argument: 'x'"),
        ("def f(x): return x\ndef get_inputs(): return ['a']\n", None, "the example of 'x' is a str"),
        ("def f(x): return x\ndef get_inputs(): return [3]\n", None, "hold no tensor"),
        ("import torch\ndef f(x, y): return x @ y\ndef get_inputs(): return torch.ones(2, 3), torch.ones(2, 3)\n", None, "the function 'f' fails on its example inputs: RuntimeError"),
        ("import torch\ndef f(x): return x[x > 0]\ndef get_inputs(): return [torch.ones(3)]\n", None, "the function 'f' fails on its example inputs"),
        ("import torch\ndef f(x): return x.shape[0]\ndef get_inputs(): return [torch.ones(3)]\n", None, "the results must be tensors"),
        ("import torch\ndef f(x, y): return x + y\ndef get_inputs(): return torch.ones(3), torch.ones(3).half()\n", None, "mix f16, f32: annotate"),
        (HEADER + "@problem()\ndef f(x): return x\n", None, "the argument 'x' has no usable type"),
        (HEADER + "@problem(sizes={'cpu': [dict(M=3)]})\ndef f(x: Float[Tensor, 'N']) -> Float[Tensor, 'N']: return x\n", None, "sizes names 'M', which is none of N"),
        (HEADER + "@problem(sizes={'cpu': [dict(N=3)]})\ndef f(x: Float[Tensor, 'N M']) -> Float[Tensor, 'N']: return x\n", None, "needs a size for 'M'"),
        (HEADER + "@problem()\ndef f(x: Float[Tensor, 'N'], a: float) -> Float[Tensor, 'N']: return x\n", None, "the scalar 'a' needs a default"),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded_is_said_in_one_sentence(tmp_path, text, function, says):
    reference = ProblemReference(write(tmp_path, text).path, function)
    with pytest.raises(ProblemError) as caught:
        load_problem(reference)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_references_are_parsed_and_survive_json(tmp_path, monkeypatch):
    path = write(tmp_path, ONE).path
    monkeypatch.chdir(tmp_path)
    assert parse_reference("file.py") == ProblemReference(path, None)
    both = parse_reference("file.py:double")
    assert both == ProblemReference(path, "double")
    assert ProblemReference.from_json(json.loads(json.dumps(both.to_json()))) == both
    assert str(both) == f"{path}:double"
    for text, says in [
        ("nowhere.py", "there is no problem file 'nowhere.py'"),
        ("file", "is not a problem: give the name of a shipped problem"),
        ("file.py:not a name", "is not a problem"),
        ("file.txt:f", "is not a problem"),
    ]:
        with pytest.raises(ProblemError, match=says):
            parse_reference(text)
    with pytest.raises(ProblemError, match="there is no problem file"):
        load_problem(ProblemReference(str(tmp_path / "gone.py")))


def derived(tmp_path, function, *examples):
    return load_problem(reference_from_callable(function, examples, tmp_path / "store"))


def test_equal_axes_share_a_size_only_where_they_must(tmp_path):
    p = derived(
        tmp_path, lambda a, b, c: (a @ b) * c, torch.ones(8, 8), torch.ones(8, 8), torch.ones(8)
    )
    a, b, c = (t.dims for t in p.signature.inputs)
    assert a[1] == b[0]
    assert b[1] == c[0]
    assert len({a[0], a[1], b[1]}) == 3
    assert p.signature.outputs[0].dims == (a[0], b[1])
    said = " ".join(p.declaration.derived)
    assert "a.shape[1] and b.shape[0] are one size" in said
    assert "from 1 to twice" in said
    w = p.bench_workload(dict(zip(p.size_names, (3, 5, 7), strict=True)))
    assert run_reference(p, p.make_inputs(w, 0), w.scalars)[0].shape == (3, 7)


def test_fixed_axes_scalars_and_result_shapes_are_found(tmp_path):
    table = torch.arange(16.0)

    def function(x, y, scale=0.5, flip=False, note=None):
        z = (x * table * scale)[:, : x.shape[1] // 2]
        return torch.cat((z.sum(1), y)), z.to(torch.float64), y[1:]

    p = derived(tmp_path, function, torch.ones(6, 16), torch.ones(10))
    x, y = p.signature.inputs
    assert x.dims[1] == "16"
    total, half, rest = p.signature.outputs
    assert (total.dims, half.dims, rest.dims) == (
        (f"{x.dims[0]}+{y.dims[0]}",),
        (x.dims[0], "8"),
        (f"{y.dims[0]}-1",),
    )
    assert half.dtype is Dtype.F64
    assert [(s.name, s.kind, s.default) for s in p.signature.scalars] == [
        ("scale", "float", 0.5),
        ("flip", "bool", False),
    ]
    assert any("x.shape[1] is always 16" in s for s in p.declaration.derived)


def test_example_values_bound_what_is_drawn(tmp_path):
    def gather(table, index, weight):
        return table[index] * weight.log()[:, None]

    p = derived(
        tmp_path, gather, torch.randn(50, 4), torch.arange(20) % 7, torch.linspace(0.5, 3, 20)
    )
    for w in p.check_workloads(Dtype.F32, 1):
        if all(n >= 50 for n in w.sizes.values()):
            inputs = p.make_inputs(w, 1)
            assert 0 <= inputs["index"].min() <= inputs["index"].max() <= 6
            assert inputs["weight"].min() >= 0
            assert inputs["table"].min() < 0
    said = " ".join(p.declaration.derived)
    assert "'index' holds integers from 0 to 6" in said
    assert "'weight' is never negative" in said


def test_bf16_examples_make_a_bf16_problem(tmp_path):
    p = derived(tmp_path, torch.nn.functional.silu, torch.ones(4, 5).bfloat16())
    assert p.dtypes == (Dtype.BF16,)
    assert p.signature.outputs[0].dtype is None


def test_example_shapes_are_enough(tmp_path):
    text = "def add(x, y):\n    return x + y\nexample_shapes = {'x': (4, 6), 'y': (6,)}\n"
    p = load_problem(write(tmp_path, text))
    assert p.signature.inputs[0].dims[1:] == p.signature.inputs[1].dims
    assert p.public().reference_text.startswith("def add")
    assert p.bench_workload().sizes == {"D0": 4, "D1": 6}


def test_annotated_plain_function_takes_only_sizes_from_examples(tmp_path):
    text = HEADER + (
        "def add(x: Float[Tensor, 'T H'], y: Float[Tensor, 'H']) -> Float[Tensor, 'T H']:\n"
        "    return x + y\n"
        "def get_inputs():\n    return {'x': torch.ones(4, 6), 'y': torch.ones(6)}\n"
    )
    p = load_problem(write(tmp_path, text))
    assert p.bench_workload().sizes == {"T": 4, "H": 6}
    bad = text.replace("torch.ones(6)", "torch.ones(5)")
    with pytest.raises(ProblemError, match="give 'H' two sizes, 6 and 5"):
        load_problem(write(tmp_path, bad, "bad.py"))


def test_closures_and_problems_cross_processes(tmp_path):
    factor = 3.0
    reference = reference_from_callable(lambda x: x * factor, [torch.ones(4)], tmp_path)
    loaded = load_problem(write(tmp_path, ONE))
    declared = reference_from_callable(loaded, [], tmp_path)
    code = (
        "import sys; from kernelwright.problems import ProblemReference, load_problem; import torch\n"
        "for path in sys.argv[1:]: print(load_problem(ProblemReference(path))(torch.ones(1)).item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, reference.path, declared.path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["3.0", "2.0"]


def test_references_need_no_torch():
    code = (
        "import sys, kernelwright.problems as p, kernelwright.suite as s\n"
        "s.find('softmax'); p.ProblemReference('x'); p.public_to_json\n"
        "assert 'torch' not in sys.modules and 'jaxtyping' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
