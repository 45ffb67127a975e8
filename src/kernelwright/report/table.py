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
    sized = _several_sizes(document["problems"]) or document.get("target") == "cuda"
    lines = [
        "| problem | dtype | ours | best baseline | speed-up (95 %) | over eager | over compile "
        "| of bound | baselines run |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(_row(row, sized) for row in document["problems"]),
    ]
    summary = document["summary"]
    losses = ", ".join(summary["losses"]) or "none"
    geomean = summary["geomean_kernel"]
    lines += [
        "",
        f"Geometric mean over the best baseline {_times(geomean)}, over eager "
        f"{_times(summary['geomean_eager'])}; losses below 0.97x: {losses}.",
        f"Machine: {_machine(document)}; "
        f"{', '.join(facts['toolchains'].values())}; torch {facts['versions'].get('torch', '?')}; "
        f"isolation `{facts['isolation']}`. Command: `{document['command']}`.",
        *([note] if (note := facts.get("isolation_note")) else []),
    ]
    return "\n".join(lines) + "\n"


def _machine(document: Document) -> str:
    """The machine that kernels ran on, and its rates."""
    facts = document["machine_facts"]
    host = f"{facts['cpu']}, {facts['cores']} cores, {facts['os']}"
    gpu = facts.get("gpu")
    if document.get("target") == "cuda" and gpu is not None:
        return (
            f"{gpu['name']}, driver {gpu['driver']}; read {gpu['read_gbs']:.0f}, write "
            f"{gpu['write_gbs']:.0f}, copy {gpu['copy_gbs']:.0f} GB/s, multiply-add "
            f"{gpu['fma_gflops'] / 1000:.1f}, bf16 products {gpu['bf16_gflops'] / 1000:.0f} "
            f"TFLOP/s; host {host}"
        )
    return (
        f"{host}; read {facts['read_gbs']:.1f}, copy {facts['copy_gbs']:.1f}, triad "
        f"{facts['triad_gbs']:.1f} GB/s, multiply-add {facts['fma_gflops']:.0f} GFLOP/s"
    )


def _several_sizes(rows: Sequence[Document]) -> bool:
    """Whether a problem has more than one row of a dtype."""
    return len({(row["problem"], row["dtype"]) for row in rows}) < len(rows)


def _row(row: Document, sized: bool) -> str:
    sizes = ", ".join(f"{k}={v}" for k, v in row["sizes"].items()) if sized else ""
    if row["speedup_kernel"] is None:
        name = f"{row['problem']} {sizes}".strip()
        cells: Sequence[str] = (name, row["dtype"], row["reason"], *[""] * 6)
    else:
        low, high = row["ci"]
        cells = (
            f"`{row['problem']}` {sizes}".strip(),
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
