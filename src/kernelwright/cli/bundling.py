"""`bundle`."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    BaselinesOption,
    DtypeOption,
    JsonOption,
    SizeOption,
    complete_problem,
    read_dtype,
    read_names,
    read_problem,
    read_sizes,
)


def bundle(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN | FILE...", help="A run folder, or kernel files with --like.",
                       show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="The folder to pack.",
                     show_default=False),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="PROBLEM", help="What the kernel files compute.",
                     autocompletion=complete_problem, show_default=False),
    ] = None,
    best: Annotated[
        int, typer.Option("--best", min=1, help="Most candidates of a run folder.")
    ] = 4,
    imported: Annotated[
        Path | None,
        typer.Option("--import", metavar="RESULTS", help="results.json of an evaluated bundle, or "
                     "the folder with it.", show_default=False),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="DIR", help="The run folder that takes the verdicts; "
                     "default when packing: a new one below runs/.", show_default=False),
    ] = None,
    numpy: Annotated[
        Path | None,
        typer.Option("--numpy", metavar="WHEEL", help="A numpy wheel for the Python there, where "
                     "that is another version and has no numpy.", show_default=False),
    ] = None,
    dtype: DtypeOption = None,
    size: SizeOption = None,
    baselines: BaselinesOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Pack kernels for a machine without network, or bring its verdicts back.

    \b
    kernelwright bundle runs/mine -o /tmp/mine          # then there: python mine/evaluate.py
    kernelwright bundle runs/mine -o /tmp/mine --numpy numpy-2.4.6-cp312-cp312-manylinux_x86_64.whl
    kernelwright bundle a.cu b.cu --like rms_norm --dtype bf16 -o /tmp/mine
    kernelwright bundle --import /tmp/mine/results.json --run runs/bundle-20261122-101500
    """  # noqa: D301
    from kernelwright.cli.output import print_json
    from kernelwright.errors import UserError

    if imported is not None:
        if sources or output or like or run is None:
            raise UserError("say where verdicts go: kernelwright bundle --import FILE --run RUN")
        from kernelwright.campaign.bundle_import import import_results

        document = import_results(imported, run)
        print_json(document) if json else _print_imported(document)
        return
    if not sources or output is None:
        raise UserError("say what to pack and where: kernelwright bundle RUN -o DIR")
    folder = run or Path("runs") / f"bundle-{time.strftime('%Y%m%d-%H%M%S')}"
    document = _pack(sources, output, folder, like, best, numpy, dtype, size, baselines)
    print_json(document) if json else _print_packed(document)


def _pack(
    sources: list[Path], output: Path, run: Path, like: str | None, best: int,
    numpy: Path | None, dtype: str | None, size: str | None, baselines: str | None,
) -> dict[str, Any]:  # fmt: skip
    from kernelwright.campaign.bundle import (
        check_free,
        work_of_kernels,
        work_of_run,
        write_bundle,
    )
    from kernelwright.errors import UserError
    from kernelwright.propose import own_kernel_family
    from kernelwright.store import Archive

    check_free(output, run)
    named = read_names(baselines, None)
    if like is not None:
        families = [own_kernel_family(path) for path in sources]
        work = work_of_kernels(
            read_problem(like), families, read_dtype(dtype), read_sizes(size), named
        )
    elif len(sources) != 1 or not Archive.exists(sources[0]):
        raise UserError(f"'{sources[0]}' is no run folder; kernel files go with --like PROBLEM")
    elif dtype or size:
        raise UserError(
            "a run folder says its element type and sizes: leave out --dtype and --size"
        )
    else:
        with Archive.open(sources[0], read_only=True) as archive:
            work = work_of_run(archive, best, named)
    write_bundle(output, work, run, numpy)
    return {
        "bundle": str(output),
        "run": str(run),
        "problem": work.public.name,
        "dtype": str(work.dtype),
        "sizes": dict(work.sizes),
        "target": work.target,
        "candidates": [
            {"candidate": c.identity, "family": c.family, "tunables": dict(c.tunables)}
            for c in work.candidates
        ],
    }


def _print_packed(document: dict[str, Any]) -> None:
    name = Path(document["bundle"]).name
    print(f"bundle    {document['bundle']}: {len(document['candidates'])} kernels for "
          f"{document['problem']} {document['dtype']}")  # fmt: skip
    print(f"there     python {name}/evaluate.py")
    print(f"then      kernelwright bundle --import {document['bundle']} --run {document['run']}")


def _print_imported(document: dict[str, Any]) -> None:
    from kernelwright.report import text

    for line in document["candidates"]:
        if line["verdict"] == "rejected":
            said = f"rejected: {line['stage']}, {line['reason']}"
        else:
            said = text.duration(line["median_us"])
        if line.get("speedup") is not None:
            low, high = line["speedup_ci"]
            said += f"  {line['speedup']:.2f}x [{low:.2f}, {high:.2f}] over {line['best_baseline']}"
        print(f"{line['family'] or line['candidate'][:12]:<24}  {said}")
    left = len(document["not_judged"])
    more = f", {left} not judged there" if left else ""
    print(f"machine   {document['machine']}, isolation {document['isolation']}{more}")
    print(f"run       {document['run']}")
