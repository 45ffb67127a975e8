"""Generators and recipes see a computation, never a problem's name."""

import re
from pathlib import Path

import pytest

from kernelwright import codegen, recipes, suite
from kernelwright.model import Machine, Toolchain
from kernelwright.problems import ProblemReference, load_problem, trace_program

MACHINE = Machine(
    name="laptop", cpu="a CPU", cores=4, vector_bits=256, isa=("avx2", "fma"), l1_bytes=32768,
    l2_bytes=1 << 20, l3_bytes=8 << 20, memory_bytes=8 << 30, os="Linux",
    toolchains=(Toolchain("g++", "/usr/bin/g++", "12", "libgomp", 4),),
)  # fmt: skip


def _families(reference, dtype):
    problem = load_problem(reference)
    sizes = problem.bench_workload(None, dtype).sizes
    program = trace_program(problem, dtype)
    found = codegen.families(program, dtype, MACHINE, sizes, "kernel")
    return found + recipes.families(program, dtype, MACHINE, sizes, "kernel")


OFFERED = [
    (name, dtype)
    for name in suite.names()
    if name not in suite.SETS["unmatched"]
    for dtype in load_problem(suite.find(name)).dtypes
]


@pytest.mark.parametrize(("name", "dtype"), OFFERED)
def test_a_renamed_problem_gets_the_same_candidates(name, dtype, tmp_path):
    shipped = suite.find(name)
    text = Path(shipped.path).read_text()
    renamed = re.sub(rf"\b{name}\b", "something_else", text)
    assert renamed != text
    path = tmp_path / "something_else.py"
    path.write_text(renamed)
    original = _families(shipped, dtype)
    assert original, f"nothing is offered for {name}"
    assert _families(ProblemReference(str(path), "something_else"), dtype) == original
