"""The minimal kernel of every shipped problem compiles and is right."""

import ctypes
import shutil
import subprocess

import pytest
import torch

from kernelwright import suite
from kernelwright.build import include_folder
from kernelwright.codegen.plain import plain_kernel
from kernelwright.errors import Unsupported
from kernelwright.model import Dtype, FrozenMap, Signature, TensorArgument, Workload
from kernelwright.problems import load_problem, run_reference, torch_dtype, trace_program

CTYPES = {"float": ctypes.c_double, "int": ctypes.c_int64, "bool": ctypes.c_int32}


def build(source, folder):
    (folder / "k.cpp").write_text(source)
    compiler = shutil.which("g++")
    assert compiler, "the tests need g++"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-fopenmp", "-Wall", "-Werror"]
    command = [compiler, *flags, f"-I{include_folder()}", "k.cpp", "-o", "k.so"]
    subprocess.run(command, cwd=folder, check=True, timeout=120)
    return ctypes.CDLL(str(folder / "k.so")).kernel


def call(kernel, signature, dtype, inputs, sizes, scalars):
    outputs = [
        torch.full(t.shape(sizes), 77, dtype=torch_dtype(t.resolve(dtype)))
        for t in signature.outputs
    ]
    arguments = [ctypes.c_void_p(t.data_ptr()) for t in (*inputs.values(), *outputs)]
    arguments += [ctypes.c_int64(sizes[n]) for n in signature.dimensions]
    arguments += [CTYPES[s.kind](scalars[s.name]) for s in signature.scalars]
    arguments += [None, None, ctypes.c_int64(0), None]
    assert kernel(*arguments) == 0
    return outputs


def in_the_form():
    """Shipped problems inside the expression form, in each of their dtypes."""
    found = []
    for name in suite.names():
        problem = load_problem(suite.find(name))
        try:
            trace_program(problem)
        except Unsupported:
            continue
        found += [(name, dtype) for dtype in problem.dtypes]
    return found


@pytest.mark.parametrize(("name", "dtype"), in_the_form())
def test_every_shipped_problem_in_the_form_has_a_right_minimal_kernel(name, dtype, tmp_path):
    problem = load_problem(suite.find(name))
    signature = problem.signature
    kernel = build(plain_kernel(signature, trace_program(problem, dtype), dtype), tmp_path)
    least = {name: low for name, (low, _) in problem.ranges.items()}
    sizes = FrozenMap({n: max(least[n], 5 + 2 * i) for i, n in enumerate(problem.size_names)})
    scalars = problem.default_scalars(sizes)
    inputs = problem.make_inputs(Workload(name, dtype, sizes, scalars), seed=3)
    wanted = run_reference(problem, inputs, scalars, "oracle")
    found = call(kernel, signature, dtype, inputs, sizes, scalars)
    for actual, expected in zip(found, wanted, strict=True):
        rounding = dtype.unit_roundoff * 4
        torch.testing.assert_close(
            actual.double(), expected.double(), rtol=rounding, atol=rounding * 0.1
        )


def test_a_problem_outside_of_the_form_gets_a_kernel_that_reports_an_error(tmp_path):
    signature = Signature((TensorArgument("x", ("N",)),), (TensorArgument("out", ("N",)),))
    kernel = build(plain_kernel(signature, None, Dtype.F32), tmp_path)
    assert kernel(None, None, ctypes.c_int64(0), None, None, ctypes.c_int64(0), None) == 1
