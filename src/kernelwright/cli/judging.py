"""`evaluate` and `compare`: kernels that somebody wrote."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kernelwright.cli.options import (
    ArgumentOption,
    BaselinesOption,
    BlockOption,
    DtypeOption,
    EntryOption,
    GridOption,
    JsonOption,
    ProblemArgument,
    SharedOption,
    SizeOption,
    WorkspaceOption,
    read_dtype,
    read_foreign,
    read_names,
    read_problem,
    read_sizes,
    target_of,
)

if TYPE_CHECKING:
    from kernelwright.model import Target


def evaluate(
    problem: ProblemArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The kernel.", show_default=False)],
    language: Annotated[
        str | None, typer.Option("--language", help="cpp, cuda, python or triton; default: by the "
                                 "file.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="cpu or cuda; default: by the language.",
                                 show_default=False)
    ] = None,
    entry: EntryOption = None,
    argument: ArgumentOption = None,
    grid: GridOption = None,
    block: BlockOption = None,
    shared: SharedOption = None,
    workspace: WorkspaceOption = None,
    dtype: DtypeOption = None,
    size: SizeOption = None,
    baselines: BaselinesOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge one kernel at its default tunables; exit code 1 when it is rejected.

    \b
    kernelwright evaluate rms_norm mine.cpp
    kernelwright evaluate rms_norm mine.py
    kernelwright evaluate rms_norm mine.cu --dtype bf16
    kernelwright evaluate softmax mine.cu --entry launch --argument in=x --argument rows=T
    kernelwright evaluate rms_norm triton_kernel.py --dtype bf16
    kernelwright evaluate rms_norm runs/mine/best.cpp --dtype bf16 --json
    """  # noqa: D301
    from kernelwright.campaign import evaluate as judge
    from kernelwright.cli.output import print_isolation, print_json, print_trust, print_workloads
    from kernelwright.cli.progress import progress
    from kernelwright.propose import own_kernel_family

    call = read_foreign(argument, None, workspace, grid, block, shared)
    family = own_kernel_family(file, language, entry, call)
    chosen = target_of(family.language, target)
    reference = read_problem(problem)
    with progress() as told:
        document = judge(
            reference,
            family,
            read_dtype(dtype),
            read_sizes(size),
            read_names(baselines, None),
            told,
            target=chosen,
        )
    if json:
        print_json(document)
    elif document["verdict"] == "rejected":
        print(_rejection(document))
        for fault in document["heldout_faults"]:
            print(fault)
        print_isolation(document)
    else:
        print(f"measured: {file} is right on every workload that was checked")
        print_workloads(document)
        print()
        print_trust(document)
    if document["verdict"] == "rejected":
        raise typer.Exit(1)


def compare(
    problem: ProblemArgument,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Kernels; ratios are with the first.",
                                   show_default=False)
    ],
    dtype: DtypeOption = None,
    size: SizeOption = None,
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", min=1, help="Comparisons of each kernel.")
    ] = 1,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=1,
                            help="Longest for each comparison; it ends when known to 1 %.")
    ] = 60.0,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Measure several kernels in the same rounds; exit code 1 when one is rejected.

    \b
    kernelwright compare rms_norm before.cpp after.cpp
    kernelwright compare rms_norm same.cpp same.cpp --repeat 20   # A/A: how good is the clock?
    """  # noqa: D301
    from kernelwright.campaign import compare as judge
    from kernelwright.cli.output import print_isolation, print_json, print_table
    from kernelwright.cli.progress import progress
    from kernelwright.errors import UserError
    from kernelwright.propose import own_kernel_family
    from kernelwright.report import text

    families = [own_kernel_family(file) for file in files]
    targets: set[Target] = {target_of(family.language, None) for family in families}
    if len(targets) > 1:
        raise UserError("kernels for the processor and for the GPU cannot be compared in one run")
    with progress() as told:
        document = judge(
            read_problem(problem), families, read_dtype(dtype), read_sizes(size), told,
            seconds, repeat, target=targets.pop(),
        )  # fmt: skip
    rows = document["kernels"]
    repetitions = [triple for row in rows for triple in row.get("repetitions", ())]
    if json:
        print_json(document)
    else:
        cells: list[tuple[str, str, str]] = []
        for row in rows:
            if row["verdict"] == "rejected":
                cells.append((row["kernel"], "rejected", _rejection(row)))
                continue
            ratio = row.get("speedup_over_first")
            shown = ""
            if ratio is not None:
                low, high = row["ci"]
                shown = f"{ratio:.3f}x ({low:.3f} to {high:.3f})"
            cells.append((row["kernel"], text.duration(row["workloads"][0]["median_us"]), shown))
        print_table(("kernel", "time", "speed-up over the first"), cells, right="time")
        if repeat > 1:
            print("all: " + ", ".join(f"{ratio:.4f}" for ratio, _, _ in repetitions))
            outcomes = [outcome for row in rows for outcome in row.get("outcomes", ())]
            counts = Counter(outcomes)
            print(", ".join(f"{counts[name]} of {len(outcomes)} {name}" for name in sorted(counts)))
        print_isolation(document)
    if any(row["verdict"] == "rejected" for row in rows):
        raise typer.Exit(1)


def _rejection(document: dict[str, Any]) -> str:
    reason = document["reason"].replace("_", " ")
    return f"rejected at {document['stage']}: {reason}\n{document['diagnostic']}"
