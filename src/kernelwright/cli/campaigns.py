"""`optimize` and `suite`."""

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    ArgumentOption,
    BaselinesOption,
    BlockOption,
    DtypeOption,
    EntryOption,
    EvaluationsOption,
    GridOption,
    JsonOption,
    LanguageOption,
    MaxDollarsOption,
    MaxTokensOption,
    MinutesOption,
    ModelOption,
    SeedOption,
    SharedOption,
    SizeOption,
    StrategyOption,
    TargetOption,
    TuneOption,
    WorkspaceOption,
    check_target,
    complete_problem,
    read_dtype,
    read_foreign,
    read_names,
    read_problem,
    read_problem_sizes,
    read_sizes,
    target_of,
)


def optimize(
    problem: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="A shipped problem by name, file.py, file.py:function, or a kernel file "
            "with --like.",
            autocompletion=complete_problem,
            show_default=False,
        ),
    ],
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="PROBLEM",
            help="What the kernel file computes.",
            autocompletion=complete_problem,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Where the kernel will run: cpu, or cuda (an NVIDIA GPU); "
            "default: cpu, or where the kernel file's language runs.",
            show_default=False,
        ),
    ] = None,
    language: LanguageOption = None,
    entry: EntryOption = None,
    argument: ArgumentOption = None,
    grid: GridOption = None,
    block: BlockOption = None,
    shared: SharedOption = None,
    tune: TuneOption = None,
    workspace: WorkspaceOption = None,
    dtype: DtypeOption = None,
    size: SizeOption = None,
    strategy: StrategyOption = "default",
    proposers: Annotated[
        str | None,
        typer.Option(
            "--proposers",
            metavar="A,B",
            help="Where candidates come from: recipes, generate; with a model also refine, "
            "population, tree. Default: recipes,generate, and refine where a model is named.",
            show_default=False,
        ),
    ] = None,
    model: ModelOption = None,
    max_dollars: MaxDollarsOption = None,
    max_tokens: MaxTokensOption = None,
    baselines: BaselinesOption = None,
    evaluations: EvaluationsOption = 60,
    minutes: MinutesOption = 5.0,
    seed: SeedOption = 0,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="DIR",
            help="Run folder; an existing one goes on. Default: a new one below runs/.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find a fast kernel for a problem on this machine, prove it and write it down.

    \b
    kernelwright optimize rms_norm
    kernelwright optimize softmax --dtype bf16 --minutes 2
    kernelwright optimize model.py:gated_norm --size T=512,H=4096
    kernelwright optimize softmax --model anthropic:claude-sonnet-4-5 --max-dollars 2
    kernelwright optimize mine.cpp --like rms_norm
    kernelwright optimize mine.cu --like rms_norm
    kernelwright optimize mine.cu --like softmax --entry launch --argument in=x --argument rows=T
    kernelwright optimize mine.cu --like softmax --entry rows --grid T --block 256 --argument in=x
    kernelwright optimize mine.py --like rms_norm
    """  # noqa: D301
    from kernelwright.campaign import Budget, CampaignRequest
    from kernelwright.campaign import optimize as run_campaign
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.errors import UserError
    from kernelwright.llm import Limits
    from kernelwright.propose import own_kernel_family

    own, problem = _own_kernel(problem, like)
    call = read_foreign(argument, tune, workspace, grid, block, shared)
    if own is None and (entry or call != read_foreign()):
        raise UserError("--entry and what says how it is called go with a kernel file")
    families = (own_kernel_family(own, language, entry, call),) if own else ()
    chosen = target_of(families[0].language, target) if families else check_target(target or "cpu")
    if own is None:
        check_target(chosen, language)
    reference = read_problem(problem)
    name = reference.function or Path(reference.path).stem
    folder = run or Path("runs") / f"{name}-{dtype or 'default'}-{time.strftime('%Y%m%d-%H%M%S')}"
    request = CampaignRequest(
        reference=reference,
        folder=folder,
        dtype=read_dtype(dtype),
        sizes=read_sizes(size),
        budget=Budget(evaluations, minutes),
        strategy=strategy,
        proposers=read_names(proposers, ("recipes", "generate", *(("refine",) if model else ()))),
        own=families,
        baselines=read_names(baselines, None),
        seed=seed,
        target=chosen,
        models=read_names(model, ()),
        limits=Limits(max_dollars, max_tokens),
        language=language,
    )
    try:
        with progress() as told:
            document = run_campaign(request, told)
    except KeyboardInterrupt:
        raise _interrupted(folder) from None
    print_json(document) if json else _print_result(document, folder)


def _own_kernel(problem: str, like: str | None) -> tuple[Path | None, str]:
    """The kernel file, if one was given, and the problem's text."""
    from kernelwright.errors import UserError
    from kernelwright.propose import KERNEL_SUFFIXES

    if problem.endswith(KERNEL_SUFFIXES):
        if like is not None:
            return Path(problem), like
        if not problem.endswith(".py"):  # which a problem's file may end in too
            raise UserError(f"say what '{problem}' computes: add --like PROBLEM")
    if like is not None:
        raise UserError("--like goes with a kernel file, such as: optimize mine.cpp --like PROBLEM")
    return None, problem


def _interrupted(folder: Path) -> typer.Exit:
    words = ["kernelwright", *sys.argv[1:]]
    if "--run" not in words:
        words += ["--run", str(folder)]
    command = shlex.join(words)
    print(f"\nStopped. Nothing measured is lost; go on with:\n  {command}", file=sys.stderr)
    return typer.Exit(130)


