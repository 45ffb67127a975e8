"""Problems that were written without a look at the code get kernels without a line for them."""

from pathlib import Path

import pytest

from kernelwright import codegen
from kernelwright.model import Dtype, Machine, Toolchain
from kernelwright.problems import ProblemReference, admit, load_problem, trace_program

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "unseen"
SKELETONS = {
    "bilinear_gate": "pointwise",
    "masked_logsumexp": "rowwise",
    "odd_linear": "contraction",
}
MACHINE = Machine(
    name="laptop", cpu="a CPU", cores=4, vector_bits=256, isa=("avx2", "fma"), l1_bytes=32768,
    l2_bytes=1 << 20, l3_bytes=8 << 20, memory_bytes=8 << 30, os="Linux",
    toolchains=(Toolchain("g++", "/usr/bin/g++", "12", "libgomp", 4),),
)  # fmt: skip


@pytest.mark.parametrize("name", SKELETONS)
@pytest.mark.parametrize("dtype", [Dtype.F32, Dtype.BF16])
def test_a_generated_family_is_offered(name, dtype):
    problem = load_problem(ProblemReference(str(FOLDER / f"{name}.py"), None))
    sizes = problem.bench_workload(None, dtype).sizes
    found = codegen.families(trace_program(problem), dtype, MACHINE, sizes, "kernel")
    assert SKELETONS[name] in [family.name for family in found]


@pytest.mark.parametrize("name", SKELETONS)
def test_it_is_admitted(name):
    report = admit(load_problem(ProblemReference(str(FOLDER / f"{name}.py"), None)), Dtype.F32)
    assert report.ok, report.findings
