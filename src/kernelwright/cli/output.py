"""What commands print: JSON documents, and tables for people."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]


def print_json(document: Document) -> None:
    """One document on standard output; numbers that JSON lacks become null."""
    json.dump(_plain(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> None:
    """A table on standard output.

    Args:
        headings: of the columns.
        rows: cells as text.
        right: headings of columns that are aligned to the right, separated by commas.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right.split(",") else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _failure(error: float | None) -> str:
    """What is said of a baseline that fails; no number where no tolerance would do."""
    return "fails the check" if error is None else f"fails the check, error {error:.1f}"


def print_workloads(document: Document) -> None:
    """Times, bound and speed-ups of measured workloads."""
    from kernelwright.report import text

    for workload in document["workloads"]:
        sizes = text.assignments(workload["sizes"])
        low, high = workload["ci_us"]
        print(f"\n{workload['tier']} {sizes}")
        rows = [("this kernel", text.duration(workload["median_us"]),
                 f"{text.duration(low)} to {text.duration(high)}", "",
                 _packing(workload.get("prepare_us")))]  # fmt: skip
        for name, us in sorted(workload["baselines"].items(), key=lambda item: item[1]):
            check = workload["baseline_errors"][name]
            ratio, (least, most) = workload["speedup"][name], workload["speedup_ci"][name]
            rows.append((
                name, text.duration(us), "", f"{ratio:.2f}x ({least:.2f} to {most:.2f})",
                _packing(workload.get("baseline_prepare_us", {}).get(name))
                if check["passes_check"] else _failure(check["error"]),
            ))  # fmt: skip
        if workload["bound_us"] is not None:
            share = text.percent(workload["fraction_of_bound"])
            roof = workload["roof"]
            unit = "GB/s" if workload["limiter"] == "memory" else "GFLOP/s"
            note = f"{share} reached; {roof['kernel']} at {roof['rate']:.1f} {unit}"
            label = f"bound ({workload['limiter']})"
            rows.append((label, text.duration(workload["bound_us"]), "", "", note))
        print_table(("", "time", "95 % interval", "speed-up", ""), rows, right="time")
        if not workload["within_target"]:
            print("The budget ended before the interval was within 1 %.")


def _packing(prepare_us: float | None) -> str:
    from kernelwright.report import text

    return "" if prepare_us is None else f"packs its weights before, {text.duration(prepare_us)}"


def print_trust(document: Document) -> None:
    """The claim, what became of it on the way, held-out sizes, determinism, warnings."""
    from kernelwright.report import text

    for heading, sentence in text.trust(document):
        print(f"{heading:<9} {sentence}")
    for warning in document.get("warnings") or ():
        print(f"WARNING   {warning}")
    print_isolation(document)


def print_isolation(document: Document) -> None:
    """How hostile code was confined, and what that does not withstand."""
    facts = document.get("machine_facts") or {}
    if facts.get("isolation"):
        note = facts.get("isolation_note", "")
        print(f"isolation {note.removeprefix('isolation is ') or facts['isolation']}")
