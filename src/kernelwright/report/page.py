"""The report: one HTML page that needs no network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name  # pyright: ignore[reportUnknownVariableType]

from kernelwright.model import Estimate, Measured
from kernelwright.report import figures, text
from kernelwright.report.evidence import Entry, Evidence, gather
from kernelwright.report.ledger import per_gain
from kernelwright.sandbox import isolation_note
from kernelwright.store import Archive

_FILTERS: tuple[Callable[..., str], ...] = (
    text.assignments,
    text.duration,
    text.dollars,
    text.interval,
    text.nbytes,
    text.percent,
    text.ratio,
    text.significant,
)


def write_report(folder: Path, path: Path | None = None) -> Path:
    """Write the report of a run, finished or not.

    Args:
        folder: the run folder; only its archive is read.
        path: the HTML file; None: `report.html` in the run folder.

    Returns:
        Where the page is.

    Raises:
        ArchiveError: there is no run, or it holds nothing to report yet.
    """
    with Archive.open(folder, read_only=True) as archive:
        page = render(gather(archive))
    path = path or folder / "report.html"
    path.write_text(page)
    return path


def render(evidence: Evidence) -> str:
    """The page as text; a pure function of the evidence."""
    from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs]

    environment = Environment(
        loader=PackageLoader("kernelwright.report"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for show in _FILTERS:
        environment.filters[show.__name__] = show  # pyright: ignore[reportUnknownMemberType]
    drawn = {
        "roofline": figures.roofline(evidence),
        "times": figures.times(evidence),
        "progress": figures.progress(evidence),
    }
    return environment.get_template("report.html.jinja").render(
        e=evidence,
        bench=evidence.bench,
        peer=evidence.best_baseline,
        headline=headline(evidence),
        figures={name: figure for name, figure in drawn.items() if figure is not None},
        caption=figures.caption(evidence),
        source=_highlighted(evidence.best.source, evidence.best.language) if evidence.best else "",
        reference=_highlighted(evidence.public.reference_text, "python"),
        verdicts=[_row(evidence, entry) for entry in evidence.entries],
        operator=evidence.document.get("operator_speed"),
        isolation_note=isolation_note(evidence.machine.isolation).partition(": ")[2],
        verified=evidence.document.get("verified", {}),
        trust=text.trust(evidence.document),
        findings=text.findings(evidence.profile),
        warnings=evidence.warnings,
        shares=per_gain(evidence.document.get("models") or {}),
        plotly=Markup(get_plotlyjs()),
        style=_part("report.css"),
        script=_part("report.js"),
    )


def headline(evidence: Evidence) -> tuple[str, str]:
    """What the page says first, and how sure it is."""
    bench, peer = evidence.bench, evidence.best_baseline
    if bench is None:
        advice = evidence.document.get("advice")
        return "No kernel was accepted", advice or "The campaign has not accepted a kernel."
    if peer is None:
        return text.duration(bench.time_us.median), "No baseline ran here."
    speedup = peer.speedup
    sure = f"95 % interval {speedup.low:.2f}–{speedup.high:.2f}, {bench.rounds} paired rounds"
    if not peer.passes_check:
        sure += "; every baseline fails the check that the kernel passes"
    if not bench.within_target:
        sure += "; the budget ended before the interval was within 1 %"
    if speedup.median < 1:
        return f"{peer.name} stays ahead: {speedup.median:.2f}×", f"{sure}. Use the baseline."
    verb = "faster than" if _is_faster(evidence, speedup) else "level with"
    return f"{speedup.median:.2f}× {verb} {peer.name}", sure


def _is_faster(evidence: Evidence, speedup: Estimate) -> bool:
    """What acceptance decided; archives of older versions have the interval only."""
    claim = evidence.claim
    return speedup.low > 1 if claim is None else claim.outcome == "faster"


def _row(evidence: Evidence, entry: Entry) -> dict[str, Any]:
    """One line of the table of verdicts."""
    verdict = entry.verdict
    row: dict[str, Any] = {
        "number": entry.number,
        "identity": entry.candidate.identity[:8],
        "family": entry.candidate.family or "own",
        "proposer": entry.candidate.lineage.proposer,
        "tunables": text.assignments(entry.candidate.tunables),
        "is_best": evidence.best is not None and entry.candidate == evidence.best,
        "us": entry.time_us,
        "fraction": None,
        "diagnostic": "",
        "reason": "",
    }
    if isinstance(verdict, Measured):
        row["outcome"] = "accepted" if verdict.accepted else "screened"
        row["fraction"] = verdict.workloads[0].fraction_of_bound if verdict.workloads else None
    else:
        row |= {
            "outcome": str(verdict.stage),
            "reason": str(verdict.reason).replace("_", " "),
            "diagnostic": verdict.diagnostic,
        }
    return row


_LEXERS = {"cpp": "cpp", "python": "python", "triton": "python", "cuda": "cuda"}


def _highlighted(source: str, language: str) -> Markup:
    if not source:
        return Markup("")
    formatter: HtmlFormatter[str] = HtmlFormatter(nowrap=True)
    lexer = get_lexer_by_name(_LEXERS.get(language, "text"))
    return Markup(highlight(source, lexer, formatter))


def _part(name: str) -> Markup:
    return Markup((Path(__file__).parent / "templates" / name).read_text())
