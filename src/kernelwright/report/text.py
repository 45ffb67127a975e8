"""Numbers and names as people read them."""

from collections.abc import Mapping
from typing import Any

from kernelwright.model import Estimate, Profile


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


def printable(text: str) -> str:
    """Somebody else's text without anything that moves a cursor or hides letters."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def dollars(price: float | None) -> str:
    """Four significant digits; a dash where no price is known."""
    return "–" if price is None else f"${price:.4g}"


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


def trust(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of the claim, held-out sizes and determinism: headings with a sentence each."""
    lines: list[tuple[str, str]] = []
    claim = document.get("claim")
    if claim:
        lines.append(("claim", _claim(claim)))
        lines.append(("shrinkage", _shrinkage(claim)))
    general = document.get("generality")
    if general:
        lines.append(("held out", _generality(general)))
    same = document.get("deterministic")
    if same is not None:
        text = "equal in every call, in several processes" if same else "differ between calls"
        lines.append(("bits", text))
    sanitized = document.get("sanitized")
    if sanitized:
        lines.append(
            ("sanitizer", "; ".join(f"{name}: {said}" for name, said in sanitized.items()))
        )
    state = _state(document)
    if state:
        lines.append(("GPU", state))
    return lines


def _state(document: Mapping[str, Any]) -> str:
    """The GPU's state in the scored rounds; empty where nobody told."""
    found = [w.get("telemetry") for w in document.get("workloads", ()) if w["tier"] == "bench"]
    if not found or not found[0]:
        return ""
    t = found[0]
    sentence = (
        f"{t['clock_mhz']:.0f} MHz of {t['most_clock_mhz']:.0f} after each round (lowest "
        f"{t['lowest_clock_mhz']:.0f}), {t['power_w']:.0f} W, at most {t['temperature_c']:.0f} °C"
    )
    slowed = ", ".join(f"{name} in {share:.0%}" for name, share in t["throttling"].items())
    return f"{sentence}; throttled by {slowed} of the readings" if slowed else sentence


def findings(profile: Profile | None) -> list[dict[str, Any]]:
    """The findings of a profile for people: heading, sentence, evidence as text, moves."""
    return [
        {
            "limit": str(finding.limit).replace("_", " "),
            "weight": percent(finding.weight),
            "sentence": finding.sentence,
            "evidence": evidence(finding.evidence),
            "moves": finding.moves,
        }
        for finding in (profile.findings if profile else ())
    ]


def evidence(numbers: Mapping[str, float]) -> str:
    """`necessary bytes 1.05e+06, blocks 8`."""
    return ", ".join(f"{name} {significant(value)}" for name, value in numbers.items())


_OUTCOMES = {
    "faster": "proved faster than '{}'",
    "slower": "slower than '{}'",
    "undecided": "not told apart from '{}'",
}


def _claim(claim: Mapping[str, Any]) -> str:
    low, high = claim["accepted_ci"]
    text = (
        f"{_OUTCOMES[claim['outcome']].format(claim['baseline'])}: {claim['accepted']:.3f}x "
        f"({low:.3f} to {high:.3f}) in {claim['rounds']} rounds"
    )
    if claim["confirmed"] is None:
        return text
    low, high = claim["confirmed_ci"]
    again = f"{claim['confirmed']:.3f}x ({low:.3f} to {high:.3f}) in {claim['confirming_rounds']}"
    return f"{text}; sought again, {again}"


def _shrinkage(claim: Mapping[str, Any]) -> str:
    if claim["searched"] is None:
        return "the search did not time this baseline"
    lost = claim["shrinkage"]
    word = "less" if lost >= 0 else "more"
    text = f"the search saw {claim['searched']:.3f}x, acceptance {abs(lost):.1%} {word}"
    again = claim["shrinkage_confirmed"]
    if again is not None:
        text += f", the confirmation another {abs(again):.1%} {'less' if again >= 0 else 'more'}"
    return text


def _generality(general: Mapping[str, Any]) -> str:
    text = f"{general['checked']} secret sizes right"
    for timed in general["timed"]:
        text += (
            f"; {timed['speedup']:.2f}x over '{timed['baseline']}' on {assignments(timed['sizes'])}"
        )
        if timed["bench_speedup"] is not None:
            text += f", {timed['bench_speedup']:.2f}x at the bench sizes"
    return text


def models(document: Mapping[str, Any]) -> str:
    """What language models did and took, in one line."""
    spent = document["spent"]
    tokens = spent["input_tokens"] + spent["output_tokens"]
    price = "price unknown" if spent["dollars"] is None else f"${spent['dollars']:.4g}"
    parts = [
        ", ".join(document["models"]),
        f"{spent['requests']} requests ({spent['malformed']} malformed, {spent['failed']} failed)",
        f"{tokens} tokens, {price}, {spent['seconds']:.0f} s",
        f"{document['families']} families",
    ]
    if document["gain"] is not None:
        parts.append(f"{document['gain']:.2f}x the best without them")
    return "; ".join(parts)
