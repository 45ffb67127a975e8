"""The shipped problems: one file each, `<scenario>/<name>.py`, found by name.

Nothing here is imported: a problem file is loaded by `problems.load_problem`, where torch may be.
"""

import ast
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from kernelwright.errors import ProblemError
from kernelwright.problems import ProblemReference

__all__ = ["SETS", "dtypes", "find", "names", "scenario"]

SETS = {
    "starter": (
        "swiglu", "gelu", "softmax", "layer_norm", "rms_norm", "fused_add_rms_norm",
        "cross_entropy_loss", "matrix_transpose", "matrix_mul", "matrix_vector_mul", "w4a16_gemm",
        "softmax_attention", "attention_gqa_causal", "paged_decode_attention", "depthwise_conv31",
        "spmv_csr", "stencil_2d", "nbody_forces", "prefix_sum", "histogram", "topk_rows",
        "kmeans_assign",
    ),
    "core": (
        "fused_add_rms_norm", "w4a16_gemm", "kvq_decode_attention", "spmv_csr", "stencil_3d",
        "log_bessel_iv", "sobol_points", "ntt_barrett", "depthwise_conv31", "lstm_sequence",
        "kmeans_assign", "kmeans_update", "topk_rows", "dfloat11_decode", "linear_cross_entropy",
    ),
    "unmatched": ("kvq_decode_attention", "log_bessel_iv", "lstm_sequence"),
}  # fmt: skip
"""Named selections. `core` stands for all work that kernels do, in as few problems as possible;
`unmatched` is outside of the expression form: no recipe and no generator offers anything."""


@cache
def _files() -> dict[str, Path]:
    folder = Path(__file__).parent
    found = (p for p in folder.glob("*/*.py") if not p.stem.startswith("_"))
    return {path.stem: path for path in sorted(found, key=lambda p: (p.parent.name, p.stem))}


def names(chosen: str | None = None) -> tuple[str, ...]:
    """Every shipped problem (of a set), ordered by scenario, then by name.

    Raises:
        ProblemError: there is no such set.
    """
    if chosen is None:
        return tuple(_files())
    if chosen not in SETS:
        raise ProblemError(f"there is no set '{chosen}': choose from {', '.join(SETS)}")
    return tuple(name for name in _files() if name in SETS[chosen])


def dtypes(name: str) -> tuple[str, ...]:
    """The element types that a shipped problem declares, read from its file without running it.

    Raises:
        ProblemError: there is none of that name.
    """
    for node in ast.walk(ast.parse(Path(find(name).path).read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "problem":
            for keyword in node.keywords:
                if keyword.arg == "dtypes":
                    return tuple(ast.literal_eval(keyword.value))
    return ("f32", "bf16")


def scenario(name: str) -> str:
    """The scenario of a shipped problem.

    Raises:
        ProblemError: there is none of that name.
    """
    return Path(find(name).path).parent.name


def find(name: str) -> ProblemReference:
    """Where a shipped problem is.

    Raises:
        ProblemError: there is none of that name; the nearest ones are suggested.
    """
    if name not in _files():
        near = get_close_matches(name, names(), 3)
        hint = (
            f"did you mean {' or '.join(near)}?" if near else "`kernelwright problems` lists them"
        )
        raise ProblemError(f"there is no shipped problem '{name}': {hint}")
    return ProblemReference(str(_files()[name].resolve()), name)