def _print_result(document: dict[str, Any], folder: Path) -> None:
    from kernelwright.cli.output import print_trust, print_workloads
    from kernelwright.report import text

    title = f"{document['problem']} {document['dtype']} on {document['machine']}"
    rejected = ", ".join(f"{stage} {count}" for stage, count in document["rejected"].items())
    print(f"{title}: {document['evaluations']} candidates judged in {document['seconds']:.0f} s"
          + (f" (rejected: {rejected})" if rejected else ""))  # fmt: skip
    print_workloads(document)
    print()
    print_trust(document)
    for fault in document.get("heldout_faults") or ():
        print(f"rejected  at held-out sizes: {fault.splitlines()[0]}")
    if document.get("advice"):
        print(f"\nAdvice: {document['advice']}.")
    for sentence in document.get("derived", ()):
        print(f"Derived: {sentence}")
    best = document["best"]
    if best is not None:
        print(f"\nkernel    {best['path']}  {best['family']}  {text.assignments(best['tunables'])}")
        print(f"operator  {document['operator'] or 'none: ' + document['operator_absent']}")
        if document.get("operator_speed_absent"):
            print(f"          its speed is not known: {document['operator_speed_absent']}")
    if document.get("models"):
        print(f"models    {text.models(document['models'])}")
    print(f"report    {document['report']}")
    print(f"run       {folder}")


def replay(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder with language models in it.",
                             show_default=False)
    ],
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Ask every question of a campaign's models again, of its archive: no network, no compiler.

    Exit code 1 when a prompt or a proposed kernel comes out otherwise.

    \b
    kernelwright replay runs/mine
    kernelwright replay runs/mine --json
    """  # noqa: D301
    from kernelwright.campaign import replay as make_again
    from kernelwright.cli.output import print_json

    document = make_again(run)
    if json:
        print_json(document)
    else:
        print(f"{document['requests']} requests and {document['families']} proposed kernels: "
              + ("identical" if document["identical"] else "not the same"))  # fmt: skip
        for key in document["differences"]:
            print(f"differs   {key}")
    if not document["identical"]:
        raise typer.Exit(1)


def suite(
    problems: Annotated[
        str | None,
        typer.Option("--problems", metavar="A,B", help="Problems to run; default: all.",
                     show_default=False),
    ] = None,
    chosen_set: Annotated[
        str | None,
        typer.Option("--set", metavar="NAME", help="A named selection: starter, core, unmatched.",
                     show_default=False),
    ] = None,
    target: TargetOption = "cpu",
    dtypes: Annotated[
        str | None,
        typer.Option("--dtype", metavar="D,E", show_default=False,
                     help="Element types; default: all that a problem declares."),
    ] = None,
    run: Annotated[
        Path, typer.Option("--run", metavar="DIR", help="Folder; what is finished there is kept.")
    ] = Path("runs/suite"),
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="PROBLEM:A=1,B=2", show_default=False,
                     help="Sizes of a problem, a row for each; default: the first declared ones."),
    ] = None,
    strategy: StrategyOption = "default",
    baselines: BaselinesOption = None,
    evaluations: EvaluationsOption = 60,
    minutes: MinutesOption = 3.0,
    seed: SeedOption = 0,
    profile: Annotated[
        bool, typer.Option("--profile/--no-profile", help="Look for what limits each winner.")
    ] = True,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Optimise every problem of the suite; write suite.json into the folder.

    \b
    kernelwright suite --minutes 1
    kernelwright suite --set starter --dtype f32
    kernelwright suite --problems rms_norm,softmax --dtype bf16 --json
    kernelwright suite --set starter --target cuda --size nbody_forces:N=32768
    """  # noqa: D301
    from kernelwright.campaign import Budget, SuiteRequest, run_suite
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.model import Dtype
    from kernelwright.suite import names

    asked = tuple(d for d in map(read_dtype, read_names(dtypes, ())) if isinstance(d, Dtype))
    request = SuiteRequest(
        folder=run,
        problems=read_names(problems, names(chosen_set) if chosen_set else ()),
        dtypes=asked or None,
        budget=Budget(evaluations, minutes),
        strategy=strategy,
        seed=seed,
        target=check_target(target),
        sizes=read_problem_sizes(sizes),
        baselines=read_names(baselines, None),
        command=shlex.join(["kernelwright", *sys.argv[1:]]),
        profile=profile,
    )
    try:
        with progress() as told:
            document = run_suite(request, told)
    except KeyboardInterrupt:
        raise _interrupted(run) from None
    print_json(document) if json else _print_suite(document, run)


def _print_suite(document: dict[str, Any], folder: Path) -> None:
    from kernelwright.cli.output import print_isolation, print_table
    from kernelwright.report import text

    rows: list[tuple[str, ...]] = []
    for row in document["problems"]:
        if row["speedup_kernel"] is None:
            rows.append((row["problem"], row["dtype"], "", "", "", row["reason"], ""))
            continue
        low, high = row["ci"]
        rows.append((
            row["problem"], row["dtype"], text.duration(row["ours_us"]),
            text.duration(row["baseline_us"]), row["best_baseline"],
            f"{row['speedup_kernel']:.2f}x ({low:.2f} to {high:.2f})",
            text.percent(row["fraction_of_bound"]),
        ))  # fmt: skip
    headings = ("problem", "dtype", "ours", "baseline", "which", "speed-up", "of bound")
    print_table(headings, rows, right="ours,baseline,of bound")
    summary = document["summary"]
    if summary["geomean_kernel"] is not None:
        print(f"\ngeometric mean {summary['geomean_kernel']:.2f}x over the best baseline")
    print(f"losses    {', '.join(summary['losses']) or 'none'}")
    print_isolation(document)
    print(f"table     {folder / 'suite.json'}")
