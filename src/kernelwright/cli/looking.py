"""`problems`, `show`, `probe` and `report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    DtypeOption,
    JsonOption,
    ProblemArgument,
    check_scenario,
    existing_file,
    read_dtype,
    read_problem,
)


def problems(
    scenario: Annotated[
        str | None, typer.Option("--scenario", help="Only of this scenario.", show_default=False)
    ] = None,
    skeleton: Annotated[
        str | None, typer.Option("--skeleton", help="Only of this skeleton.", show_default=False)
    ] = None,
    chosen_set: Annotated[
        str | None,
        typer.Option(
            "--set", help="Only of this set: starter, core, unmatched.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the shipped problems.

    \b
    kernelwright problems --scenario llm
    kernelwright problems --set starter
    kernelwright problems --json
    """  # noqa: D301
    check_scenario(scenario)
    from kernelwright.cli.catalogue import catalogue
    from kernelwright.cli.output import print_json, print_table

    rows = [
        row
        for row in catalogue(scenario, chosen_set)
        if skeleton is None or skeleton.lower() in row["skeleton"].lower()
    ]
    if json:
        print_json({"problems": rows})
        return
    columns = ("name", "scenario", "skeleton", "limiter", "summary")
    headings = ("name", "scenario", "skeleton", "limiter", "what it computes")
    print_table(headings, [tuple(row[column] for column in columns) for row in rows])


def show(
    problem: ProblemArgument,
    signature: Annotated[
        bool,
        typer.Option("--signature", help="Print a minimal correct kernel with the prototype."),
    ] = False,
    dtype: DtypeOption = None,
    language: Annotated[
        str, typer.Option("--language", help="Of the prototype: cpp or python.")
    ] = "cpp",
    json: JsonOption = False,
) -> None:
    """Show what a problem computes and how a kernel for it is called.

    \b
    kernelwright show rms_norm
    kernelwright show rms_norm --signature --dtype bf16 > mine.cpp
    kernelwright show rms_norm --signature --language python > mine.py
    """  # noqa: D301
    reference, element = read_problem(problem), read_dtype(dtype)  # before torch is loaded
    from kernelwright.cli.catalogue import describe_safely
    from kernelwright.cli.output import print_json

    document = describe_safely(reference, element, language)
    if json:
        print_json(document)
    elif signature:
        print(document["kernel"], end="")
    else:
        _print_problem(document)


def _print_problem(document: dict[str, Any]) -> None:
    from kernelwright.report import text

    print(f"{document['name']} ({document['scenario']}): {document['summary']}")
    print(f"\nskeleton       {document['skeleton']}")
    print(f"dtypes         {', '.join(document['dtypes'])}")
    for target, many in document["sizes"].items():
        print(f"{target} sizes{' ' * (9 - len(target))}{'; '.join(map(text.assignments, many))}")
    ranges = [f"{name} {low} to {high}" for name, (low, high) in document["ranges"].items()]
    print(f"right for      {', '.join(ranges)}")
    print(f"distributions  {', '.join(document['distributions'])}")
    print(f"baselines      {', '.join(('eager', 'compile', *document['peers']))}")
    for sentence in document["derived"]:
        print(f"derived        {sentence}")
    print(f"\n{document['reference']}")
    if document["expression"]:
        print(f"\n{document['expression']}")
    print(f"\n{document['prototype']}{';' if document['language'] == 'cpp' else ': ...'}")
    for prototype in document["prepare_prototypes"]:
        print(f"{prototype};  // optional")


