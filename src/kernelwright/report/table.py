"""A suite's table as Markdown, for READMEs."""

from collections.abc import Mapping, Sequence
from typing import Any

from kernelwright.report.text import duration, percent

Document = Mapping[str, Any]


def suite_markdown(document: Document) -> str:
    """The rows of a `suite.json`, every baseline that ran named, with machine and command.

    A baseline marked with * does not pass the check itself: it is only the best where none does.
    """
    facts = document["machine_facts"]
    lines = [
        "| problem | dtype | ours | best baseline | speed-up (95 %) | over eager | over compile "
        "| of bound | baselines run |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_row(row) for row in document["problems"]),
    ]
    summary = document["summary"]
    losses = ", ".join(summary["losses"]) or "none"
    geomean = summary["geomean_kernel"]
    lines += [
        "",
        f"Geometric mean over the best baseline {_times(geomean)}, over eager "
        f"{_times(summary['geomean_eager'])}; losses below 0.97x: {losses}.",
        f"Machine: {facts['cpu']}, {facts['cores']} cores, {facts['os']}; "
        f"read {facts['read_gbs']:.1f}, copy {facts['copy_gbs']:.1f}, triad "
        f"{facts['triad_gbs']:.1f} GB/s, multiply-add {facts['fma_gflops']:.0f} GFLOP/s; "
        f"{', '.join(facts['toolchains'].values())}; torch {facts['versions'].get('torch', '?')}; "
        f"isolation `{facts['isolation']}`. Command: `{document['command']}`.",
        *([note] if (note := facts.get("isolation_note")) else []),
    ]
    return "\n".join(lines) + "\n"


def _row(row: Document) -> str:
    if row["speedup_kernel"] is None:
        cells: Sequence[str] = (row["problem"], row["dtype"], row["reason"], *[""] * 6)
    else:
        low, high = row["ci"]
        cells = (
            f"`{row['problem']}`",
            row["dtype"],
            duration(row["ours_us"]),
            f"{duration(row['baseline_us'])} {row['best_baseline']}",
            f"**{row['speedup_kernel']:.2f}x** ({low:.2f} to {high:.2f})",
            _times(row["speedup_eager"]),
            _times(row["speedup_compile"]),
            percent(row["fraction_of_bound"]),
            ", ".join(_name(row, name) for name in row["baselines_run"]),
        )
    return "| " + " | ".join(cells) + " |"


def _name(row: Document, name: str) -> str:
    return name if row.get("baselines_pass", {}).get(name, True) else f"{name}*"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}x"
