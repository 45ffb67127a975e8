"""Generated CUDA kernels on the simulated GPU against the interpreter, at awkward sizes."""

import numpy as np
import pytest
import rowwise_programs as programs
import simulated

from kernelwright.codegen import cuda
from kernelwright.expr.evaluate import evaluate
from kernelwright.model import Dtype

F32, BF16, F16 = Dtype.F32, Dtype.BF16, Dtype.F16
SIZES = {
    "ones": dict.fromkeys("BCDHMNTW", 1),
    "aligned": dict(B=2, C=3, D=16, H=64, M=32, N=128, T=3, W=8),
    "odd": dict(B=2, C=3, D=17, H=37, M=5, N=129, T=3, W=7),
    "long_rows": dict(B=1, C=1, D=20011, H=40000, M=1, N=60003, T=2, W=5),
}
CASES = [
    (programs.softmax, F32), (programs.softmax, F16), (programs.fused_add_rms_norm, BF16),
    (programs.gate, BF16), (programs.masked_log_sum_exp, F32), (programs.layer_norm, F32),
    (programs.matrix_vector, BF16), (programs.dot, F32), (programs.transposed, F32),
    (programs.joined, BF16), (programs.indices, F32), (programs.image_mean, F32),
]  # fmt: skip


def family_of(program, dtype, sizes=SIZES["odd"]):
    (family,) = cuda.families(program, dtype, sizes, "kernel")
    return family


@pytest.mark.parametrize(("make", "dtype"), CASES, ids=lambda c: getattr(c, "__name__", str(c)))
def test_kernel_agrees_with_the_interpreter(make, dtype):
    program = make()
    family = family_of(program, dtype)
    small = {"THREADS": 128, "ROWS": 2, "KEEP": 2, "UNROLL": 2}
    changes = {name: value for name, value in small.items() if name in family.defaults[0]}
    library = simulated.binary(family, changes)
    scalars = {s.name: s.default for s in program.signature.scalars}
    for label, sizes in SIZES.items():
        inputs = programs.make_inputs(program, sizes, dtype)
        exact = {name: values for name, (_, values) in inputs.items()}
        expected = evaluate(program, exact, scalars, sizes, dtype)
        found = programs.call(library, program, sizes, dtype, inputs)
        for argument in program.signature.outputs:
            want = expected[argument.name]
            roundoff = argument.resolve(dtype).unit_roundoff
            terms = np.sqrt(sizes["N"]) * 9 if make in (programs.dot, programs.matrix_vector) else 1
            floor = 2.0**-24 if dtype is F16 else 0.0
            np.testing.assert_allclose(
                found[argument.name].astype(np.float64), np.asarray(want, np.float64),
                rtol=2 * roundoff + 2e-6, atol=2e-6 * terms + floor,
                err_msg=f"{argument.name} {label}",
            )  # fmt: skip


def test_not_a_number_and_infinity_propagate():
    program, sizes = programs.softmax(), dict(T=4, H=100)
    family = family_of(program, F32)
    library = simulated.binary(family)
    inputs = programs.make_inputs(program, sizes, F32)
    rows = inputs["x"][0].view(np.float32).reshape(4, 100)
    rows[0, 37], rows[1, :], rows[2, 5], rows[2, :5] = np.nan, -np.inf, 1e4, -np.inf
    found = programs.call(library, program, sizes, F32, inputs)["out"]
    assert np.isnan(found[:2]).all()
    np.testing.assert_array_equal(found[2], np.eye(100)[5])
    np.testing.assert_allclose(found[3].sum(), 1, rtol=1e-6)