def probe(
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure again.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what this machine is, what it reaches, and which compilers can be used.

    \b
    kernelwright probe --refresh
    """  # noqa: D301
    from kernelwright import machine
    from kernelwright.campaign.result import machine_document
    from kernelwright.cli.output import print_json
    from kernelwright.report import text
    from kernelwright.sandbox import isolation_note

    found = machine.probe(refresh=refresh)
    document = machine_document(found)
    if json:
        print_json(document)
        return
    print(f"{found.name}: {found.cpu}, {found.cores} cores, {found.vector_bits}-bit vectors")
    print(f"caches     L2 {text.nbytes(found.l2_bytes)} a core, L3 {text.nbytes(found.l3_bytes)}")
    rates = (("read", found.read_gbs), ("copy", found.copy_gbs), ("triad", found.triad_gbs))
    print(f"memory     {', '.join(f'{name} {rate:.1f} GB/s' for name, rate in rates)}")
    print(f"fp32 FMA   {found.fma_gflops:.1f} GFLOP/s")
    if found.bf16_gflops:
        print(f"bf16       {found.bf16_gflops:.1f} GFLOP/s, products summed in fp32")
    if found.gpu is not None:
        _print_gpu(found.gpu)
    note = isolation_note(found.isolation).removeprefix("isolation is ")
    print(f"isolation  {note or found.isolation}")
    for toolchain in found.toolchains:
        print(f"compiler   {toolchain.name}: {toolchain.version} ({toolchain.openmp})")
    for name, why in found.missing.items():
        print(f"not usable {name}: {why}")


def _print_gpu(gpu: Any) -> None:
    from kernelwright.report import text

    memory, cache = text.nbytes(gpu.memory_bytes), text.nbytes(gpu.l2_bytes)
    print(f"GPU        {gpu.name} ({gpu.architecture}), {gpu.multiprocessors} multiprocessors at "
          f"up to {gpu.clock_mhz:.0f} MHz, {memory}, L2 {cache}, driver {gpu.driver}")  # fmt: skip
    rates = (("read", gpu.read_gbs), ("write", gpu.write_gbs), ("copy", gpu.copy_gbs))
    shown = ", ".join(f"{name} {rate:.0f} GB/s" for name, rate in rates)
    print(f"           memory {shown} of {gpu.peak_gbs:.0f} by the datasheet")
    print(f"           fp32 {gpu.fma_gflops / 1000:.1f} TFLOP/s of "
          f"{gpu.peak_fma_gflops / 1000:.1f}, bf16 products {gpu.bf16_gflops / 1000:.0f} TFLOP/s, "
          f"a launch {gpu.launch_us:.1f} us")  # fmt: skip


def report(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A run folder, or a suite.json.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="The page; default: report.html in RUN.", show_default=False),
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option("--svg", help="Also a static picture: roofline of a run, bars of a suite.",
                     show_default=False),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="The table of a suite.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Write the page of a run, finished or not; or the picture and the table of a suite.

    \b
    kernelwright report runs/mine
    kernelwright report runs/suite/suite.json --svg speedups.svg
    """  # noqa: D301
    from kernelwright.cli.output import print_json

    written: dict[str, str] = {}
    if run.suffix == ".json":
        table = existing_file(run, "table")
        written["svg"] = str(_suite_picture(table, svg))
        if markdown is not None:
            markdown.write_text(_suite_table(table))
            written["markdown"] = str(markdown)
    else:
        from kernelwright.report import gather, roofline_svg, write_report
        from kernelwright.store import Archive

        written["report"] = str(write_report(run, output))
        if svg is not None:
            with Archive.open(run, read_only=True) as archive:
                svg.write_text(_roofline(gather(archive), roofline_svg))
            written["svg"] = str(svg)
    if json:
        print_json(written)
    else:
        for path in written.values():
            print(path)


def _roofline(evidence: Any, draw: Any) -> str:
    from kernelwright.errors import UserError

    try:
        return draw(evidence)
    except ValueError as error:
        raise UserError(f"there is no picture of this run: {error}") from None


def _read_suite(table: Path) -> dict[str, Any]:
    import json

    from kernelwright.errors import UserError

    try:
        document = json.loads(table.read_text())
        known = {"problems", "machine"} <= set(document)
    except (ValueError, TypeError):
        known, document = False, {}
    if not known:
        raise UserError(f"'{table}' is not a table that `kernelwright suite` wrote")
    return document


def _suite_picture(table: Path, svg: Path | None) -> Path:
    from kernelwright.report import speedup_svg

    document = _read_suite(table)
    path = svg or table.with_suffix(".svg")
    title = f"Speed-up over the best baseline, {document['machine']}"
    path.write_text(speedup_svg(document["problems"], title))
    return path


def _suite_table(table: Path) -> str:
    from kernelwright.report import suite_markdown

    return suite_markdown(_read_suite(table))
