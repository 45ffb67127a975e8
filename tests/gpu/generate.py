"""Writes the CUDA families of shipped problems for `measure.py`.

`python generate.py FOLDER [VARIANTS [PROBLEM,...]]`
"""

import json
import shutil
import sys
from pathlib import Path

from kernelwright import codegen, recipes, suite
from kernelwright.build import include_folder
from kernelwright.model import Dtype, Machine
from kernelwright.problems import load_problem, trace_program

CHECKS = {
    "rms_norm": [
        dict(T=1, H=1),
        dict(T=5, H=37),
        dict(T=33, H=8192),
        dict(T=2, H=100001),
        dict(T=300, H=264),
    ],
    "cross_entropy_loss": [
        dict(T=1, C=1),
        dict(T=7, C=333),
        dict(T=3, C=131072),
        dict(T=300, C=32768),
    ],
    "swiglu": [dict(M=1, N=1), dict(M=3, N=37), dict(M=129, N=4096)],
    "matrix_vector_mul": [
        dict(M=1, N=1),
        dict(M=37, N=129),
        dict(M=1, N=65536),
        dict(M=1000, N=16384),
    ],
    "matrix_transpose": [
        dict(M=1, N=1),
        dict(M=37, N=129),
        dict(M=264, N=1024),
        dict(M=4097, N=72),
    ],
    "prefix_sum": [
        dict(N=1),
        dict(N=37),
        dict(N=4096),
        dict(N=4097),
        dict(N=3000001),
        dict(N=2**24),
    ],
    "histogram": [
        dict(N=1, bins=1),
        dict(N=1000, bins=37),
        dict(N=1000003, bins=256),
        dict(N=1 << 22, bins=4096),
    ],
    "topk_rows": [
        dict(T=1, N=64, k=1),
        dict(T=3, N=509, k=64),
        dict(T=40, N=16384, k=64),
        dict(T=4, N=100001, k=63),
    ],
    "nbody_forces": [dict(N=1), dict(N=37), dict(N=1025), dict(N=4096)],
    "kmeans_assign": [
        dict(N=1, D=1, K=1),
        dict(N=37, D=5, K=7),
        dict(N=1000, D=128, K=1024),
        dict(N=129, D=33, K=1025),
    ],
    "spmv_csr": [
        dict(M=1, Z=1, N=1),
        dict(M=37, Z=200, N=37),
        dict(M=5000, Z=100003, N=4999),
        dict(M=100003, Z=50000, N=7),
    ],
    "stencil_2d": [dict(H=3, W=3), dict(H=5, W=37), dict(H=257, W=1024)],
    "depthwise_conv31": [
        dict(N=1, C=1, H=1, W=1),
        dict(N=2, C=3, H=17, W=37),
        dict(N=2, C=5, H=56, W=56),
    ],
    "w4a16_gemm": [
        dict(M=1, G=1, N=1),
        dict(M=5, G=3, N=37),
        dict(M=16, G=8, N=256),
        dict(M=17, G=64, N=128),
        dict(M=64, G=5, N=100),
        dict(M=200, G=4, N=300),
    ],
    "paged_decode_attention": [
        dict(B=1, Hk=1, G=1, D=1, P=2, L=1),
        dict(B=3, Hk=2, G=3, D=37, P=40, L=9),
        dict(B=4, Hk=8, G=4, D=128, P=300, L=64),
        dict(B=2, Hk=1, G=16, D=256, P=64, L=20),
    ],
}
for name in ("softmax", "layer_norm", "fused_add_rms_norm"):
    CHECKS[name] = CHECKS["rms_norm"]
CHECKS["gelu"] = CHECKS["swiglu"]
MACHINE = Machine("gpu", "", 1, 256, (), 0, 0, 0, 0, "linux")


def main() -> None:
    """Trace every problem and write its families at the sizes meant for GPUs."""
    folder, variants = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    only = sys.argv[3].split(",") if len(sys.argv) > 3 else CHECKS
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(include_folder() / "kernelwright.h", folder)
    manifest: list[dict[str, object]] = []
    for name in only:
        problem = load_problem(suite.find(name))
        public = problem.public()
        for dtype in public.dtypes:
            program = trace_program(problem, Dtype(dtype))
            bench = [dict(sizes) for sizes in public.sizes["gpu"]]
            arguments = (program, Dtype(dtype), MACHINE, bench[0], "kernel", "cuda")
            for family in (*recipes.families(*arguments), *codegen.families(*arguments)):
                label = f"{name}-{dtype}-{family.name}"
                (folder / f"{label}.cu").write_text(family.source)
                signature = public.signature

                def described(tensors, dtype=dtype):
                    return [
                        dict(name=t.name, dims=list(t.dims), dtype=str(t.resolve(Dtype(dtype))))
                        for t in tensors
                    ]

                manifest.append(
                    dict(
                        name=label,
                        problem=name,
                        dtype=str(dtype),
                        family=family.name,
                        entry="kernel",
                        variants=[dict(v) for v in family.defaults[:variants]],
                        inputs=described(signature.inputs),
                        outputs=described(signature.outputs),
                        dimensions=list(signature.dimensions),
                        scalars=[(s.name, s.kind) for s in signature.scalars],
                        scalar_values={
                            s.name: s.default for s in signature.scalars if s.default is not None
                        },
                        checks=CHECKS[name],
                        bench=bench,
                    )
                )
    (folder / "manifest.json").write_text(json.dumps(manifest))
    print(len(manifest), "families,", sum(len(e["variants"]) for e in manifest), "variants")  # pyright: ignore


main()
