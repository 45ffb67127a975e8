"""CUDA recipes on the simulated GPU against NumPy, at awkward sizes and distributions."""

import numpy as np
import pytest
import rowwise_programs as programs
import simulated
from rowwise_programs import load, op, out, tensor

from kernelwright.codegen import cuda as generated
from kernelwright.expr.evaluate import evaluate
from kernelwright.expr.nodes import Axis, Extent, Order, Parameter, Program, Reduce, Scan
from kernelwright.model import Dtype, ScalarArgument, Signature
from kernelwright.problems import load_problem, trace_program
from kernelwright.recipes import cuda as recipes
from kernelwright.suite import find

F32, BF16 = Dtype.F32, Dtype.BF16


def family_of(program, name, sizes, dtype=F32):
    found = (
        *recipes.families(program, dtype, sizes, "kernel"),
        *generated.families(program, dtype, sizes, "kernel"),
    )
    return next(family for family in found if family.name == name)


def stored(values, dtype):
    bytes_, exact = programs.narrow(values, dtype)
    buffer = programs.aligned(max(bytes_.nbytes, 1))
    buffer[: bytes_.nbytes] = bytes_.reshape(-1).view(np.uint8)
    return buffer, exact.reshape(np.shape(values))


def histogram(kind):
    signature = Signature(
        (tensor("x", "N", dtype=kind),), (tensor("counts", "B", dtype=Dtype.I64),)
    )
    body = Reduce("sum", "n", "N", op("to_int", op("eq", load("x", "n"), Axis("b"))))
    return Program(signature, (out("counts", "b", "B", body),))


