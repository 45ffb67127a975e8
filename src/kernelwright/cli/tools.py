"""`mcp`: the commands as tools for coding agents, over the Model Context Protocol.

A tool answers with the JSON document of the command of its name, without anything that tells of
held-out sizes. What measures is run in a process of its own; measurements take turns.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.server import MCPServer

Document = dict[str, Any]
_TIMEOUT_S = 900.0
_ONE_AT_A_TIME = threading.Lock()
_SUFFIXES = {"cpp": ".cpp", "cuda": ".cu", "python": ".py"}
_SHOWN = (
    "problem", "dtype", "sizes", "machine", "verdict", "stage", "reason", "diagnostic",
    "tunables", "workloads", "verified", "claim", "deterministic", "kernels", "kernel",
    "speedup_over_first", "ci", "outcome", "profile", "candidate", "family", "leads",
    "speedup_over_leader",
)  # fmt: skip
"""Fields of results that tools pass on; what was found at held-out sizes is in none of them."""
_INSTRUCTIONS = """\
Kernelwright judges kernels: they are built in a sandbox, checked against a float64 oracle on many
sizes and distributions, and timed beside baselines. Read a problem, write a kernel under its
prototype with `// @tune NAME = a, b` lines for constants, evaluate it, and mend what the diagnostic
names."""


def mcp() -> None:
    """Serve tools for coding agents on standard input and output (Model Context Protocol).

    \b
    kernelwright mcp
    claude mcp add kernelwright -- kernelwright mcp

    Tools answer with what the commands print with --json.
    """  # noqa: D301
    make_server().run("stdio")


def make_server() -> "MCPServer":
    """The server with its tools.

    Raises:
        UserError: the optional library is not installed.
    """
    from kernelwright.errors import UserError

    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise UserError("`kernelwright mcp` needs an optional library: pip install "
                        "'kernelwright[mcp]'") from None  # fmt: skip
    server = MCPServer("kernelwright", instructions=_INSTRUCTIONS)
    tools = (problems, read_problem, evaluate, profile, compare, recipes, recipe, moves, attempts,
             explain, submit)  # fmt: skip
    for tool in tools:
        server.tool()(_telling(tool, ToolError))
    return server


def _telling(tool: Callable[..., Document], error: type[Exception]) -> Callable[..., Document]:
    """The tool, with a user's error as an answer that the agent reads."""
    from kernelwright.errors import UserError

    @wraps(tool)
    def telling(*arguments: Any, **named: Any) -> Document:
        try:
            return tool(*arguments, **named)
        except UserError as sentence:
            raise error(str(sentence)) from None

    return telling


def problems(scenario: str = "") -> Document:
    """The shipped problems, with skeleton, element types and limiter; of one scenario or all."""
    return _command("problems", [], ["--scenario", scenario] if scenario else [])


def read_problem(problem: str, dtype: str = "", language: str = "cpp") -> Document:
    """What a problem computes: reference, sizes, ranges, prototype, and a minimal right kernel.

    `problem` is a shipped name, `file.py` or `file.py:function`; `language` is cpp or python.
    """
    return _command("show", [problem], ["--language", language, *_options(dtype, "")])


def evaluate(
    problem: str, source: str, language: str = "cpp", dtype: str = "", sizes: str = ""
) -> Document:
    """Judge one kernel at its default tunables: measured times beside baselines, or a rejection.

    `source` is the whole file, `language` cpp, cuda or python, `sizes` such as `T=4096,H=1024`. A
    rejection names its stage and reason, and its diagnostic says where: index, expected, got.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder), "kernel", source, language)
        return visible(_command("evaluate", [problem, path], _options(dtype, sizes)))


def compare(
    problem: str, sources: list[str], language: str = "cpp", dtype: str = "", sizes: str = ""
) -> Document:
    """Measure two to six kernels in the same rounds; ratios are with the first."""
    from kernelwright.errors import UserError

    if not 2 <= len(sources) <= 6:
        raise UserError("give two to six kernels")
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder), f"kernel{n}", s, language) for n, s in enumerate(sources)]
        return visible(_command("compare", [problem, *paths], _options(dtype, sizes)))


def profile(
    problem: str, source: str, language: str = "cpp", dtype: str = "", sizes: str = ""
) -> Document:
    """Say what limits one kernel, by which numbers, and which moves usually help against that.

    Arguments as for `evaluate`; a kernel that is not right is rejected instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder), "kernel", source, language)
        return visible(_command("profile", [path], ["--like", problem, *_options(dtype, sizes)]))


def recipes() -> Document:
    """Names of the expert kernels whose sources `recipe` gives."""
    from kernelwright.campaign import lookup

    return lookup.recipes()


def recipe(name: str) -> Document:
    """The source of an expert kernel."""
    from kernelwright.campaign import lookup

    return lookup.recipes(name)


def moves(limit: str = "", target: str = "cpu") -> Document:
    """What usually helps against a limit that `profile` names (all of them where none is given)."""
    from kernelwright.campaign import lookup
    from kernelwright.cli.options import check_target

    return lookup.moves(limit or None, check_target(target))


def attempts(run: str, most: int = 40) -> Document:
    """What a campaign tried, newest last: candidate, family, tunables, time or rejection.

    `run` is a run folder.
    """
    from kernelwright.campaign import lookup

    return lookup.attempts(Path(run), most)


def explain(run: str, candidate: str) -> Document:
    """Why a candidate of a campaign was rejected, or what it reached and what limits it.

    `candidate` is the beginning of its identity, as `attempts` gives it.
    """
    from kernelwright.campaign import lookup

    return lookup.explained(Path(run), candidate)


def submit(run: str, source: str, language: str = "cpp") -> Document:
    """Judge a kernel beside the leader of a run folder and keep the verdict in its archive.

    A later `optimize` of the folder tunes it with the rest. No other process may work on the run.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder), "submitted", source, language)
        return visible(_command("submit", [run, path]))


def visible(document: Document) -> Document:
    """A result without anything that tells of held-out sizes."""
    shown = {key: value for key, value in document.items() if key in _SHOWN}
    if "workloads" in shown:
        shown["workloads"] = [w for w in shown["workloads"] if w["tier"] != "heldout"]
    if "kernels" in shown:
        shown["kernels"] = [visible(row) for row in shown["kernels"]]
    return shown


def _command(name: str, words: Sequence[str], options: Sequence[str] = ()) -> Document:
    """The JSON document of a command.

    Args:
        name: of the command.
        words: its arguments; none of them can be taken for an option.
        options: with their values.

    Raises:
        UserError: it ended with a user's error, or not in time; the sentence it said.
    """
    from kernelwright.errors import UserError

    command = [sys.executable, "-m", "kernelwright", name, *options, "--json", "--", *words]
    with _ONE_AT_A_TIME:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"`{name}` took longer than {_TIMEOUT_S:.0f} s") from None
    if done.returncode not in (0, 1) or not done.stdout:
        raise UserError((done.stderr.strip().splitlines() or [f"`{name}` failed"])[-1])
    return json.loads(done.stdout)


def _options(dtype: str, sizes: str) -> list[str]:
    pairs = (("--dtype", dtype), ("--size", sizes))
    return [word for option, value in pairs if value for word in (option, value)]


def _write(folder: Path, name: str, source: str, language: str) -> str:
    from kernelwright.errors import UserError

    if language not in _SUFFIXES:
        raise UserError(f"there is no language '{language}': choose from {', '.join(_SUFFIXES)}")
    path = folder / f"{name}{_SUFFIXES[language]}"
    path.write_text(source)
    return str(path)
