"""Figures as plain plotly documents; colours are names of CSS variables (`--accent`).

Roofline model: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model
for multicore architectures", CACM 52(4), 2009.
"""

from math import log10
from typing import Any

from kernelwright.model import Bound, Measured, WorkloadResult
from kernelwright.report.evidence import Evidence
from kernelwright.report.text import duration, percent, significant

Figure = dict[str, Any]
_PLOT_HEIGHT = 380.0
"""Pixels of the roofline's y axis, for spacing its labels."""
_SYMBOLS = ("diamond", "square", "triangle-up", "cross", "x", "star-triangle-down", "pentagon")


def roofs(evidence: Evidence) -> list[tuple[str, float]]:
    """Measured memory roofs: name and GB/s, the roof that set the bound last."""
    machine = evidence.machine
    named = [
        ("read", machine.read_gbs), ("streaming copy", machine.copy_gbs),
        ("triad", machine.triad_gbs),
    ]  # fmt: skip
    found = [(name, rate) for name, rate in named if rate > 0]
    bound = evidence.bench.bound if evidence.bench else None
    if bound is not None and bound.limiter == "memory":
        found.append((f"live roof: {bound.roof}", bound.roof_rate))
    return found


def intensity(bound: Bound) -> float:
    """Operations per byte that must move; at least a thousandth, so that it can be drawn."""
    return max(bound.operations / max(bound.bytes_moved, 1), 1e-3)


def roofline(evidence: Evidence) -> Figure | None:
    """Operations per second over operations per byte, with measured roofs; None without a bound."""
    result = evidence.bench
    if result is None or result.bound is None:
        return None
    at = intensity(result.bound)
    peak = max(evidence.machine.fma_gflops, _live_compute(result.bound))
    found = roofs(evidence)
    fastest = max((rate for _, rate in found), default=result.bound.roof_rate)
    ridge = peak / fastest if peak > 0 else at * 10
    low, high = min(at, ridge) / 8, max(at, ridge) * 8
    traces: list[Figure] = [_memory_roof(name, rate, low, high, peak) for name, rate in found]
    if peak > 0:
        traces.append(_compute_roof(peak, ridge, high))
    traces += _points(evidence, result, at)
    points = [t for t in traces if t["mode"] == "markers"]
    rates = [y for t in points for y in t["y"]]
    bottom = log10(min([*rates, fastest * low])) - 0.3
    top = log10(max([*rates, peak, fastest * at])) + 0.25
    labels = _labels([t for t in points if len(t["y"]) == 1], _PLOT_HEIGHT / (top - bottom))
    labels += _roof_labels(found, peak, low, min(high, ridge), high)
    return {
        "data": traces,
        "layout": {
            "xaxis": _log_axis("operations per byte", log10(low), log10(high)),
            "yaxis": _log_axis("GFLOP/s", bottom, top),
            "showlegend": False,
            "annotations": labels,
            "height": 460,
        },
    }


def _labels(points: list[Figure], pixels_per_decade: float) -> list[Figure]:
    """Names beside the points, pushed apart downwards so that none covers another."""
    labels: list[Figure] = []
    free = float("-inf")
    for point in sorted(points, key=lambda t: -t["y"][0]):
        place = -log10(point["y"][0]) * pixels_per_decade
        shown = max(place, free)
        free = shown + 18
        ours = point["name"] == "kernelwright"
        labels.append({
            "x": log10(point["x"][0]), "y": log10(point["y"][0]), "ax": 34, "ay": shown - place,
            "text": f"<b>{point['name']}</b>" if ours else point["name"], "xanchor": "left",
            "font": {"size": 13 if ours else 12, "color": "--accent" if ours else "--text"},
            "arrowwidth": 0.8, "arrowcolor": "--faint", "arrowhead": 0, "standoff": 7,
        })  # fmt: skip
    return labels


def _roof_labels(
    found: list[tuple[str, float]], peak: float, low: float, ridge: float, high: float
) -> list[Figure]:
    """Names at the roofs that limit: the last memory roof and the arithmetic peak."""
    plain: Figure = {"showarrow": False, "font": {"size": 12, "color": "--roof"}}
    labels: list[Figure] = []
    if found:
        name, rate = found[-1]
        middle = (low * ridge) ** 0.5
        labels.append(plain | {
            "x": log10(middle), "y": log10(middle * rate), "xanchor": "right", "yanchor": "bottom",
            "text": f"{name}<br>{significant(rate)} GB/s", "align": "right", "xshift": -6,
        })  # fmt: skip
    if peak > 0:
        labels.append(plain | {
            "x": log10(high), "y": log10(peak), "xanchor": "right", "yanchor": "bottom",
            "text": f"fp32 FMA {significant(peak)} GFLOP/s",
        })  # fmt: skip
    return labels


