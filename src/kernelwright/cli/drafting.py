"""`new`: a problem file from words."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kernelwright.cli.options import (
    JsonOption,
    MaxDollarsOption,
    MaxTokensOption,
    ModelOption,
    existing_file,
    read_names,
)

_LONGEST_KERNEL = 200_000


def new(
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="What is to be computed, in words; or the file of an "
                       "existing kernel or reference.", show_default=False),
    ],
    kernel: Annotated[
        Path | None,
        typer.Option("--kernel", metavar="FILE", help="An existing kernel beside the words.",
                     show_default=False),
    ] = None,
    model: ModelOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Where the file goes; default: NAME.py.",
                     show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write it without asking.")] = False,
    repairs: Annotated[
        int, typer.Option("--repairs", min=0, max=10, help="Most corrections by the model.")
    ] = 3,
    max_dollars: MaxDollarsOption = None,
    max_tokens: MaxTokensOption = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Draft a problem file from words or from a kernel, and run the admission gate on it.

    \b
    kernelwright new "softmax over rows with a boolean mask" --model anthropic:claude-sonnet-4-5
    kernelwright new mine.cu --model openai:gpt-5 --output mine.py
    kernelwright new "what it does to each row" --kernel mine.cu --model relay:folder --yes

    The file is shown and written when you agree (with --json: only with --yes). What a model writes
    is run in a sandbox alone. Exit code 1 when the gate refuses the last draft.
    """  # noqa: D301
    from kernelwright.campaign import DraftRequest, draft_problem
    from kernelwright.cli.output import print_json
    from kernelwright.cli.progress import progress
    from kernelwright.errors import UserError
    from kernelwright.llm import Limits

    if output is not None and output.exists():
        raise UserError(f"'{output}' exists already: choose another --output")
    if not (yes or json or sys.stdin.isatty()):
        raise UserError("nobody can be asked here whether to write the file: add --yes")
    words, code = _asked(what, kernel)
    request = DraftRequest(
        words, code, read_names(model, ()), Limits(max_dollars, max_tokens), repairs
    )
    with progress() as told:
        document = draft_problem(request, told)
    admitted = document["gate"]["ok"]
    path = output or Path(f"{document['problem']}.py")
    if not json:
        _print(document)
    if admitted and (yes or (not json and typer.confirm(f"\nWrite it to {path}?"))):
        document["path"] = str(_write(path, document["source"]))
    else:
        document["path"] = None
    if json:
        print_json(document)
    elif document["path"]:
        print(f"\nwritten   {document['path']}\nnext      kernelwright optimize {document['path']}")
    if not admitted:
        raise typer.Exit(1)


def _asked(what: str, kernel: Path | None) -> tuple[str, str]:
    """The words, and the text of a kernel."""
    from kernelwright.propose import KERNEL_SUFFIXES

    if kernel is None and what.endswith(KERNEL_SUFFIXES) and " " not in what:
        what, kernel = "", Path(what)
    if kernel is None:
        return what, ""
    text = existing_file(kernel, "kernel file").read_text(errors="replace")
    return what, text[:_LONGEST_KERNEL]


def _write(path: Path, source: str) -> Path:
    from kernelwright.errors import UserError

    try:
        with path.open("x") as file:
            file.write(source)
    except FileExistsError:
        raise UserError(f"'{path}' exists already: choose another --output") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be written: {error.strerror}") from None
    return path


def _print(document: dict[str, Any]) -> None:
    """The draft as somebody else's text: nothing in it moves a terminal's cursor."""
    from kernelwright.report.text import assignments, dollars, printable

    print(printable(document["source"]))
    print(f"\n{document['problem']}: {printable(document['summary'])}")
    for assumption in document["assumptions"]:
        print(f"assumed   {printable(assumption)}")
    for target, many in document.get("sizes", {}).items():
        print(f"{target:<9} {'; '.join(map(assignments, many))}")
    if document.get("prototype"):
        print(f"kernel    {printable(document['prototype'])}")
    spent = document["models"]["spent"]
    tokens = spent["input_tokens"] + spent["output_tokens"]
    took = f"{spent['requests']} requests, {tokens:,} tokens, {dollars(spent['dollars'])}"
    print(f"models    {took}, {document['repairs']} corrections")
    for finding in document["gate"]["findings"]:
        print(f"REFUSED   {printable(finding)}")
    if document["gate"]["ok"]:
        print("admitted  wrong answers fail, sound ones pass; read what it states all the same")
