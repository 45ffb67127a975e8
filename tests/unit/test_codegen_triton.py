"""Generated Triton kernels under Triton's own interpreter against ours, at awkward sizes.

Triton decides when it is imported whether it interprets, so this file runs itself as a program.
"""

import linecache
import os
import subprocess
import sys

import numpy as np
import pytest
import rowwise_programs as programs
import torch

from kernelwright.codegen import triton as generated
from kernelwright.expr.evaluate import evaluate
from kernelwright.model import Dtype

F32, BF16, F16 = Dtype.F32, Dtype.BF16, Dtype.F16
SIZES = {
    "ones": dict.fromkeys("BCDHMNTW", 1),
    "odd": dict(B=2, C=2, D=17, H=37, M=5, N=49, T=3, W=7),
}
MANY = SIZES["odd"] | dict(T=64, B=64, M=64)
"""What a family is made for: a row is one instance's work."""
CASES = [
    (programs.softmax, F32), (programs.fused_add_rms_norm, F16), (programs.gate, BF16),
    (programs.masked_log_sum_exp, F32), (programs.layer_norm, F16), (programs.transposed, F32),
    (programs.joined, BF16),
]  # fmt: skip


def family_of(program, dtype):
    (family,) = generated.families(program, dtype, MANY, "kernel")
    return family


def interpreted(source):
    """The entry, whose kernels Triton's interpreter runs on the processor."""
    name = "generated.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {"__name__": "generated"}
    exec(compile(source, name, "exec"), names)
    return names["kernel"]


def run(kernel, program, sizes, dtype, inputs, tunables):
    scalars = {s.name: s.default for s in program.signature.scalars}
    names = {F32: torch.float32, BF16: torch.bfloat16, F16: torch.float16, Dtype.BOOL: torch.bool,
             Dtype.I64: torch.int64, Dtype.I32: torch.int32}  # fmt: skip
    given = [
        torch.from_numpy(np.ascontiguousarray(inputs[t.name][1])).to(names[t.resolve(dtype)])
        for t in program.signature.inputs
    ]
    outputs = [
        torch.full(t.shape(sizes), 7, dtype=names[t.resolve(dtype)])
        for t in program.signature.outputs
    ]
    dimensions = {name: sizes[name] for name in program.signature.dimensions}
    kernel(*given, *outputs, **dimensions, **scalars, **tunables)
    return {
        t.name: o.double().numpy() for t, o in zip(program.signature.outputs, outputs, strict=True)
    }


def agrees(make, dtype):
    program = make()
    family = family_of(program, dtype)
    kernel = interpreted(family.source)
    scalars = {s.name: s.default for s in program.signature.scalars}
    forms = [{"WHOLE": 1}, {"WHOLE": 0}] if "WHOLE" in family.defaults[0] else [{}]
    for sizes in SIZES.values():
        inputs = programs.make_inputs(program, sizes, dtype)
        exact = {name: values for name, (_, values) in inputs.items()}
        expected = evaluate(program, exact, scalars, sizes, dtype)
        for form in forms:
            tunables = {**family.defaults[0], "STEP": 16, **form}
            found = run(kernel, program, sizes, dtype, inputs, tunables)
            for argument in program.signature.outputs:
                want = np.asarray(expected[argument.name], np.float64)
                roundoff = argument.resolve(dtype).unit_roundoff
                np.testing.assert_allclose(
                    found[argument.name], want, rtol=2 * roundoff + 4e-6, atol=4e-6,
                    err_msg=f"{make.__name__} {argument.name} {sizes} {form}",
                )  # fmt: skip


def propagates():
    program, sizes = programs.softmax(), dict(T=3, H=20)
    kernel = interpreted(family_of(program, F32).source)
    values = np.zeros((3, 20))
    values[1, 3], values[2, 5] = np.nan, -np.inf
    tunables = {"WHOLE": 0, "STEP": 16, "WARPS": 1}
    found = run(kernel, program, sizes, F32, {"x": (None, values)}, tunables)["out"]
    assert np.isnan(found[1]).all()
    assert not np.isnan(found[[0, 2]]).any()
    assert found[2, 5] == 0


def main():
    """Every case under the interpreter."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)  # numpy 2.5 makes no number of an array with one element
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched
    for make, dtype in CASES:
        agrees(make, dtype)
    propagates()


def test_kernels_agree_with_the_interpreter():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_needs_scratch_memory_or_has_few_rows_is_left_out():
    assert generated.families(programs.dot(), F32, MANY, "kernel") == ()
    assert generated.families(programs.softmax(), F32, dict(T=4, H=100), "kernel") == ()


if __name__ == "__main__":
    main()
