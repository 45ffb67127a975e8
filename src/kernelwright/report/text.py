"""Numbers and names as people read them."""

from collections.abc import Mapping
from typing import Any

from kernelwright.model import Estimate


def duration(us: float | None) -> str:
    """Three significant digits with a unit, from microseconds."""
    if us is None:
        return "–"
    if us >= 1e6:
        return f"{significant(us / 1e6)} s"
    if us >= 1e3:
        return f"{significant(us / 1e3)} ms"
    return f"{significant(us)} µs"


def significant(value: float, digits: int = 3) -> str:
    """At most so many significant digits, without an exponent below 1e6."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    if magnitude >= 1e6 or magnitude < 1e-3:
        return f"{value:.{digits - 1}e}"
    whole = len(str(int(magnitude))) if magnitude >= 1 else 0
    return f"{value:.{max(0, digits - whole)}f}"


def interval(estimate: Estimate) -> str:
    """`12.3 µs (12.1-12.6)`, low and high in the unit of the median."""
    scale, unit = 1.0, "µs"
    if estimate.median >= 1e3:
        scale, unit = 1e3, "ms"
    median, low, high = (
        significant(v / scale) for v in (estimate.median, estimate.low, estimate.high)
    )
    return f"{median} {unit} ({low}–{high})"


def ratio(estimate: Estimate) -> str:
    """`2.31× (2.28-2.35)`."""
    return f"{estimate.median:.2f}× ({estimate.low:.2f}–{estimate.high:.2f})"


def percent(fraction: float | None) -> str:
    """Whole percent."""
    return "–" if fraction is None else f"{100 * fraction:.0f} %"


def nbytes(count: float) -> str:
    """Bytes with a binary unit."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{significant(value)} {unit}"
        value /= 1024
    return f"{significant(value)} TiB"


def assignments(values: Mapping[str, Any]) -> str:
    """`A=1, B=2`."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
