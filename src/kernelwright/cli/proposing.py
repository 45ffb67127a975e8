"""`propose`: models here, the device elsewhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    BaselinesOption,
    DtypeOption,
    JsonOption,
    MaxDollarsOption,
    MaxTokensOption,
    ModelOption,
    SeedOption,
    SizeOption,
    check_target,
    complete_problem,
    read_dtype,
    read_names,
    read_problem,
    read_sizes,
)


def propose(
    problem: Annotated[
        str | None,
        typer.Argument(metavar="PROBLEM", help="At the first step: what is to be computed.",
                       autocompletion=complete_problem, show_default=False),
    ] = None,
    run: Annotated[
        Path, typer.Option("--run", metavar="DIR", help="Run folder; an existing one goes on.")
    ] = Path("runs/far"),
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="The folder to pack.",
                     show_default=False),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option("--results", metavar="FILE", help="What evaluate.py of the last bundle wrote.",
                     show_default=False),
    ] = None,
    own: Annotated[
        list[Path] | None,
        typer.Option("--own", metavar="FILE", help="A kernel to begin with; may be repeated.",
                     show_default=False),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="cpu or cuda.")] = "cuda",
    proposers: Annotated[
        str, typer.Option("--proposers", metavar="A,B", help="refine, population, tree.")
    ] = "refine",
    kernels: Annotated[
        int, typer.Option("--kernels", min=1, max=64, help="Most candidates of a bundle.")
    ] = 6,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.01, help="Longest wait for the models.")
    ] = 10.0,
    model: ModelOption = None,
    max_dollars: MaxDollarsOption = None,
    max_tokens: MaxTokensOption = None,
    dtype: DtypeOption = None,
    size: SizeOption = None,
    baselines: BaselinesOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Ask models for kernels and pack them for a machine elsewhere; with its verdicts, go on.

    \b
    kernelwright propose softmax --model anthropic:claude-sonnet-4-5 --run runs/far -o b1
    # there: python b1/evaluate.py -o results.json
    kernelwright propose --run runs/far --results results.json -o b2
    """  # noqa: D301
    from kernelwright.campaign import FarRequest
    from kernelwright.campaign import propose as step
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.errors import UserError
    from kernelwright.llm import Limits
    from kernelwright.propose import own_kernel_family

    if output is None:
        raise UserError("say which folder to pack: add -o DIR")
    request = FarRequest(
        run=run,
        bundle=output,
        reference=read_problem(problem) if problem else None,
        dtype=read_dtype(dtype),
        sizes=read_sizes(size),
        target=check_target(target),
        results=results,
        own=tuple(own_kernel_family(path) for path in own or ()),
        proposers=read_names(proposers, ("refine",)),
        models=read_names(model, ()),
        limits=Limits(max_dollars, max_tokens),
        kernels=kernels,
        minutes=minutes,
        seed=seed,
        baselines=read_names(baselines, None),
    )
    with progress() as told:
        document = step(request, told)
    print_json(document) if json else _print(document)


def _print(document: dict[str, Any]) -> None:
    from kernelwright.report import text

    print(f"{document['problem']} {document['dtype']}, step {document['step']}")
    if document["best"]:
        speedups = document["best"]["speedup"].items()
        over = ", ".join(f"{ratio:.2f}x {name}" for name, ratio in speedups)
        print(f"best      {document['best']['family']}: {over} on {document['machine']}")
    for row in document["candidates"]:
        print(f"packed    {row['family']}  {text.assignments(row['tunables'])}")
    print(f"models    {text.models(document['models'])}")
    bundle = document["bundle"]
    print(f"there     python {Path(bundle).name}/evaluate.py -o results.json")
    print(f"then      kernelwright propose --run {document['run']} --results results.json -o NEXT")
