"""`profile`: what limits a kernel."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    DtypeOption,
    JsonOption,
    SizeOption,
    complete_problem,
    read_dtype,
    read_problem,
    read_sizes,
    target_of,
)


def profile(
    file: Annotated[Path, typer.Argument(metavar="KERNEL", help="The kernel.", show_default=False)],
    like: Annotated[
        str, typer.Option("--like", metavar="PROBLEM", help="What it computes.",
                          autocompletion=complete_problem, show_default=False)
    ],
    language: Annotated[
        str | None, typer.Option("--language", help="cpp, cuda or python; default: by the file's "
                                 "suffix.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="cpu or cuda; default: by the language.",
                                 show_default=False)
    ] = None,
    dtype: DtypeOption = None,
    size: SizeOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=1, help="Longest that it is timed.")
    ] = 4.0,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Say what limits a kernel, by which numbers, and what usually helps.

    Exit code 1 when the kernel is rejected.

    \b
    kernelwright profile mine.cpp --like rms_norm
    kernelwright profile mine.cu --like rms_norm --dtype bf16 --size T=4096,H=4096
    kernelwright profile runs/mine/best.cpp --like softmax --json
    """  # noqa: D301
    from kernelwright.campaign import profile as ask
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.propose import own_kernel_family

    family = own_kernel_family(file, language)
    chosen = target_of(family.language, target)
    reference = read_problem(like)
    with progress() as told:
        document = ask(
            reference, family, read_dtype(dtype), read_sizes(size), told, seconds, chosen
        )
    if json:
        print_json(document)
    elif document["verdict"] == "rejected":
        reason = document["reason"].replace("_", " ")
        print(f"rejected at {document['stage']}: {reason}\n{document['diagnostic']}")
    else:
        _print(document)
    if document["verdict"] == "rejected":
        raise typer.Exit(1)


def _print(document: dict[str, Any]) -> None:
    from kernelwright.report import text

    found = document["profile"]
    print(f"{document['problem']} {document['dtype']} on {document['machine']}: "
          f"{text.duration(found['time_us'])} a call, limited by "
          f"{found['limit'].replace('_', ' ')}")  # fmt: skip
    print(f"of the memory's rate {text.percent(found['memory_share'])}, of the arithmetic's "
          f"{text.percent(found['compute_share'])}")  # fmt: skip
    for finding in found["findings"]:
        limit = finding["limit"].replace("_", " ")
        print(f"\n{limit} ({text.percent(finding['weight'])}): {finding['sentence']}")
        print(f"  {text.evidence(finding['evidence'])}")
        for move in finding["moves"]:
            print(f"  - {move}")
    print()
    for kernel in found["kernels"]:
        if kernel["registers"]:
            print(_kernel(kernel))
    if found["energy_mj"] is not None:
        print(f"energy    {text.significant(found['energy_mj'])} mJ a call, warm caches")
    print(f"asked     {', '.join(found['sources'])}")
    for what, why in found["absent"].items():
        print(f"not asked {what}: {why}")


def _kernel(kernel: dict[str, Any]) -> str:
    from kernelwright.report import text

    parts = [f"{kernel['registers']} registers", f"{kernel['shared_bytes']} bytes shared"]
    if kernel["spill_bytes"]:
        parts.append(f"{kernel['spill_bytes']} bytes spilled")
    if kernel["launches"]:
        parts = [
            f"{text.duration(kernel['us'])}, launches: {kernel['launches']}",
            f"grid {kernel['grid']}, block {kernel['block']}", *parts,
            f"{kernel['blocks_per_multiprocessor']} blocks a multiprocessor "
            f"({kernel['occupancy_limiter']})",
        ]  # fmt: skip
    return f"kernel    {kernel['name']}: {', '.join(parts)}"