@pytest.mark.parametrize(("bins", "copies"), [(1, 32), (37, 4), (256, 32), (70000, 1)])
def test_histogram(bins, copies):
    program = histogram(Dtype.I32)
    family = family_of(program, "histogram", dict(N=1000, B=bins))
    library = simulated.binary(family, {"GRID": 3, "THREADS": 64, "COPIES": copies})
    generator = np.random.default_rng(0)
    for count in (1, 5, 2000):
        for values in (generator.integers(-2, bins + 3, count), np.full(count, bins // 2)):
            found = programs.call(
                library, program, dict(N=count, B=bins), F32, {"x": stored(values, Dtype.I32)}
            )["counts"]
            kept = values[(values >= 0) & (values < bins)]
            np.testing.assert_array_equal(found, np.bincount(kept, minlength=bins))


def scan(dims):
    at = Axis(dims[-1].lower())
    axes = [d.lower() for d in dims]
    body = Scan("j", dims[-1], at, load("x", *axes[:-1], "j"))
    signature = Signature((tensor("x", *dims),), (tensor("out", *dims),))
    return Program(signature, (out("out", axes, dims, body),))


@pytest.mark.parametrize("bins", [3, 256, 300])
def test_histogram_of_bytes(bins):
    program = histogram(Dtype.U8)
    family = family_of(program, "histogram", dict(N=1000, B=bins))
    library = simulated.binary(family, {"GRID": 3, "THREADS": 64})
    generator = np.random.default_rng(0)
    for count in (1, 37, 30000):
        for values in (generator.integers(0, 256, count), np.full(count, 2)):
            found = programs.call(library, program, dict(N=count, B=bins), F32,
                                  {"x": stored_bytes(values)})["counts"]  # fmt: skip
            np.testing.assert_array_equal(found, np.bincount(values, minlength=bins)[:bins])


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_scan(dtype):
    for dims, many in (
        (("N",), [dict(N=n) for n in (1, 7, 512, 513, 20000)]),
        (("T", "N"), [dict(T=3, N=n) for n in (1, 8, 700, 1024)]),
    ):
        program = scan(dims)
        family = family_of(program, "scan", many[-1], dtype)
        library = simulated.binary(family, {"THREADS": 64})
        for sizes in many:
            inputs = programs.make_inputs(program, sizes, dtype)
            found = programs.call(library, program, sizes, dtype, inputs)["out"]
            want = inputs["x"][1].cumsum(-1)
            roundoff = 2 * dtype.unit_roundoff
            np.testing.assert_allclose(found, want, rtol=roundoff, atol=1e-4)


def top(largest):
    def order(axis, position):
        return Order("j", "N", Axis(position), load("x", axis, "j"), largest)

    signature = Signature(
        (tensor("x", "T", "N"),),
        (tensor("values", "T", "K"), tensor("indices", "T", "K", dtype=Dtype.I64)),
    )
    values = load("x", "t", order("t", "p"))
    return Program(
        signature,
        (
            out("values", "tp", ("T", "K"), values),
            out("indices", "uq", ("T", "K"), order("u", "q")),
        ),
    )


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("kind", ["normal", "ties", "ascending", "not finite"])
def test_selection(largest, kind):
    program = top(largest)
    family = family_of(program, "selection", dict(T=2, N=1000, K=7))
    library = simulated.binary(family, {"THREADS": 32, "KEEP": 2, "CANDIDATES": 32, "BUFFER": 160})
    generator = np.random.default_rng(1)
    shapes = (
        (2, 64, 5),
        (3, 509, 17),
        (2, 256, 32),
        (1, 600, 1),
        (2, 90, 40),
        (65, 300, 9),
        (64, 203, 20),
    )
    for rows, columns, wanted in shapes:
        x = generator.standard_normal((rows, columns))
        if kind == "ties":
            x = generator.integers(-2, 3, x.shape) * 1.0
            x[x == 0] *= generator.choice([-1.0, 1.0], (x == 0).sum())
        elif kind == "ascending":
            x.sort(-1)
        elif kind == "not finite":
            x[generator.random(x.shape) < 0.9] = -np.inf
            x[generator.random(x.shape) < 0.02] = np.nan
        made = stored(x, F32)
        keys = np.where(np.isnan(made[1]), np.inf, made[1])
        expected = np.empty((rows, wanted), np.int64)
        for row in range(rows):
            nan = np.isnan(made[1][row])
            order = np.lexsort(
                (np.arange(columns), -keys[row] if largest else keys[row], ~nan if largest else nan)
            )
            expected[row] = order[:wanted]
        sizes = dict(T=rows, N=columns, K=wanted)
        found = programs.call(library, program, sizes, F32, {"x": made})
        np.testing.assert_array_equal(found["indices"], expected)
        np.testing.assert_array_equal(
            found["values"], np.take_along_axis(made[1], expected, -1).astype(np.float32)
        )


def spmv():
    ended = Reduce(
        "sum",
        "m",
        "M",
        op(
            "to_int",
            op("le", op("sub", load("rows", op("add", Axis("m"), 1)), load("rows", 0)), Axis("z")),
        ),
    )
    term = op("mul", load("values", "z"), load("x", load("columns", "z")))
    body = Reduce("sum", "z", "Z", op("where", op("eq", ended, Axis("i")), term, 0.0))
    signature = Signature(
        (
            tensor("rows", "M+1", dtype=Dtype.I32),
            tensor("columns", "Z", dtype=Dtype.I32),
            tensor("values", "Z"),
            tensor("x", "N"),
        ),
        (tensor("out", "M"),),
    )
    return Program(signature, (out("out", "i", "M", body),))


@pytest.mark.parametrize("kind", ["even", "empty", "one long"])
def test_segments(kind):
    program = spmv()
    family = family_of(program, "segments", dict(M=100, Z=1000, N=50))
    library = simulated.binary(family, {"THREADS": 32, "PIECE": 3})
    generator = np.random.default_rng(2)
    for count, elements in ((1, 1), (100, 1000), (257, 3000), (40, 95)):
        weights = {
            "even": np.ones(count),
            "empty": generator.random(count) ** 9,
            "one long": np.r_[np.full(count - 1, 1e-3), 1],
        }[kind]
        ends = np.round(weights.cumsum() / weights.sum() * elements).astype(int)
        rows = np.r_[0, ends]
        columns, values = generator.integers(0, 50, elements), generator.standard_normal(elements)
        inputs = {
            "rows": stored(rows, Dtype.I32),
            "columns": stored(columns, Dtype.I32),
            "values": stored(values, F32),
            "x": stored(generator.standard_normal(50), F32),
        }
        want = np.zeros(count)
        terms = inputs["values"][1] * inputs["x"][1][columns]
        np.add.at(want, np.repeat(np.arange(count), np.diff(rows)), terms)
        sizes = dict(M=count, Z=elements, N=50)
        found = programs.call(library, program, sizes, F32, inputs)["out"]
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (F32, {"ACROSS": 32, "COLUMNS": 32, "WIDTH": 4, "THREADS": 64, "GROUP": 4}),
        (F32, {"ACROSS": 64, "COLUMNS": 64, "WIDTH": 4, "LANES": 16, "GROUP": 1}),
        (BF16, {"ACROSS": 32, "COLUMNS": 64, "WIDTH": 8, "LANES": 4, "THREADS": 96, "GROUP": 1}),
        (BF16, {"ACROSS": 64, "COLUMNS": 32, "WIDTH": 4, "THREADS": 64, "GROUP": 16}),
    ],
)
def test_turned(dtype, values):
    program = programs.transposed()
    body = op("mul", load("x", "t", "h"), load("y", "h", "t"))
    signature = Signature(
        (tensor("x", "T", "H"), tensor("y", "H", "T")), (tensor("out", "H", "T"),)
    )
    for made in (program, Program(signature, (out("out", "ht", "HT", body),))):
        family = family_of(made, "turned", dict(T=64, H=64), dtype)
        library = simulated.binary(family, values)
        for sizes in (dict(T=1, H=1), dict(T=64, H=32), dict(T=37, H=101), dict(T=88, H=168)):
            inputs = programs.make_inputs(made, sizes, dtype)
            exact = {name: values for name, (_, values) in inputs.items()}
            want = evaluate(made, exact, {}, sizes, dtype)["out"]
            found = programs.call(library, made, sizes, dtype, inputs)["out"]
            np.testing.assert_allclose(found, want, rtol=2 * dtype.unit_roundoff, atol=1e-6)


