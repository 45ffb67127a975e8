"""Arguments and options that several commands share, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from kernelwright.model import Dtype, FrozenMap, Target
    from kernelwright.problems import ProblemReference
    from kernelwright.propose import ForeignCall

T = TypeVar("T")


def complete_problem(incomplete: str) -> list[str]:
    """Names of shipped problems that begin like this, for shells."""
    from kernelwright import suite

    return [name for name in suite.names() if name.startswith(incomplete)]


def complete_dtype(incomplete: str) -> list[str]:
    """Element types that begin like this, for shells."""
    return [name for name in ("f32", "bf16", "f16", "f64") if name.startswith(incomplete)]


ProblemArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROBLEM",
        help="A shipped problem by name, or file.py, or file.py:function.",
        autocompletion=complete_problem,
        show_default=False,
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Element type, such as f32 or bf16; default: the problem's first.",
        autocompletion=complete_dtype,
        show_default=False,
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="A=1,B=2",
        help="Sizes to optimise for; default: those the problem declares.",
        show_default=False,
    ),
]
TargetOption = Annotated[
    str, typer.Option("--target", help="Where the kernel will run: cpu, or cuda (an NVIDIA GPU).")
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--language",
        help="What kernels are written in: cpp; cuda or triton for the target cuda.",
        show_default=False,
    ),
]
_FOREIGN = "A kernel with a signature of its own"
EntryOption = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME",
        help="The function: one that launches, or a __global__ one.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
ArgumentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--argument",
        metavar="THEIRS=OURS",
        help="What a parameter of it is: a tensor, a dimension, a scalar, an expression of these, "
        "workspace, stream or nullptr.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
GridOption = Annotated[
    str | None,
    typer.Option(
        "--grid",
        metavar="X,Y,Z",
        help="Blocks of a __global__ function: expressions of dimensions, #defines and block.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
BlockOption = Annotated[
    str | None,
    typer.Option(
        "--block",
        metavar="X,Y,Z",
        help="Threads of a block; one number is a tunable.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
SharedOption = Annotated[
    str | None,
    typer.Option(
        "--shared",
        metavar="BYTES",
        help="Dynamic shared memory of a block.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
TuneOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tune",
        metavar="NAME=A,B",
        help="Values of a #define or constant of the file, or none; default: each power of two "
        "with its half and its double.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        metavar="BYTES",
        help="Scratch memory: an expression of dimensions and scalars.",
        rich_help_panel=_FOREIGN,
        show_default=False,
    ),
]
BaselinesOption = Annotated[
    str | None,
    typer.Option(
        "--baselines",
        metavar="A,B",
        help="Baselines to run; default: eager, compile and every peer. On a GPU there is "
        "max-autotune too, the compiler at its slowest.",
        show_default=False,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help="Makes the search repeatable.")]
EvaluationsOption = Annotated[
    int, typer.Option("--evaluations", min=1, help="Most candidates to build and judge.")
]
MinutesOption = Annotated[
    float, typer.Option("--minutes", min=0.01, help="Most minutes of search; acceptance follows.")
]
StrategyOption = Annotated[
    str, typer.Option("--strategy", help="How the next candidate is chosen.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PROVIDER:NAME",
        help="A language model (several: separated by commas); local:NAME for the server in "
        "OPENAI_BASE_URL, relay:FOLDER for files that somebody answers. Keys come from the "
        "environment.",
        show_default=False,
    ),
]
MaxDollarsOption = Annotated[
    float | None,
    typer.Option("--max-dollars", metavar="X", min=0, help="Most that the models may cost.",
                 show_default=False),
]  # fmt: skip
MaxTokensOption = Annotated[
    int | None,
    typer.Option("--max-tokens", metavar="N", min=1, help="Most tokens, in and out.",
                 show_default=False),
]  # fmt: skip
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on standard output."),
]


def read_problem(text: str) -> ProblemReference:
    """The problem that an argument names.

    Raises:
        ProblemError: there is none.
    """
    from kernelwright import suite
    from kernelwright.problems import parse_reference

    looks_like_file = any(mark in text for mark in ("/", ".py", ".pkl", ":"))
    return parse_reference(text) if looks_like_file else suite.find(text)


def read_dtype(text: str | None) -> Dtype | None:
    """The element type that an option names.

    Raises:
        UserError: there is none of that name.
    """
    from kernelwright.errors import UserError
    from kernelwright.model import Dtype

    if text is None:
        return None
    try:
        return Dtype(text)
    except ValueError:
        known = ", ".join(d for d in Dtype if d.is_float)
        raise UserError(f"there is no element type '{text}': choose from {known}") from None


def read_sizes(text: str | None) -> FrozenMap[str, int] | None:
    """`A=1,B=2` as a map.

    Raises:
        UserError: the text has another form.
    """
    from kernelwright.errors import UserError
    from kernelwright.model import FrozenMap

    if text is None:
        return None
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value.isdecimal():
            raise UserError(f"'--size {text}' is not a list of sizes such as T=4096,H=1024")
        sizes[name] = int(value)
    return FrozenMap(sizes)


def read_problem_sizes(texts: list[str] | None) -> tuple[tuple[str, FrozenMap[str, int]], ...]:
    """Each `PROBLEM:A=1,B=2` as a name and a map.

    Raises:
        UserError: a text has another form.
    """
    from kernelwright.errors import UserError

    found: list[tuple[str, FrozenMap[str, int]]] = []
    for text in texts or ():
        problem, colon, rest = text.partition(":")
        sizes = read_sizes(rest) if colon else None
        if sizes is None:
            raise UserError(
                f"'--size {text}' is not a problem and its sizes: PROBLEM:T=4096,H=1024"
            )
        found.append((problem.strip(), sizes))
    return tuple(found)


def read_names(text: str | None, default: T) -> tuple[str, ...] | T:
    """`a,b` as a tuple."""
    if text is None:
        return default
    return tuple(name.strip() for name in text.split(",") if name.strip())


def read_foreign(
    arguments: list[str] | None = None,
    tune: list[str] | None = None,
    workspace: str | None = None,
    grid: str | None = None,
    block: str | None = None,
    shared: str | None = None,
) -> ForeignCall:
    """What flags say about a function with a signature of its own.

    Raises:
        UserError: one of them is not NAME=VALUE.
    """
    from kernelwright.propose import ForeignCall

    values = None if tune is None else _assignments("--tune", [t for t in tune if t != "none"])
    called = _assignments("--argument", arguments or [])
    return ForeignCall(called, values, workspace, grid, block, shared)


def _assignments(flag: str, texts: list[str]) -> dict[str, str]:
    from kernelwright.errors import UserError

    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise UserError(f"{flag} takes NAME=VALUE, and not '{text}'")
        if name in found:
            raise UserError(f"{flag} says twice what '{name}' is")
        found[name] = value
    return found


def existing_file(path: Path, what: str) -> Path:
    """The path, if it is a file.

    Raises:
        UserError: it is not.
    """
    from kernelwright.errors import UserError

    if not path.is_file():
        raise UserError(f"there is no {what} '{path}'")
    return path


def check_scenario(scenario: str | None) -> None:
    """Hold a scenario against the shipped ones; None is any.

    Raises:
        UserError: there is no such scenario.
    """
    from kernelwright import suite
    from kernelwright.errors import UserError

    known = sorted({suite.scenario(name) for name in suite.names()})
    if scenario is not None and scenario not in known:
        raise UserError(f"there is no scenario '{scenario}': choose from {', '.join(known)}")


def check_target(target: str, language: str | None = None) -> Target:
    """Accept what this version can do.

    Raises:
        UserError: another target, or a language that does not run there.
    """
    from kernelwright.errors import UserError

    languages: dict[Target, tuple[str, ...]] = {"cpu": ("cpp",), "cuda": ("cuda", "triton")}
    if target not in languages:
        raise UserError(f"there is no target '{target}' in this version: only cpu and cuda")
    wanted = languages[target]
    if language not in (None, *wanted):
        raise UserError(
            f"there is no language '{language}' for {target} in this version: only "
            f"{' and '.join(wanted)}"
        )
    return target


def target_of(language: str, target: str | None) -> Target:
    """Where a kernel of this language runs: CUDA C++ and Triton on the GPU, others elsewhere.

    Raises:
        UserError: it does not run on the target that was asked for.
    """
    from kernelwright.errors import UserError
    from kernelwright.model import language_target

    own = language_target(language)
    if target not in (None, own):
        check_target(target)
        raise UserError(f"a kernel in {language} runs on {own}, not on {target}")
    return own
