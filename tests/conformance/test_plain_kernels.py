"""The plainest right kernel of a problem passes the judge's check on every check workload.

It shows that oracle, budget and ABI of a problem are usable by somebody who just writes the loops.
The kernels are written once for all dtypes: ELEMENT is replaced by the C type of the workload's.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from kernelwright.build import CppBuilder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Measured, Rejected
from kernelwright.suite import find

FOLDER = Path(__file__).parent / "plain_kernels"
SIZES = {
    "gelu": dict(M=64, N=65),
    "layer_norm": dict(T=64, H=65),
    "cross_entropy_loss": dict(T=64, C=65),
    "matrix_transpose": dict(M=64, N=65),
    "w4a16_gemm": dict(M=5, G=2, N=33),
    "softmax_attention": dict(S=33, D=16, L=35, E=17),
    "attention_gqa_causal": dict(B=2, Hk=2, G=3, S=33, D=16),
    "paged_decode_attention": dict(B=3, Hk=2, G=3, D=16, P=32, L=5),
    "depthwise_conv31": dict(N=1, C=3, H=35, W=37),
    "spmv_csr": dict(M=300, Z=4000, N=301),
    "stencil_2d": dict(H=64, W=65),
    "nbody_forces": dict(N=129),
    "histogram": dict(N=5000, bins=256),
    "topk_rows": dict(T=9, N=200, k=5),
    "kvq_decode_attention": dict(B=1, Hk=2, G=2, E=1, N=3, R=17),
    "log_bessel_iv": dict(N=500),
    "lstm_sequence": dict(T=12, B=2, H=2, D=16),
}
"""Of the bench workload, which is only the last that is checked."""
OTHER = {"nbody_forces": Dtype.F32, "histogram": Dtype.I32, "log_bessel_iv": Dtype.F32}
"""The dtype to judge in, where it is not bf16: what rounds most."""
BROKEN = {
    "softmax_attention": ("sqrtf((float)D)", "sqrtf((float)(D + 1))"),
    "paged_decode_attention": ("head = row / G % Hk", "head = row % Hk"),
    "kvq_decode_attention": ("code(word, d % 16)", "code(word, 15 - d % 16)"),
    "lstm_sequence": ("gates[3 * D + e]", "gates[2 * D + e]"),
    "topk_rows": ("first > second ||", "first < second ||"),
    "spmv_csr": ("at < rows[i + 1]", "at < rows[i + 1] - (rows[i] + 40 < rows[i + 1])"),
}  # fmt: skip
"""A small mistake in some of the kernels."""


@pytest.fixture(scope="module")
def machine():
    return probe()


def judged(name, machine, folder, change=("", "")):
    dtype = OTHER.get(name, Dtype.BF16)
    source = (FOLDER / f"{name}.cpp").read_text().replace("ELEMENT", dtype.c_type)
    assert change[0] in source
    candidate = Candidate(
        "cpp", "kernel", source.replace(*change), FrozenMap({"FLAGS": "-O2 -march=native"})
    )
    builder = CppBuilder(machine.toolchains, folder)
    settings = replace(JudgeSettings.quick(), baselines=(), flush_factor=0.02)
    with Judge(
        find(name), dtype, FrozenMap(SIZES[name]), machine, builder, seed=7, settings=settings
    ).open() as judge:
        artifact = builder.build(candidate)
        assert not isinstance(artifact, Rejected), artifact.diagnostic
        return judge.screen(candidate, artifact).verdict, judge.verified()


@pytest.mark.parametrize("name", SIZES)
def test_a_plain_kernel_passes(name, machine, tmp_path):
    verdict, verified = judged(name, machine, tmp_path)
    if verified["refused"]:  # float32 itself was off on an unlucky draw: another one must be usable
        verdict, verified = judged(name, machine, tmp_path)
    assert isinstance(verdict, Measured), verdict.diagnostic
    assert verified["workloads"] > 20
    assert not verified["refused"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_in_it_is_found(name, machine, tmp_path):
    verdict, _ = judged(name, machine, tmp_path, BROKEN[name])
    assert isinstance(verdict, Rejected)
    assert str(verdict.reason) == "wrong_result"


def test_every_kernel_belongs_to_a_test():
    assert {path.stem for path in FOLDER.glob("*.cpp")} == set(SIZES)