def forces():
    """Three components of a force, and the nearest other, in batches."""

    def difference(axis, row):
        return op("sub", load("p", "b", "j", axis), load("p", "b", row, axis))

    def square(row):
        one, eps = difference("c", row), Parameter("eps", "float")
        return op("add", Reduce("sum", "c", "3", op("mul", one, one)), op("mul", eps, eps))

    weight = op("mul", load("m", "b", "j"), op("pow", square("i"), -1.5))
    body = Reduce("sum", "j", "N", op("mul", weight, difference("d", "i")))
    signature = Signature(
        (tensor("p", "B", "N", "3"), tensor("m", "B", "N")),
        (tensor("out", "B", "N", "3"),),
        (ScalarArgument("eps", "float", 0.1),),
    )
    return Program(signature, (out("out", "bid", ("B", "N", "3"), body),))


@pytest.mark.parametrize("split", [1, 4])
def test_pairs(split):
    program = forces()
    family = family_of(program, "pairs", dict(B=2, N=300))
    library = simulated.binary(family, {"THREADS": 32, "ROWS": 2, "TILE": 64, "SPLIT": split})
    for sizes in (dict(B=1, N=1), dict(B=2, N=63), dict(B=1, N=300)):
        inputs = programs.make_inputs(program, sizes, F32)
        exact = {name: values for name, (_, values) in inputs.items()}
        want = evaluate(program, exact, {"eps": 0.1}, sizes, F32)["out"]
        found = programs.call(library, program, sizes, F32, inputs)["out"]
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("dtype", [BF16, Dtype.F16])
def test_nibbles(dtype):
    program = trace_program(load_problem(find("w4a16_gemm")))
    family = family_of(program, "nibbles", dict(M=1, G=4, N=64), dtype)
    generator = np.random.default_rng(3)
    for tiles, threads in ((1, 64), (2, 96)):
        library = simulated.binary(family, {"TILES": tiles, "THREADS": threads})
        for m, g, n in ((1, 3, 33), (16, 1, 20), (70, 1, 10)):
            codes = generator.integers(0, 256, (n, 64 * g))
            zeros = generator.integers(0, 16, (n, g))
            inputs = {"x": stored(generator.standard_normal((m, 128 * g)), dtype),
                      "q": stored_bytes(codes), "z": stored_bytes(zeros),
                      "s": stored(10 ** generator.uniform(-2, 0, (n, g)), dtype)}  # fmt: skip
            numbers = np.stack((codes % 16, codes // 16), -1).reshape(n, g, 128)
            weights = (numbers - zeros[..., None]) * inputs["s"][1][..., None]
            x, weights = inputs["x"][1], weights.reshape(n, -1)
            found = programs.call(library, program, dict(M=m, G=g, N=n), dtype, inputs)["out"]
            bound = dtype.unit_roundoff * np.abs(x @ weights.T)
            bound = bound + 64 * 2.0**-24 * np.abs(x) @ np.abs(weights).T + 1e-6
            assert np.all(np.abs(found - x @ weights.T) <= bound), (m, g, n)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_attention_of_few_rows(dtype):
    program = trace_program(load_problem(find("paged_decode_attention")))
    sizes = dict(B=2, Hk=2, G=3, D=32, P=40, L=9)
    family = family_of(program, "attention", sizes, dtype)
    generator = np.random.default_rng(4)
    for changes in ({"CHUNK": 32, "THREADS": 64}, {"ROWS": 1, "UNROLL": 1, "CHUNK": 256}):
        library = simulated.binary(family, changes)
        for sizes in (dict(B=1, Hk=1, G=1, D=1, P=2, L=1), dict(B=2, Hk=2, G=3, D=32, P=40, L=9),
                      dict(B=3, Hk=1, G=2, D=13, P=40, L=7)):  # fmt: skip
            B, Hk, G, D, P, L = (sizes[name] for name in ("B", "Hk", "G", "D", "P", "L"))
            lengths = generator.integers(1, 16 * L + 1, B)
            table = generator.integers(0, P, (B, L))
            table[np.arange(L) * 16 >= lengths[:, None]] = -1
            inputs = {"q": stored(generator.standard_normal((B, Hk * G, D)), dtype),
                      "k_cache": stored(generator.standard_normal((P, 16, Hk, D)), dtype),
                      "v_cache": stored(generator.standard_normal((P, 16, Hk, D)), dtype),
                      "table": stored(table, Dtype.I32),
                      "lengths": stored(lengths, Dtype.I32)}  # fmt: skip
            exact = {name: values for name, (_, values) in inputs.items()}
            want = evaluate(program, exact, {}, sizes, dtype)["out"]
            found = programs.call(library, program, sizes, dtype, inputs)["out"]
            np.testing.assert_allclose(found, want, rtol=2 * dtype.unit_roundoff, atol=3e-6)


def test_nearest():
    dtype = BF16
    program = trace_program(load_problem(find("kmeans_assign")))
    family = family_of(program, "nearest", dict(N=1000, D=64, K=128), dtype)
    library = simulated.binary(family, {"THREADS": 32, "CENTRES": 16})
    generator = np.random.default_rng(5)
    for n, d, k in ((1, 1, 1), (37, 5, 19), (40, 36, 16), (33, 150, 9)):
        for ties in (False, True):
            draw = generator.integers(-3, 4, (n + k, d)) if ties else generator.standard_normal
            values = draw * 1.0 if ties else draw((n + k, d))
            if ties:
                values[n + k // 2 :] = values[n : n + k - k // 2]
            x, c = stored(values[:n], dtype), stored(values[n:], dtype)
            distances = np.square(x[1][:, None] - c[1]).sum(-1)
            found = programs.call(library, program, dict(N=n, D=d, K=k), dtype, {"x": x, "c": c})
            chosen = np.take_along_axis(distances, found["label"][:, None].astype(int), -1)[:, 0]
            least = distances.min(-1)
            if ties:
                np.testing.assert_array_equal(found["label"], distances.argmin(-1))
            np.testing.assert_allclose(chosen, least, rtol=1e-5, atol=1e-5)
            roundoff = 2 * dtype.unit_roundoff + 1e-5
            np.testing.assert_allclose(found["distance"], least, rtol=roundoff, atol=1e-5)


def moved(axes):
    """Half of the sum of neighbours inside, what was there on the border, the column added."""
    names, dims = tuple("hwd"[: len(axes)]), tuple(axes)
    inside, total = None, None
    for axis, (name, dim) in enumerate(zip(names, dims, strict=True)):
        test = op("and", op("ge", Axis(name), 1),
                  op("lt", Axis(name), op("sub", Extent(dim), 2)))  # fmt: skip
        inside = test if inside is None else op("and", inside, test)
        for step in (-1, 2) if axis else (-1, 1):
            index = [op("add", Axis(n), step) if n == name else n for n in names]
            one = load("u", *index)
            total = one if total is None else op("add", total, one)
    body = op("where", inside, op("mul", total, 0.5), load("u", *names))
    body = op("add", body, op("to_float", Axis(names[-1])))
    signature = Signature((tensor("u", *dims),), (tensor("out", *dims),))
    return Program(signature, (out("out", names, dims, body),))


@pytest.mark.parametrize("dtype", [F32, BF16])
@pytest.mark.parametrize("axes", ["HW", "HWD"])
def test_stencil(axes, dtype):
    program = moved(axes)
    many = [dict(H=5, W=7, D=9), dict(H=9, W=24, D=16), dict(H=3, W=3, D=3), dict(H=12, W=40, D=8)]
    family = family_of(program, "stencil", many[0], dtype)
    for changes in ({"THREADS": 32}, {"THREADS": 32, "ROWS": 2}):
        library = simulated.binary(family, changes)
        for sizes in many:
            inputs = programs.make_inputs(program, sizes, dtype)
            exact = {name: values for name, (_, values) in inputs.items()}
            want = evaluate(program, exact, {}, sizes, dtype)["out"]
            found = programs.call(library, program, sizes, dtype, inputs)["out"]
            np.testing.assert_allclose(found, want, rtol=2 * dtype.unit_roundoff, atol=1e-5)


def stored_bytes(values):
    buffer = programs.aligned(values.size)
    buffer[:] = values.astype(np.uint8).reshape(-1)
    return buffer, values


def test_names_mean_nothing():
    family = family_of(histogram(Dtype.U8), "histogram", dict(N=10, B=256))
    assert "PLAIN = true" in family.source
    assert not recipes.families(programs.softmax(), F32, dict(T=3, H=5), "kernel")
