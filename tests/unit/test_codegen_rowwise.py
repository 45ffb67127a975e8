"""Generated pointwise and rowwise kernels against the interpreter, at awkward sizes."""

import numpy as np
import pytest
import rowwise_programs as programs

from kernelwright import codegen
from kernelwright.codegen import rowwise
from kernelwright.expr.evaluate import evaluate
from kernelwright.expr.nodes import Output, Program, Reduce
from kernelwright.expr.rowwise import match
from kernelwright.model import Dtype, FrozenMap

F32, BF16, F16 = Dtype.F32, Dtype.BF16, Dtype.F16
SIZES = {
    "ones": dict.fromkeys("BCDHMNTW", 1),
    "small": dict(B=2, C=3, D=17, H=37, M=5, N=129, T=3, W=7),
    "threads": dict(B=3, C=5, D=129, H=257, M=131, N=1000, T=130, W=33),
    "long_rows": dict(B=1, C=1, D=20011, H=40000, M=1, N=300003, T=1, W=5),
}
CASES = [
    (programs.softmax, F32), (programs.softmax, F16), (programs.fused_add_rms_norm, BF16),
    (programs.gate, BF16), (programs.masked_log_sum_exp, F32), (programs.layer_norm, F32),
    (programs.matrix_vector, BF16), (programs.dot, F32), (programs.transposed, F32),
    (programs.joined, BF16), (programs.indices, F32), (programs.image_mean, F32),
]  # fmt: skip


def family_of(program, dtype, sizes=SIZES["threads"]):
    (family,) = rowwise.families(program, dtype, programs.MACHINE, sizes, "kernel")
    return family


@pytest.mark.parametrize(("make", "dtype"), CASES, ids=lambda c: getattr(c, "__name__", str(c)))
def test_kernel_agrees_with_the_interpreter(make, dtype, tmp_path):
    program = make()
    family = family_of(program, dtype)
    values = {**family.defaults[0], "STREAM": 1, "LANES": 16 if dtype is BF16 else 8}
    library = programs.compile_source(family.source, tmp_path, values)
    scalars = {s.name: s.default for s in program.signature.scalars}
    for sizes in SIZES.values():
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
                err_msg=f"{argument.name} {sizes}",
            )  # fmt: skip


def test_not_a_number_and_infinity_propagate(tmp_path):
    program, sizes = programs.softmax(), dict(T=4, H=100)
    family = family_of(program, F32)
    library = programs.compile_source(family.source, tmp_path, family.defaults[0])
    inputs = programs.make_inputs(program, sizes, F32)
    rows = inputs["x"][0].view(np.float32).reshape(4, 100)
    rows[0, 37], rows[1, :], rows[2, 5], rows[2, :5] = np.nan, -np.inf, 1e4, -np.inf
    found = programs.call(library, program, sizes, F32, inputs)["out"]
    assert np.isnan(found[:2]).all()
    np.testing.assert_array_equal(found[2], np.eye(100)[5])
    np.testing.assert_allclose(found[3].sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("make", [programs.softmax, programs.matrix_vector])
def test_every_tunable_changes_the_binary(make, tmp_path):
    family = family_of(make(), F32)
    first = dict(family.defaults[0])

    def binary(values):
        return programs.compile_source(family.source, tmp_path, values).read_bytes()

    reference = binary(first)
    lines = family.source.splitlines()
    declared = {line.split()[2]: line.split("= ")[1].split(", ") for line in lines
                if line.startswith("// @tune")}  # fmt: skip
    assert {"LANES", "UNROLL", "PREFETCH"} <= set(declared)
    assert ("STREAM" in declared and "CACHE_ROW" in declared) == (make is programs.softmax)
    assert ("ROWS" in declared) == (make is programs.matrix_vector)
    for name in set(declared) - {"CXX", "FLAGS"}:
        assert binary({**first, name: declared[name][1]}) != reference, name


def test_levels_and_merged_axes():
    (nest,) = match(programs.fused_add_rms_norm()).nests
    assert [(r.op, r.level) for r in nest.reductions] == [("sum", 0)]
    assert {s.tensor: s.level for s in nest.stores} == {"y": 1, "residual": 0}
    (nest,) = match(programs.softmax()).nests
    assert [(r.op, r.level) for r in nest.reductions] == [("max", 0), ("sum", 1)]
    (nest,) = match(programs.layer_norm()).nests
    assert [b.extent for b in nest.rows] == ["B*T"]
    (nest,) = match(programs.image_mean()).nests
    assert [b.extent for b in nest.reductions[0].columns] == ["H*W"]
    (nest,) = match(programs.gate()).nests
    assert [b.extent for b in nest.rows] == ["T"]


def test_reduction_that_is_no_number_per_row_does_not_match():
    inner = Reduce(
        "max",
        "j",
        "H",
        programs.op("mul", programs.load("x", "t", "k"), programs.load("x", "t", "j")),
    )
    body = Reduce("sum", "k", "H", inner)
    signature = programs.Signature(
        (programs.tensor("x", "T", "H"),), (programs.tensor("out", "T"),)
    )
    assert match(Program(signature, (Output("out", ("t",), ("T",), body),))) is None


def test_prediction_orders_streaming_by_the_bytes_it_saves():
    program, sizes = programs.softmax(), dict(T=4096, H=4096)
    family = family_of(program, F32, sizes)
    values = dict(family.defaults[0])
    assert values["STREAM"] == 1

    def time(**changes):
        changed = FrozenMap({**values, **changes})
        return codegen.predicted_us(family, changed, program, sizes, F32, programs.MACHINE)

    assert time(STREAM=1) < time(STREAM=0)
    assert time(CACHE_ROW=1) < time(CACHE_ROW=0)


def test_small_outputs_are_not_streamed_by_default():
    family = family_of(programs.softmax(), F32, dict(T=16, H=1024))
    assert family.defaults[0]["STREAM"] == 0


def test_matrix_vector_product_is_offered_row_by_row():
    names = [f.name for f in codegen.families(
        programs.matrix_vector(), F32, programs.MACHINE, dict(M=99, N=99), "kernel")]  # fmt: skip
    assert names[0] == "rowwise"