def _live_compute(bound: Bound) -> float:
    return bound.roof_rate if bound.limiter == "compute" else 0.0


def _memory_roof(name: str, rate: float, low: float, high: float, peak: float) -> Figure:
    end = min(high, peak / rate) if peak > 0 else high
    live = name.startswith("live")
    return {
        "type": "scatter", "mode": "lines", "name": f"{name} {significant(rate)} GB/s",
        "x": [low, end], "y": [low * rate, end * rate], "hoverinfo": "name",
        "line": {
            "color": "--roof" if live else "--faint", "width": 2.5 if live else 1.2,
            "dash": "solid" if live else "dot",
        },
    }  # fmt: skip


def _compute_roof(peak: float, ridge: float, high: float) -> Figure:
    return {
        "type": "scatter", "mode": "lines", "name": f"fp32 FMA {significant(peak)} GFLOP/s",
        "x": [ridge, high], "y": [peak, peak], "hoverinfo": "name",
        "line": {"color": "--roof", "width": 2.5},
    }  # fmt: skip


def _points(evidence: Evidence, result: WorkloadResult, at: float) -> list[Figure]:
    """Earlier champions, baselines and the winner at the workload's intensity."""
    operations = at * result.bound.bytes_moved if result.bound else 0.0

    def point(name: str, us: float, colour: str, symbol: str, size: int) -> Figure:
        rate = operations / (us * 1e3)
        return {
            "type": "scatter", "mode": "markers", "name": name, "x": [at], "y": [rate],
            "showlegend": False, "marker": {"color": colour, "symbol": symbol, "size": size,
                       "line": {"color": "--panel", "width": 1}},
            "hovertemplate": f"{name}<br>{duration(us)}<br>%{{y:.3s}} GFLOP/s<extra></extra>",
        }  # fmt: skip

    points: list[Figure] = []
    climbed = [us for _, us in champions(evidence)[:-1]]
    if climbed:
        rates = [operations / (us * 1e3) for us in climbed]
        points.append({
            "type": "scatter", "mode": "markers", "name": "earlier champions",
            "x": [at] * len(rates), "y": rates, "hoverinfo": "y",
            "marker": {"color": "--accent", "symbol": "circle-open", "size": 8, "opacity": 0.6},
        })  # fmt: skip
    for index, peer in enumerate(result.peers):
        symbol = _SYMBOLS[index % len(_SYMBOLS)]
        points.append(point(peer.name, peer.time_us.median, f"--series{index % 5}", symbol, 11))
    points.append(point("kernelwright", result.time_us.median, "--accent", "star", 17))
    return points


def champions(evidence: Evidence) -> list[tuple[int, float]]:
    """Evaluations at which the best screening time fell: number and microseconds."""
    found: list[tuple[int, float]] = []
    for entry in evidence.entries:
        screened = isinstance(entry.verdict, Measured) and not entry.verdict.accepted
        us = entry.time_us if screened else None
        if us is not None and (not found or us < found[-1][1]):
            found.append((entry.number, us))
    return found


def times(evidence: Evidence) -> Figure | None:
    """Bars of the bound, the winner and every baseline, with 95 % intervals."""
    result = evidence.bench
    if result is None:
        return None
    rows: list[tuple[str, float, float, float, str]] = []
    for peer in sorted(result.peers, key=lambda p: -p.time_us.median):
        name = peer.name if peer.passes_check else f"{peer.name} (fails the check)"
        t = peer.time_us
        rows.append((name, t.median, t.low, t.high, "--bar" if peer.passes_check else "--bad"))
    own = result.time_us
    rows.append(("<b>kernelwright</b>", own.median, own.low, own.high, "--accent"))
    if result.bound is not None:
        bound = result.bound.median_us
        rows.append((f"bound ({result.bound.limiter})", bound, bound, bound, "--roof"))
    return {
        "data": [{
            "type": "bar", "orientation": "h",
            "y": [r[0] for r in rows], "x": [r[1] for r in rows],
            "text": [duration(r[1]) for r in rows], "textposition": "none",
            "marker": {"color": [r[4] for r in rows]}, "width": 0.62,
            "error_x": {
                "type": "data", "symmetric": False, "color": "--text", "thickness": 1.2, "width": 4,
                "array": [r[3] - r[1] for r in rows], "arrayminus": [r[1] - r[2] for r in rows],
            },
            "hovertemplate": "%{y}: %{text}<extra></extra>",
        }, {
            "type": "scatter", "mode": "text", "hoverinfo": "skip", "cliponaxis": False,
            "y": [r[0] for r in rows], "x": [r[3] for r in rows],
            "text": [f"  {duration(r[1])}" for r in rows], "textposition": "middle right",
        }],
        "layout": {
            "xaxis": {"title": {"text": "µs per call, cold cache"}, "rangemode": "tozero",
                      "range": [0, 1.22 * max(r[3] for r in rows)]},
            "yaxis": {"automargin": True, "showgrid": False, "ticksuffix": "  "},
            "showlegend": False, "height": 460, "bargap": 0.35,
        },
    }  # fmt: skip


