"""Compiles, checks and times CUDA families on a GPU, beside eager torch and `torch.compile`.

Needs torch and nvcc alone; `python measure.py FOLDER [--no-compile] [--only a,b]` reads the folder
that `generate.py` wrote, prints a line for each problem and writes `table.json` to `$OUT` (or to
the folder). Every kernel is checked against the reference in float64 at awkward sizes first, with
guards around its outputs; times are medians of calls that find a flushed cache.
"""

import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F

DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
    "i8": torch.int8,
    "bool": torch.bool,
    "f64": torch.float64,
}
GUARD = 256


# -- problems: inputs and references -------------------------------------------------------------


def normal(*shape, scale=1.0):
    return scale * torch.randn(shape, device="cuda")


def rows_normalised(x, w, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * w


def spmv(rows, columns, values, x):
    row = torch.repeat_interleave(rows.diff().long())
    return x.new_zeros(rows.shape[0] - 1).index_add(0, row, values * x[columns.long()])


def spmv_inputs(s, kind):
    M, Z, N = s["M"], s["Z"], s["N"]
    weights = (
        torch.rand(M, device="cuda") if kind == "normal" else torch.rand(M, device="cuda") ** 8
    )
    if kind == "skewed":
        weights[torch.rand(M, device="cuda") < 0.5] = 0
        weights[M // 2] = weights.sum() + 1
    ends = (weights.double().cumsum(0) / weights.double().sum() * Z).round().int()
    rows = torch.cat([torch.zeros(1, dtype=torch.int32, device="cuda"), ends])
    rows[-1] = Z
    return dict(
        rows=rows,
        columns=torch.randint(N, (Z,), device="cuda", dtype=torch.int32),
        values=normal(Z),
        x=normal(N),
    )


def nbody(position, mass, softening):
    parts = []
    for block in position.split(2048):
        d = position - block[:, None]
        square = d.square().sum(-1) + softening**2
        parts.append(((mass * square**-1.5)[..., None] * d).sum(1))
    return torch.cat(parts)


def kmeans(x, c):
    labels, distances = [], []
    for block in x.split(65536):
        d = torch.cdist(block.double(), c.double()).square()
        distance, label = d.min(-1)
        labels.append(label.int())
        distances.append(distance)
    return torch.cat(labels), torch.cat(distances)


def kmeans_eager(x, c):
    score = torch.addmm(c.square().sum(1), x, c.t(), alpha=-2)
    least, label = score.min(1)
    return label.int(), least + x.square().sum(1)


def attend(q, k_cache, v_cache, table, lengths):
    pages = table.clamp(min=0).long()
    outs = []
    for b in range(q.shape[0]):
        k, v = k_cache[pages[b]].flatten(0, 1), v_cache[pages[b]].flatten(0, 1)
        grouped = q[b].unflatten(0, (k.shape[1], -1))
        scores = torch.einsum("hgd,thd->hgt", grouped, k) / math.sqrt(q.shape[2])
        beyond = torch.arange(k.shape[0], device=q.device) >= lengths[b]
        weights = torch.softmax(scores.masked_fill(beyond, -torch.inf), -1)
        outs.append(torch.einsum("hgt,thd->hgd", weights, v).flatten(0, 1))
    return torch.stack(outs)


def attend_inputs(s, kind):
    B, Hk, G, D, P, L = (s[n] for n in ("B", "Hk", "G", "D", "P", "L"))
    used = [-(-(n + 1) * L // B) for n in range(B)]
    table = torch.full((B, L), -1, dtype=torch.int32)
    order, at = torch.randperm(P), 0
    for b, count in enumerate(used):
        table[b, :count] = order[torch.arange(at, at + count) % P].int()
        at += count
    lengths = torch.tensor([16 * n - (3 * b) % 16 for b, n in enumerate(used)], dtype=torch.int32)
    return dict(
        q=normal(B, Hk * G, D),
        k_cache=normal(P, 16, Hk, D),
        v_cache=normal(P, 16, Hk, D),
        table=table.cuda(),
        lengths=lengths.cuda(),
    )


def w4a16(x, q, s, z):
    codes = torch.stack((q & 15, q >> 4), -1).unflatten(1, (-1, 64)).flatten(2)
    weights = (codes.int() - z.int()[..., None]) * s[..., None]
    return x @ weights.flatten(1).to(x.dtype).t()


def w4a16_inputs(s, kind):
    M, G, N = s["M"], s["G"], s["N"]
    return dict(
        x=normal(M, 128 * G),
        q=torch.randint(256, (N, 64 * G), device="cuda").byte(),
        s=normal(N, G).abs() / 64,
        z=torch.randint(16, (N, G), device="cuda").byte(),
    )


def depthwise(x, large, small):
    c = x.shape[1]
    wide = F.conv2d(x, large[:, None], padding=15, groups=c)
    return wide + F.conv2d(x, small[:, None], padding=2, groups=c)


def stencil(u, r):
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return u + F.pad(r * (around - 4 * u[1:-1, 1:-1]), (1, 1, 1, 1))


def topk(x, k):
    values, indices = torch.sort(x, dim=-1, descending=True, stable=True)
    return values[:, :k], indices[:, :k].int()


def topk_inputs(s, kind):
    T, N = s["T"], s["N"]
    if kind == "ties":
        return dict(x=torch.randint(-4, 5, (T, N), device="cuda").float())
    if kind == "sorted":
        return dict(x=normal(T, N).sort(-1).values)
    x = normal(T, N)
    if kind == "infinities":
        x = x.masked_fill(torch.rand_like(x) < 0.9, -torch.inf)
    return dict(x=x)


def keys(s, kind):
    N, bins = s["N"], s["bins"]
    if kind == "one value":
        return dict(x=torch.full((N,), bins // 2, device="cuda"))
    if kind == "Zipf":
        weights = (1 / torch.arange(1, bins + 1, device="cuda")).cumsum(0)
        drawn = torch.searchsorted(weights / weights[-1], torch.rand(N, device="cuda"))
        return dict(x=drawn.clamp(max=bins - 1))
    return dict(x=torch.randint(bins, (N,), device="cuda"))


def count(x, bins):
    return torch.bincount(x, minlength=bins)


def heads_repeated(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


PROBLEMS = {
    "rms_norm": (lambda s, k: dict(x=normal(s["T"], s["H"]), w=normal(s["H"])), rows_normalised),
    "fused_add_rms_norm": (
        lambda s, k: dict(x=normal(s["T"], s["H"]), r=normal(s["T"], s["H"]), w=normal(s["H"])),
        None,
    ),
    "layer_norm": (None, None),
    "softmax": (lambda s, k: dict(x=normal(s["T"], s["H"])), lambda x: torch.softmax(x, -1)),
    "swiglu": (
        lambda s, k: dict(g=normal(s["M"], s["N"]), v=normal(s["M"], s["N"])),
        lambda g, v, beta: g * torch.sigmoid(beta * g) * v,
    ),
    "gelu": (lambda s, k: dict(x=normal(s["M"], s["N"])), lambda x: F.gelu(x)),
    "cross_entropy_loss": (
        lambda s, k: dict(
            p=normal(s["T"], s["C"]).softmax(-1), y=normal(s["T"], s["C"]).softmax(-1)
        ),
        lambda p, y, least: (lambda loss: (loss, loss.sum()))(
            -(y * torch.log(p.clamp(min=least))).sum(-1)
        ),
    ),
    "matrix_vector_mul": (
        lambda s, k: dict(A=normal(s["M"], s["N"]), x=normal(s["N"])),
        lambda A, x: A @ x,
    ),
    "matrix_transpose": (lambda s, k: dict(A=normal(s["M"], s["N"])), lambda A: A.t().contiguous()),
    "prefix_sum": (lambda s, k: dict(x=normal(s["N"])), lambda x: x.cumsum(-1)),
    "histogram": (keys, count),
    "topk_rows": (topk_inputs, topk),
    "nbody_forces": (
        lambda s, k: dict(position=normal(s["N"], 3), mass=0.5 + torch.rand(s["N"], device="cuda")),
        nbody,
    ),
    "kmeans_assign": (
        lambda s, k: dict(x=normal(s["N"], s["D"]), c=normal(s["K"], s["D"])),
        kmeans,
    ),
    "spmv_csr": (spmv_inputs, spmv),
    "stencil_2d": (lambda s, k: dict(u=normal(s["H"], s["W"])), stencil),
    "depthwise_conv31": (
        lambda s, k: dict(
            x=normal(s["N"], s["C"], s["H"], s["W"]),
            large=normal(s["C"], 31, 31),
            small=normal(s["C"], 5, 5),
        ),
        depthwise,
    ),
    "w4a16_gemm": (w4a16_inputs, w4a16),
    "paged_decode_attention": (attend_inputs, attend),
}
EAGER = {"kmeans_assign": kmeans_eager, "topk_rows": lambda x, k: torch.topk(x, k, dim=-1)}
KINDS = {
    "histogram": ("normal", "one value", "Zipf"),
    "spmv_csr": ("normal", "skewed"),
    "topk_rows": ("normal", "ties", "sorted", "infinities"),
}
WITH_COMPILE = {"nbody_forces", "histogram", "kmeans_assign", "spmv_csr", "depthwise_conv31"}
"""Where nothing but a peer in eager form is worth its compilation time is not in here."""


def fused(x, r, w, eps):
    residual = (r + x).to(DTYPES[fused.dtype]).to(x.dtype)
    return rows_normalised(residual, w, eps), residual


def layer(x, w, b, eps):
    return F.layer_norm(x, (x.shape[-1],), w, b, eps)


PROBLEMS["fused_add_rms_norm"] = (PROBLEMS["fused_add_rms_norm"][0], fused)
PROBLEMS["layer_norm"] = (
    lambda s, k: dict(x=normal(s["T"], s["H"]), w=normal(s["H"]), b=normal(s["H"])),
    layer,
)


# -- kernels -------------------------------------------------------------------------------------


def compile_all(entries, folder):
    """Shared libraries of all variants; how long each took and what failed."""

    def one(job):
        entry, index = job
        values = entry["variants"][index]
        name = f"{entry['name']}-{index}"
        macros = [f"-D{k}={v}" for k, v in values.items()]
        command = [
            "nvcc",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-std=c++17",
            "-O3",
            "-shared",
            "-Xcompiler",
            "-fPIC",
            "-Xptxas",
            "-v",
            *macros,
            f"-I{folder}",
            f"{folder}/{entry['name']}.cu",
            "-o",
            f"/tmp/so/{name}.so",
        ]
        start = time.time()
        done = subprocess.run(command, capture_output=True, text=True)
        return name, done.returncode, time.time() - start, done.stderr

    os.makedirs("/tmp/so", exist_ok=True)
    jobs = [(e, i) for e in entries for i in range(len(e["variants"]))]
    with ThreadPoolExecutor(16) as pool:
        return {name: rest for name, *rest in pool.map(one, jobs)}


class Kernel:
    def __init__(self, entry, index):
        self.entry, self.library = entry, ctypes.CDLL(f"/tmp/so/{entry['name']}-{index}.so")
        self.call = getattr(self.library, entry["entry"])

    def numbers(self, sizes, scalars):
        kinds = {"float": ctypes.c_double, "int": ctypes.c_int64, "bool": ctypes.c_int32}
        values = [ctypes.c_int64(sizes[d]) for d in self.entry["dimensions"]]
        return values + [kinds[k](scalars[n]) for n, k in self.entry["scalars"]]

    def prepare(self, inputs, sizes, scalars):
        """A call without arguments, its outputs, and a check of the guards around them."""
        numbers = self.numbers(sizes, scalars)
        outputs, raws = {}, []
        for tensor in self.entry["outputs"]:
            dtype = DTYPES[tensor["dtype"]]
            shape = [evaluate(d, {**sizes, **scalars}) for d in tensor["dims"]]
            bytes_ = math.prod(shape) * dtype.itemsize
            raw = torch.full((bytes_ + 2 * GUARD,), 0xFF, dtype=torch.uint8, device="cuda")
            raws.append((raw, bytes_))
            outputs[tensor["name"]] = raw[GUARD : GUARD + bytes_].view(dtype).view(shape)
        size = 0
        workspace_name = f"{self.entry['entry']}_workspace"
        if hasattr(self.library, workspace_name):
            function = getattr(self.library, workspace_name)
            function.restype = ctypes.c_int64
            size = function(*numbers)
        workspace = torch.full((max(size, 1) + GUARD,), 0xA5, dtype=torch.uint8, device="cuda")
        held = [inputs[t["name"]] for t in self.entry["inputs"]]
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in [*held, *outputs.values()]]
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        arguments = [
            *pointers,
            *numbers,
            None,
            ctypes.c_void_p(workspace.data_ptr()),
            ctypes.c_int64(size),
            stream,
        ]

        def run():
            code = self.call(*arguments)
            if code:
                raise RuntimeError(f"error code {code}")

        def intact():
            ends = torch.stack(
                [r[:GUARD].min() for r, _ in raws] + [r[GUARD + b :].min() for r, b in raws]
            ).min()
            return (
                ends.item() == 0xFF
                and workspace[size:].eq(0xA5)[1 if size == 0 else 0 :].all().item()
            )

        run.keep = (held, workspace)
        return run, outputs, intact


def evaluate(text, sizes):
    return int(eval(str(text), {"__builtins__": {}}, dict(sizes)))


def make(problem, entry, sizes, kind):
    """Inputs in the storage dtypes."""
    torch.manual_seed(1)
    made = PROBLEMS[problem][0](sizes, kind)
    wanted = {t["name"]: DTYPES[t["dtype"]] for t in entry["inputs"]}
    return {name: t.to(wanted[name]).contiguous() for name, t in made.items()}


def exact(problem, entry, inputs, scalars):
    """Float64 references by output."""
    fused.dtype = entry["dtype"]
    wide = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    found = PROBLEMS[problem][1](**wide, **scalars)
    found = found if isinstance(found, tuple) else (found,)
    return {t["name"]: f for t, f in zip(entry["outputs"], found, strict=True)}


def wrong(entry, problem, outputs, expected):
    """What is wrong with the outputs; None: nothing."""
    roundoff = {"f32": 3e-6, "bf16": 8e-3, "f16": 2e-3}
    for tensor in entry["outputs"]:
        name, dtype = tensor["name"], tensor["dtype"]
        got, want = outputs[name], expected[name]
        if not got.is_floating_point():
            if problem == "kmeans_assign":
                continue
            different = (got.long() != want.long()).sum().item()
            if different:
                return f"{name}: {different} of {got.numel()} differ"
            continue
        got, tolerance = got.double(), roundoff[dtype]
        if problem in ("nbody_forces", "prefix_sum", "kmeans_assign", "cross_entropy_loss"):
            tolerance *= 10
        finite = torch.isfinite(want)
        if (got[~finite] != want[~finite]).any() or not torch.isfinite(got[finite]).all():
            return f"{name}: not finite where it should be, or the other way round"
        error = (got - want)[finite]
        scale = want[finite].square().mean().sqrt().clamp(min=1e-30) if error.numel() else 1.0
        norm = (error.square().mean().sqrt() / scale).item() if error.numel() else 0.0
        worst = (error.abs() / (want[finite].abs() + scale)).max().item() if error.numel() else 0.0
        if not (norm <= tolerance and worst <= 4 * tolerance):
            return f"{name}: norm {norm:.2e}, worst {worst:.2e}"
    return None


FLUSH = None


def time_us(run, repeats=9):
    """Median of calls that find a flushed cache."""
    global FLUSH
    if FLUSH is None:
        FLUSH = torch.empty(128 << 20, dtype=torch.uint8, device="cuda")
    run()
    torch.cuda.synchronize()
    start = time.time()
    run()
    torch.cuda.synchronize()
    if time.time() - start > 0.1:
        repeats = 3
    events = []
    for _ in range(repeats):
        FLUSH.zero_()
        before, after = torch.cuda.Event(True), torch.cuda.Event(True)
        before.record()
        run()
        after.record()
        events.append((before, after))
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) * 1e3 for a, b in events)
    return times[len(times) // 2]


def baseline(problem, entry, inputs, scalars, compiled):
    function = EAGER.get(problem, PROBLEMS[problem][1])
    fused.dtype = entry["dtype"]
    values = dict(inputs)
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(function)
    return time_us(lambda: function(**values, **scalars), 7)


def bytes_of(entry, inputs, outputs):
    return sum(t.nbytes for t in [*inputs.values(), *outputs.values()])


def bench_one(problem, entries, sizes, kind, arguments, table, made):
    first = entries[0]
    scalars = {n: v for n, v in first["scalar_values"].items()}
    scalars |= {n: sizes[n] for n, _ in first["scalars"] if n in sizes}
    inputs = make(problem, first, sizes, kind)
    row = {
        "problem": problem,
        "dtype": first["dtype"],
        "sizes": sizes,
        "kind": kind,
        "families": {},
    }
    for name, compiled in (("eager", False), ("compile", True)):
        if compiled and (arguments.no_compile or kind != "normal"):
            continue
        try:
            row[f"{name}_us"] = baseline(problem, first, inputs, scalars, compiled)
        except Exception as error:
            row[f"{name}_us"] = None
            row[f"{name}_error"] = str(error).splitlines()[0][:100] if str(error) else "error"
        torch.cuda.empty_cache()
    expected = None
    if arguments.check_bench:
        try:
            expected = exact(problem, first, inputs, scalars)
        except Exception:
            expected = None
    for entry in entries:
        for index, values in enumerate(entry["variants"]):
            if made[f"{entry['name']}-{index}"][0]:
                continue
            label = f"{entry['family']}-{index}"
            try:
                run, outputs, _ = Kernel(entry, index).prepare(inputs, sizes, scalars)
                us = time_us(run)
                result = {"us": round(us, 2), "values": values}
                gbs = bytes_of(entry, inputs, outputs) / us / 1e3
                result["of_copy_roof"] = round(gbs / 4300, 3)
                if index == 0 and expected is not None:
                    result["wrong"] = wrong(entry, problem, outputs, expected)
            except Exception as error:
                result = {"us": None, "error": str(error)[:100], "values": values}
                print("  ", problem, label, result["error"])
            row["families"][label] = result
    timed = {k: v for k, v in row["families"].items() if v["us"]}
    if timed:
        best = min(timed, key=lambda k: timed[k]["us"])
        defaults = {k: v["us"] for k, v in timed.items() if k.endswith("-0")}
        row |= {
            "best": best,
            "best_us": timed[best]["us"],
            "of_copy_roof": timed[best]["of_copy_roof"],
        }
        eager, compiled = row.get("eager_us"), row.get("compile_us")
        wrongs = [v["wrong"] for v in timed.values() if v.get("wrong")]
        values = timed[best]["values"]
        print(
            f"{problem:24} {first['dtype']:5} {kind:10} {sizes} best {best} {row['best_us']:.1f} "
            f"us {values} roof {row['of_copy_roof']} default {defaults} eager "
            f"{eager and round(eager, 1)} compile {compiled and round(compiled, 1)} {wrongs or ''}",
            flush=True,
        )
    table.append(row)


def check_one(problem, entries, made, failures):
    checked = 0
    first = entries[0]
    for sizes in first["checks"]:
        for kind in KINDS.get(problem, ("normal",)):
            scalars = {n: v for n, v in first["scalar_values"].items()}
            scalars |= {n: sizes[n] for n, _ in first["scalars"] if n in sizes}
            inputs = make(problem, first, sizes, kind)
            expected = exact(problem, first, inputs, scalars)
            for entry in entries:
                for index in range(len(entry["variants"])):
                    if made[f"{entry['name']}-{index}"][0]:
                        continue
                    try:
                        run, outputs, intact = Kernel(entry, index).prepare(inputs, sizes, scalars)
                        run()
                        torch.cuda.synchronize()
                        fault = wrong(entry, problem, outputs, expected)
                        fault = fault or (None if intact() else "wrote outside of its outputs")
                    except RuntimeError as error:
                        fault = str(error).splitlines()[0][:160]
                        if "CUDA error" in fault or "illegal" in fault:
                            failures.append((entry["name"], index, sizes, kind, fault))
                            print("FATAL", *failures[-1], flush=True)
                            return None
                    checked += 1
                    if fault:
                        failures.append((entry["name"], index, sizes, kind, fault))
                        print("WRONG", *failures[-1], flush=True)
    return checked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--check-bench", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--one", action="store_true", help="this process serves one problem")
    arguments = parser.parse_args()
    out = Path(os.environ.get("OUT", arguments.folder))
    entries = json.loads(Path(arguments.folder, "manifest.json").read_text())
    only = [n for n in arguments.only.split(",") if n]
    entries = [e for e in entries if not only or e["problem"] in only]
    report = Path("/tmp/so/made.json")
    if not arguments.one:
        start = time.time()
        made = compile_all(entries, arguments.folder)
        print(
            f"compiled {len(made)} in {time.time() - start:.0f} s, "
            f"{sum(1 for m in made.values() if m[0])} failed",
            flush=True,
        )
        for name, (code, _, text) in made.items():
            if code:
                print("NOT COMPILED", name, text[:600], flush=True)
        report.write_text(json.dumps(made))
        spills = {
            n: t
            for n, (c, _, t) in made.items()
            if " bytes spill" in t
            and any(
                " 0 bytes spill stores" not in line
                for line in t.splitlines()
                if "spill stores" in line
            )
        }
        print("spills:", ", ".join(spills) or "none", flush=True)
        # a process for each problem: an illegal access ends one context only
        names = list(dict.fromkeys(e["problem"] for e in entries))
        for name in names:
            command = [sys.executable, __file__, arguments.folder, "--one", "--only", name]
            command += ["--no-compile"] * (arguments.no_compile or name not in WITH_COMPILE | PLAIN)
            command += ["--check-bench"] * arguments.check_bench
            try:
                subprocess.run(command, timeout=120)
            except subprocess.TimeoutExpired:
                print("TIMEOUT", name, flush=True)
        rows, failures = [], []
        for name in names:
            part = Path(f"/tmp/so/{name}.table.json")
            if part.exists():
                found = json.loads(part.read_text())
                rows += found["rows"]
                failures += found["failures"]
        (out / "table.json").write_text(json.dumps({"rows": rows, "failures": failures}, indent=1))
        (out / "ptxas.json").write_text(json.dumps(made))
        print(f"{len(failures)} failures; {time.time() - start:.0f} s in all", flush=True)
        return
    made = json.loads(report.read_text())
    table, failures = [], []
    start = time.time()
    for dtype in dict.fromkeys(e["dtype"] for e in entries):
        mine = [e for e in entries if e["dtype"] == dtype]
        checked = check_one(mine[0]["problem"], mine, made, failures)
        if checked is None:
            break
        took = time.time() - start
        for sizes in mine[0]["bench"]:
            for kind in KINDS.get(mine[0]["problem"], ("normal",)):
                bench_one(mine[0]["problem"], mine, sizes, kind, arguments, table, made)
                torch.cuda.empty_cache()
        print(
            f"  {mine[0]['problem']} {dtype}: {checked} checked in {took:.0f} s, "
            f"{time.time() - start:.0f} s in all",
            flush=True,
        )
    name = only[0]
    Path(f"/tmp/so/{name}.table.json").write_text(json.dumps({"rows": table, "failures": failures}))


PLAIN = {
    "rms_norm",
    "softmax",
    "swiglu",
    "gelu",
    "cross_entropy_loss",
    "layer_norm",
    "fused_add_rms_norm",
    "stencil_2d",
    "prefix_sum",
    "matrix_vector_mul",
    "matrix_transpose",
}

if __name__ == "__main__":
    main()
