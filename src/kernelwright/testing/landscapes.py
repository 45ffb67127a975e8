"""Made-up landscapes with the shapes that kernels have; every outcome is known.

Each is a small cost model: register pressure, cache sizes, loop overhead, bandwidth, and the
wrinkles that make a search hard (interactions, plateaus, points that do not build).
"""

from collections.abc import Callable, Mapping
from typing import Any

from kernelwright.model import (
    Family,
    FrozenMap,
    Lineage,
    Reason,
    Rejected,
    Stage,
    TunableValue,
    content_hash,
)  # fmt: skip
from kernelwright.search import FamilyView, Landscape, Request
from kernelwright.search.landscape import Outcome
from kernelwright.space import Space

Values = Mapping[str, TunableValue]
Cost = Callable[[Any], float | str]
"""Time in microseconds, or why the point is rejected."""

_GEMM = """
// @tune MR = 4, 2, 6, 8, 12, 14
// @tune NR = 2, 1, 3, 4
// @tune KC = 256, 64, 128, 384, 512, 1024
// @tune UNROLL = 4, 1, 2, 8
// @tune PREFETCH = 0, 1, 2
// @tune CXX = g++, clang++
// @tune FLAGS = "-O3 -march=native", "-O2 -march=native"
// @require MR * NR <= 32
"""
_ROWWISE = """
// @tune LANES = 16, 4, 8
// @tune UNROLL = 2, 1, 4, 8
// @tune PASSES = 2, 1, 3
// @tune STREAM = 0, 1
// @tune ROWS = 1, 2, 4, 8, 16
// @tune PREFETCH = 0, 4, 8, 16, 32
// @tune CXX = g++, clang++
// @require LANES * UNROLL <= 64
"""
_STENCIL = """
// @tune TX = 64, 16, 32, 128, 256, 512
// @tune TY = 8, 1, 2, 4, 16, 32
// @tune STEPS = 1, 2, 3, 4, 6, 8
// @tune LANES = 16, 4, 8
// @tune LAYOUT = rows, tiles
// @require STEPS * 2 < TX
"""


def _gemm(v: Any) -> float | str:
    registers = v["MR"] * v["NR"] + v["NR"] + 1
    if registers > 32 and v["CXX"] == "g++" and v["UNROLL"] == 8:
        return "it needs more registers than there are"
    efficiency = min(1.0, v["MR"] * v["NR"] / 10) * v["MR"] * v["NR"] / (v["MR"] * v["NR"] + 0.8)
    spill = 1 + 0.12 * max(0, registers - 30)
    overhead = 1 + 0.25 / (v["UNROLL"] * v["MR"]) + 6 / v["KC"]
    cache = 1 + 0.5 * max(0.0, v["KC"] * (v["MR"] + 16 * v["NR"]) * 4 / 32768 - 0.9)
    prefetch = {0: 1.04, 1: 1.0, 2: 1.01 if v["KC"] >= 256 else 1.05}[v["PREFETCH"]]
    compiler = {"g++": 1.0, "clang++": 0.93 if v["UNROLL"] <= 2 else 1.02}[v["CXX"]]
    flags = 1.0 if v["FLAGS"].startswith("-O3") or v["UNROLL"] >= 4 else 1.15
    return 1000 / efficiency * spill * overhead * cache * prefetch * compiler * flags


def _rowwise(v: Any) -> float | str:
    bandwidth = {1: 2.0, 2: 2.0 if v["ROWS"] <= 4 else 2.6, 3: 3.1}[v["PASSES"]]
    if v["STREAM"]:
        bandwidth -= 0.55 if v["PASSES"] > 1 else 0.1
    vector = {4: 1.4, 8: 1.08, 16: 1.0 if v["UNROLL"] <= 4 else 1.06}[v["LANES"]]
    latency = 1 + 0.3 / (v["LANES"] / 4 * v["UNROLL"])
    compute = 0.55 * vector * {1: 1.6, 2: 1.0, 3: 1.05}[v["PASSES"]]
    prefetch = (
        1 - 0.004 * min(v["PREFETCH"], 16) * (1 - v["STREAM"] * 0.7) + (v["PREFETCH"] > 16) * 0.05
    )
    compiler = 1.0 if v["CXX"] == "g++" else 1.03 - 0.05 * (v["UNROLL"] == 1)
    return (
        800 * max(bandwidth, compute * 2) * latency * prefetch * compiler * (1 + 0.01 / v["ROWS"])
    )