def progress(evidence: Evidence) -> Figure | None:
    """Screening time of every candidate and the best so far; rejections along the top."""
    families: dict[str, list[tuple[int, float, str]]] = {}
    rejected: list[tuple[int, str]] = []
    for entry in evidence.entries:
        us = entry.time_us
        if us is None:
            stage = getattr(entry.verdict, "stage", "")
            rejected.append((entry.number, f"{entry.candidate.family}: rejected at {stage}"))
        elif isinstance(entry.verdict, Measured) and not entry.verdict.accepted:
            name = entry.candidate.family or "own"
            families.setdefault(name, []).append((entry.number, us, duration(us)))
    best = champions(evidence)
    if not best:
        return None
    last = max(entry.number for entry in evidence.entries)
    values = [us for many in families.values() for _, us, _ in many]
    peer = evidence.best_baseline
    top = max([*values, peer.time_us.median if peer else 0.0])
    data = [_family_dots(i, name, many) for i, (name, many) in enumerate(families.items())]
    data.append({
        "type": "scatter", "mode": "lines", "name": "best so far",
        "x": [n for n, _ in best] + [last], "y": [us for _, us in best] + [best[-1][1]],
        "line": {"color": "--accent", "width": 2.5, "shape": "hv"}, "hoverinfo": "y",
    })  # fmt: skip
    if peer is not None:
        data.append({
            "type": "scatter", "mode": "lines", "name": f"{peer.name} (best baseline)",
            "x": [1, last], "y": [peer.time_us.median] * 2, "hoverinfo": "name+y",
            "line": {"color": "--text", "width": 1.2, "dash": "dash"},
        })  # fmt: skip
    if rejected:
        data.append({
            "type": "scatter", "mode": "markers", "name": "rejected",
            "x": [n for n, _ in rejected], "y": [top * 1.08] * len(rejected),
            "text": [t for _, t in rejected], "hoverinfo": "text",
            "marker": {"color": "--bad", "symbol": "x-thin", "size": 8,
                       "line": {"width": 1.8, "color": "--bad"}},
        })  # fmt: skip
    layout: Figure = {
        "xaxis": {"title": {"text": "candidates judged"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "log" if top > 6 * min(values) else "linear",
            "title": {"text": "µs per call, screening"}, "automargin": True,
        },
        "legend": {"orientation": "h", "y": -0.2, "x": 0},
        "height": 400,
    }  # fmt: skip
    return {"data": data, "layout": layout}


def _family_dots(index: int, name: str, points: list[tuple[int, float, str]]) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "name": name,
        "x": [n for n, _, _ in points], "y": [us for _, us, _ in points],
        "text": [f"{name} #{n}: {t}" for n, _, t in points], "hoverinfo": "text",
        "marker": {"color": f"--series{index % 5}", "size": 7, "opacity": 0.75},
    }  # fmt: skip


def _log_axis(title: str, low: float, high: float) -> Figure:
    return {
        "type": "log", "title": {"text": title}, "range": [low, high], "automargin": True,
        "dtick": 1, "minor": {"ticks": "inside", "ticklen": 3},
    }  # fmt: skip


def caption(evidence: Evidence) -> str:
    """One sentence for readers who cannot see the roofline."""
    result = evidence.bench
    if result is None or result.bound is None:
        return ""
    probed = ", ".join(f"{name} {significant(rate)}" for name, rate in roofs(evidence))
    return (
        f"{significant(intensity(result.bound))} operations per byte: {result.bound.limiter} is "
        f"the limit, and the kernel reaches {percent(result.fraction_of_bound)} of it. "
        f"Memory roofs in GB/s: {probed}. Open circles are earlier champions."
    )
