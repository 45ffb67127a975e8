"""Static pictures for READMEs: roofline and speed-up bars as plain SVG.

They carry both colour schemes in a style sheet of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any
from xml.sax.saxutils import escape

from kernelwright.report.evidence import Evidence
from kernelwright.report.figures import intensity, roofs
from kernelwright.report.text import duration, significant

_STYLE = """
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:#1b2430}
.small{font-size:11.5px}.muted{fill:#5c6877}.bold{font-weight:640}.grid{stroke:#e1e6ec}
.roof{stroke:#b4540a;fill:none;stroke-width:2.2}
.other{stroke:#9aa6b4;fill:none;stroke-dasharray:3 4}
.ours{fill:#0b7a75}.peer{fill:#7d8ea3}.bar{fill:#a9b6c6}.level{stroke:#1b2430;stroke-dasharray:4 3}
.interval{stroke:#1b2430;stroke-width:1.2}.paper{fill:#fff}.accent{fill:#0b7a75}
@media (prefers-color-scheme:dark){text{fill:#e4e9ef}.muted{fill:#97a4b3}.grid{stroke:#29333e}
.roof{stroke:#f0a35c}.other{stroke:#66727f}.ours,.accent{fill:#3fc9b8}.peer{fill:#8b9aab}.bar{fill:#4b5866}
.level,.interval{stroke:#e4e9ef}.paper{fill:#0f141a}}
"""


def _document(width: int, height: int, title: str, body: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<rect class="paper" width="{width}" height="{height}" rx="10"/>'
        f"{''.join(body)}</svg>\n"
    )


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(words)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


@dataclass(frozen=True, slots=True)
class _LogScale:
    """Maps decades to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + share * (self.end - self.start)

    def decades(self) -> list[float]:
        """Powers of ten inside."""
        return [10.0**k for k in range(ceil(log10(self.low)), floor(log10(self.high)) + 1)]


def roofline_svg(evidence: Evidence, width: int = 720, height: int = 400) -> str:
    """Measured roofs, baselines and the winner.

    Raises:
        ValueError: no accepted measurement with a bound.
    """
    result = evidence.bench
    if result is None or result.bound is None:
        raise ValueError("a roofline needs an accepted measurement with a bound")
    at = intensity(result.bound)
    found = roofs(evidence)
    memory = max(rate for _, rate in found) if found else result.bound.roof_rate
    peak = max(evidence.machine.fma_gflops, memory * at)
    points = [(p.name, p.time_us.median, "peer") for p in result.peers]
    points.append(("kernelwright", result.time_us.median, "ours"))
    rates = [at * result.bound.bytes_moved / (us * 1e3) for _, us, _ in points]
    low, high = min(at, peak / memory) / 6, max(at, peak / memory) * 6
    x = _LogScale(low, high, 62, width - 24)
    y = _LogScale(min([*rates, low * memory]) / 1.5, peak * 2, height - 52, 40)
    title = f"{evidence.public.name} {evidence.dtype} on {evidence.machine.name}"
    body = [_text(20, 24, title, "bold")]
    for value in x.decades():
        body.append(_line(x(value), y.start, x(value), y.end, "grid"))
        body.append(_text(x(value), y.start + 18, f"{value:g}", "small muted", "middle"))
    for value in y.decades():
        body.append(_line(x.start, y(value), x.end, y(value), "grid"))
        body.append(_text(x.start - 8, y(value) + 4, f"{value:g}", "small muted", "end"))
    body += [
        _text((x.start + x.end) / 2, height - 12, "operations per byte", "small muted", "middle"),
        _text(width - 24, 24, "GFLOP/s over operations per byte", "small muted", "end"),
    ]
    for name, rate in found:
        kind = "roof" if name.startswith("live") or len(found) == 1 else "other"
        end = min(high, peak / rate)
        body.append(_line(x(low), y(low * rate), x(end), y(end * rate), kind))
    ridge = peak / memory
    body.append(_line(x(ridge), y(peak), x(high), y(peak), "roof"))
    above = f"FMA {significant(peak)} GFLOP/s"
    body.append(_text(x(high), y(peak) - 8, above, "small muted", "end"))
    name, rate = found[-1] if found else (result.bound.roof, memory)
    middle = (low * ridge) ** 0.5
    beside = f"{name}, {significant(rate)} GB/s"
    body.append(_text(x(middle) - 12, y(middle * rate) - 6, beside, "small muted", "end"))
    body += _labelled(points, rates, x(at), y)
    return _document(width, height, f"Roofline of {evidence.public.name}", body)


def _labelled(
    points: Sequence[tuple[str, float, str]], rates: Sequence[float], at: float, y: _LogScale
) -> list[str]:
    """Points with labels that are pushed apart downwards."""
    parts: list[str] = []
    free = 0.0
    for rate, (name, us, kind) in sorted(zip(rates, points, strict=True), reverse=True):
        label = max(y(rate) + 4, free)
        free = label + 16
        ours = kind == "ours"
        radius = 7 if ours else 5
        parts.append(f'<circle cx="{at:.1f}" cy="{y(rate):.1f}" r="{radius}" class="{kind}"/>')
        weight = "accent bold" if ours else "small"
        parts.append(_text(at + 14, label, f"{name} {duration(us)}", weight))
    return parts


def speedup_svg(rows: Sequence[Mapping[str, Any]], title: str, width: int = 720) -> str:
    """Bars of our speed-up over the best baseline, one for each row of a suite document.

    Args:
        rows: the `problems` of a `suite` document; rows without a kernel are drawn as empty.
        title: what stands above.
        width: in pixels.
    """
    height = 62 + 26 * len(rows)
    most = max([1.2, *(row["speedup_kernel"] or 0.0 for row in rows)]) * 1.06
    left, right = 190, width - 190
    scale = (right - left) / most
    body = [_text(20, 26, title, "bold")]
    for index, row in enumerate(rows):
        middle = 56 + 26 * index
        speedup = row["speedup_kernel"]
        body.append(_text(left - 10, middle + 4, f"{row['problem']} {row['dtype']}", "", "end"))
        if speedup is None:
            body.append(_text(left + 6, middle + 4, "no kernel", "small muted"))
            continue
        kind = "ours" if speedup >= 1 else "bar"
        body.append(
            f'<rect x="{left}" y="{middle - 8}" width="{speedup * scale:.1f}" height="16" rx="2" '
            f'class="{kind}"/>'
        )
        low, high = row["ci"]
        body.append(_line(left + low * scale, middle, left + high * scale, middle, "interval"))
        label = f"{speedup:.2f}× over {row['best_baseline']}"
        body.append(_text(left + max(speedup, high) * scale + 8, middle + 4, label, "small"))
    body.append(_line(left + scale, 40, left + scale, height - 12, "level"))
    return _document(width, height, title, body)
