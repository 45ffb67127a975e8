"""The application: its commands, and how every command ends."""

import os
import sys
from typing import Annotated, Any

import typer

from kernelwright import __version__
from kernelwright.cli import (
    auditing,
    bundling,
    campaigns,
    drafting,
    judging,
    looking,
    past,
    profiling,
    proposing,
    tools,
)

app = typer.Typer(
    name="kernelwright",
    help="Turn slow reference code into fast kernels that can be trusted.",
    epilog="Exit codes: 0 success, 1 a verdict against a candidate, 2 something for you to mend.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs no rich, which halves the time to show it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _command in (
    looking.problems,
    looking.show,
    looking.probe,
    campaigns.optimize,
    judging.evaluate,
    judging.compare,
    profiling.profile,
    looking.report,
    campaigns.suite,
    campaigns.replay,
    bundling.bundle,
    proposing.propose,
    auditing.audit,
    past.attempts,
    past.explain,
    past.submit,
    past.recipes,
    past.moves,
    drafting.new,
    tools.mcp,
):
    app.command(_command.__name__)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kernelwright {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Run one command; never returns.

    A user's error ends in one sentence on standard error and exit code 2, a failure of our own
    machinery in exit code 3, an interruption in 130. KERNELWRIGHT_DEBUG=1 shows tracebacks.
    """
    from kernelwright.errors import KernelwrightError, Unsupported, UserError

    try:
        app(arguments, prog_name="kernelwright")
    except KernelwrightError as error:
        if os.environ.get("KERNELWRIGHT_DEBUG"):
            raise
        if isinstance(error, UserError | Unsupported):
            sys.exit(_complain(str(error), 2))
        hint = "a fault of kernelwright itself; KERNELWRIGHT_DEBUG=1 shows where"
        sys.exit(_complain(f"{error} ({hint})", 3))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)


def _complain(sentence: str, code: int) -> int:
    print(f"kernelwright: {sentence}", file=sys.stderr)
    return code
