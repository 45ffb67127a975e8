"""`audit`: is the judge of this machine any good?"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kernelwright.cli.options import JsonOption, read_names


def audit(
    row: Annotated[
        str | None, typer.Option("--row", metavar="R3,T5", help="Rows; `control`: the controls.",
                                 show_default=False)
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="cpp, python or cuda; default: all.",
                                 show_default=False)
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, help="Runs of the corpus, to count refused controls.")
    ] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Few timed rounds.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge known cheats, and honest controls; exit code 1 when a cheat gets through.

    \b
    kernelwright audit --quick
    kernelwright audit --row control --repeat 20 --json
    """  # noqa: D301
    from kernelwright.campaign import AuditRequest
    from kernelwright.campaign import audit as run
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress

    request = AuditRequest(read_names(row, ()), read_names(language, ()), repeat, quick)
    with progress() as told:
        document = run(request, told)
    if json:
        print_json(document)
    elif markdown:
        print(markdown_table(document))
    else:
        _print(document)
    summary = document["summary"]
    if summary["not_caught"] or summary["controls_refused"]:
        raise typer.Exit(1)


_STATUS = {"not caught": "NOT CAUGHT", "refused": "REFUSED"}


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    happened = " ".join(part for part in (row["stage"], row["reason"]) if part)
    if row["status"] == "caught" and not row["as_expected"]:
        happened += " (not as expected)"
    return (
        " ".join(row["rows"]),
        row["name"],
        ", ".join(row["expected"]),
        happened,
        _STATUS.get(row["status"], row["status"]),
    )


def _print(document: Mapping[str, Any]) -> None:
    from kernelwright.cli.output import print_isolation, print_table

    headings = ("row", "submission", "expected", "happened", "", "s")
    rows = [(*_cells(row), f"{row['seconds']:.1f}") for row in document["submissions"]]
    print_table(headings, rows, right="s")
    for row in document["submissions"]:
        if row["status"] in _STATUS:
            print(f"\n{row['name']}: {row['diagnostic'] or 'measured'}")
            if row["gap"]:
                print(f"  known: {row['gap']}")
    print(f"\n{sentence(document)}")
    print_isolation(document)


def sentence(document: Mapping[str, Any]) -> str:
    """The summary in one line."""
    s = document["summary"]
    parts = [
        f"{s['caught']} of {s['ran']} cheats caught",
        f"{s['attacks'] - s['ran']} cannot run here",
        f"{s['refusals']} of {s['judgements']} judgements of {s['controls']} controls refused",
        f"isolation {document['isolation']}",
        f"{document['seconds']:.0f} s",
    ]
    return ", ".join(parts)


def markdown_table(document: Mapping[str, Any]) -> str:
    """The table of `docs/trust.md`."""
    lines = ["| row | submission | what it does | what happened |", "| --- | --- | --- | --- |"]
    for row in document["submissions"]:
        _, _, _, happened, status = _cells(row)
        told = f"**{status}**" if row["status"] in _STATUS else status
        more = f": {row['gap']}" if row["gap"] and row["status"] == "not caught" else ""
        more += _beneath(row)
        lines.append(
            f"| {' '.join(row['rows'])} | `{row['name']}` | {row['does']} "
            f"| {told}, {happened}{more} |"
        )
    return "\n".join([*lines, "", f"{sentence(document)}."])


def _beneath(row: Mapping[str, Any]) -> str:
    """What came of it without the inspection of libraries, where that was asked for."""
    below = row.get("beneath")
    if below is None:
        return ""
    status = _STATUS.get(below["status"], below["status"])
    return f"; uninspected: {status}, {below['stage']} {below['reason']}"