def _stencil(v: Any) -> float | str:
    halo = (1 + 2 * v["STEPS"] / v["TX"]) * (1 + 2 * v["STEPS"] / v["TY"])
    footprint = v["TX"] * v["TY"] * 8 / 32768
    if footprint > 4:
        return "its tile does not fit the stack"
    memory = 1200 / v["STEPS"] * (1.0 if v["LAYOUT"] == "tiles" else 1.25)
    compute = 190 * 16 / v["LANES"] * halo * (1 + 0.4 * max(0.0, footprint - 1))
    compute *= 1.12 if v["LAYOUT"] == "tiles" and v["TX"] < 64 else 1.0
    return max(memory * halo**0.5, compute) + 0.25 * min(memory, compute)


_PARTS: dict[str, tuple[str, Cost]] = {
    "gemm": (_GEMM, _gemm),
    "rowwise": (_ROWWISE, _rowwise),
    "stencil": (_STENCIL, _stencil),
}


def landscapes(predicting: bool = False) -> tuple[Landscape, ...]:
    """One landscape for each cost model, and one where its families compete.

    Args:
        predicting: give the families a prediction that is right by rank in most places.
    """
    alone = [_landscape(name, (name,), {}, predicting) for name in _PARTS]
    slower = {"rowwise": 1.5, "stencil": 2.2}
    return (*alone, _landscape("rivals", tuple(_PARTS), slower, predicting))


def _landscape(
    name: str, parts: tuple[str, ...], slower: Mapping[str, float], predicting: bool
) -> Landscape:
    costs: dict[str, Callable[[Values], Outcome]] = {}
    families: list[FamilyView] = []
    for part in parts:
        source, cost = _PARTS[part]
        scale = slower.get(part, 1.0) * _fastest("gemm") / _fastest(part)
        family = Family(part, "cpp", "kernel", source, Lineage("landscape"))
        costs[family.identity] = _scaled(cost, scale)
        predict = _prediction(cost, scale) if predicting else None
        families.append(FamilyView.of(family, Space.of(source), predict))

    def outcome(request: Request) -> Outcome:
        return costs[request.family](request.values)

    return Landscape.tabulate(name, families, outcome)


def _fastest(part: str) -> float:
    source, cost = _PARTS[part]
    times = [cost(values) for values in Space.of(source).enumerate()]
    return min(time for time in times if not isinstance(time, str))


def _scaled(cost: Cost, scale: float) -> Callable[[Values], Outcome]:
    def outcome(values: Values) -> Outcome:
        time = cost(values)
        if isinstance(time, str):
            return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, time)
        return scale * time * (1 + 0.01 * _wrinkle(values, "outcome"))

    return outcome


def _prediction(cost: Cost, scale: float) -> Callable[[Values], float]:
    def predict(values: Values) -> float:
        blunt = FrozenMap({**values, **{n: v for n, v in _BLUNT.items() if n in values}})
        time = cost(blunt)
        return (
            1e4 if isinstance(time, str) else scale * time * (1 + 0.1 * _wrinkle(values, "model"))
        )

    return predict


_BLUNT: dict[str, TunableValue] = {"CXX": "g++", "PREFETCH": 0, "UNROLL": 2, "LAYOUT": "rows"}
"""What a simple model of the schedule does not tell apart."""


def _wrinkle(values: Values, kind: str) -> float:
    """A fixed value in [-1, 1] that looks random."""
    key = content_hash(kind, repr(sorted(values.items())))
    return int(key[:8], 16) / 0x7FFFFFFF - 1
