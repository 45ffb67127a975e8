"""`attempts`, `explain`, `submit`, `recipes`, `moves`: what is known already, and adding to it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import JsonOption, check_target

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)
]


def attempts(
    run: RunArgument,
    most: Annotated[int, typer.Option("--most", min=1, help="The latest so many.")] = 40,
    json: JsonOption = False,
) -> None:
    """List what a run tried, newest last: time or rejection of each candidate.

    \b
    kernelwright attempts runs/mine
    kernelwright attempts runs/mine --most 200 --json
    """  # noqa: D301
    from kernelwright.campaign.lookup import attempts as found
    from kernelwright.cli.output import print_json, print_table
    from kernelwright.report import text

    document = found(run, most)
    if json:
        print_json(document)
        return
    rows = [
        (row["candidate"], row["family"],
         text.duration(row["median_us"]) if "median_us" in row else row["reason"].replace("_", " "),
         text.assignments(row["tunables"]))
        for row in document["attempts"]
    ]  # fmt: skip
    print_table(("candidate", "family", "time, or why not", "tunables"), rows)


def explain(
    run: RunArgument,
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="The beginning of its identity, as "
                            "`attempts` gives it.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Say why a candidate of a run was rejected, or what it reached, with its source.

    \b
    kernelwright explain runs/mine 3f9a12
    kernelwright explain runs/mine 3f9a12 --json
    """  # noqa: D301
    from kernelwright.campaign.lookup import explained
    from kernelwright.cli.output import print_json
    from kernelwright.report import text

    document = explained(run, candidate)
    if json:
        print_json(document)
        return
    print(text.printable(document["source"]))
    print(f"\n{document['family']}  {text.assignments(document['tunables'])}")
    _print_verdict(document)


def submit(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="KERNEL", help="The kernel.", show_default=False)],
    language: Annotated[
        str | None, typer.Option("--language", help="cpp, cuda or python; default: by the file's "
                                 "suffix.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge a kernel beside a run's leader and keep the verdict in the run.

    \b
    kernelwright submit runs/mine mine.cpp
    kernelwright submit runs/mine mine.cu --json

    `optimize` with the same --run then tunes it with the rest. Exit code 1 when it is rejected.
    """  # noqa: D301
    from kernelwright.campaign import submit as judge
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.propose import own_kernel_family

    family = own_kernel_family(file, language)
    with progress() as told:
        document = judge(run, family, told)
    if json:
        print_json(document)
    else:
        print(f"{document['problem']} {document['dtype']} on {document['machine']}: "
              f"{document['candidate'][:16]}")  # fmt: skip
        _print_verdict(document)
    if document["verdict"] == "rejected":
        raise typer.Exit(1)


def _print_verdict(document: dict[str, Any]) -> None:
    from kernelwright.report import text

    if document["verdict"] == "rejected":
        reason = document["reason"].replace("_", " ")
        print(
            f"rejected at {document['stage']}: {reason}\n{text.printable(document['diagnostic'])}"
        )
        return
    workloads = document.get("workloads") or [document]
    print(f"measured  {text.duration(workloads[0]['median_us'])}, "
          f"{text.percent(workloads[0]['fraction_of_bound'])} of the bound")  # fmt: skip
    if document.get("speedup_over_leader"):
        leads = "; it leads now" if document["leads"] else ""
        print(f"beside the leader {document['speedup_over_leader']:.2f}x{leads}")
    if document.get("profile"):
        print(f"limited by {document['profile']['limit'].replace('_', ' ')}")


def recipes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Of one: its source.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the expert kernels, or print the source of one.

    \b
    kernelwright recipes
    kernelwright recipes scan.hpp
    kernelwright recipes --json
    """  # noqa: D301
    from kernelwright.campaign.lookup import recipes as found
    from kernelwright.cli.output import print_json

    document = found(name)
    if json:
        print_json(document)
    else:
        print(document["source"] if name else "\n".join(document["recipes"]))


def moves(
    limit: Annotated[
        str | None,
        typer.Argument(metavar="LIMIT", help="As `profile` names it; default: all.",
                       show_default=False),
    ] = None,
    target: Annotated[
        str, typer.Option("--target", help="cpu or cuda.")
    ] = "cpu",
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what usually helps against what limits a kernel.

    \b
    kernelwright moves latency --target cuda
    kernelwright moves --json
    """  # noqa: D301
    from kernelwright.campaign.lookup import moves as found
    from kernelwright.cli.output import print_json

    document = found(limit, check_target(target))
    if json:
        print_json(document)
        return
    for name, some in document["moves"].items():
        print(name.replace("_", " "))
        for move in some:
            print(f"  - {move}")
