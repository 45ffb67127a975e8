"""`mcp`: the commands as tools for coding agents, over the Model Context Protocol.

A tool runs the command of its name in a process of its own and passes on its JSON document, without
anything that tells of held-out sizes. Measurements take turns.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.resources import files
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
    "speedup_over_first", "ci", "outcome",
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
    for tool in (problems, read_problem, evaluate, compare, recipes, recipe, attempts, explain):
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
    return _command("problems", *(("--scenario", scenario) if scenario else ()))


def read_problem(problem: str, dtype: str = "", language: str = "cpp") -> Document:
    """What a problem computes: reference, sizes, ranges, prototype, and a minimal right kernel.

    `problem` is a shipped name, `file.py` or `file.py:function`; `language` is cpp or python.
    """
    return _command("show", problem, "--language", language, *_options(dtype, ""))


def evaluate(
    problem: str, source: str, language: str = "cpp", dtype: str = "", sizes: str = ""
) -> Document:
    """Judge one kernel at its default tunables: measured times beside baselines, or a rejection.

    `source` is the whole file, `language` cpp, cuda or python, `sizes` such as `T=4096,H=1024`. A
    rejection names its stage and reason, and its diagnostic says where: index, expected, got.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder), "kernel", source, language)
        return visible(_command("evaluate", problem, path, *_options(dtype, sizes)))


def compare(
    problem: str, sources: list[str], language: str = "cpp", dtype: str = "", sizes: str = ""
) -> Document:
    """Measure two to six kernels in the same rounds; ratios are with the first."""
    from kernelwright.errors import UserError

    if not 2 <= len(sources) <= 6:
        raise UserError("give two to six kernels")
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(Path(folder), f"kernel{n}", s, language) for n, s in enumerate(sources)]
        return visible(_command("compare", problem, *paths, *_options(dtype, sizes)))


def recipes() -> Document:
    """Names of the expert kernels whose sources `recipe` gives."""
    return {"recipes": sorted(_recipe_files())}


def recipe(name: str) -> Document:
    """The source of an expert kernel."""
    from kernelwright.errors import UserError

    found = _recipe_files()
    if name not in found:
        raise UserError(f"there is no recipe '{name}': choose from {', '.join(sorted(found))}")
    return {"name": name, "source": found[name]}


def attempts(run: str, most: int = 40) -> Document:
    """What a campaign tried, newest last: candidate, family, tunables, time or rejection.

    `run` is a run folder.
    """
    from kernelwright.model import Rejected
    from kernelwright.store import Archive

    with Archive.open(Path(run), read_only=True) as archive:
        rows: list[Document] = []
        for candidate, verdict in archive.evidence()[-most:]:
            row: Document = {
                "candidate": candidate.identity[:16], "family": candidate.family,
                "proposer": candidate.lineage.proposer, "tunables": dict(candidate.tunables),
            }  # fmt: skip
            if isinstance(verdict, Rejected):
                row |= {"stage": str(verdict.stage), "reason": str(verdict.reason)}
            elif verdict.workloads:
                row["median_us"] = verdict.workloads[0].time_us.median
            rows.append(row)
        return {"problem": archive.campaign.get("problem"), "attempts": rows}


def explain(run: str, candidate: str) -> Document:
    """Why a candidate of a campaign was rejected, or what it reached: diagnostic and source.

    `candidate` is the beginning of its identity, as `attempts` gives it.
    """
    from kernelwright.model import Rejected
    from kernelwright.store import Archive

    with Archive.open(Path(run), read_only=True) as archive:
        found = archive.candidate(candidate)
        verdict = [v for c, v in archive.evidence() if c.identity == found.identity][-1]
        document: Document = {
            "family": found.family, "language": found.language, "source": found.source,
            "tunables": dict(found.tunables), "idea": found.lineage.note,
        }  # fmt: skip
        if isinstance(verdict, Rejected):
            return document | {
                "verdict": "rejected", "stage": str(verdict.stage), "reason": str(verdict.reason),
                "diagnostic": verdict.diagnostic,
            }  # fmt: skip
        first = verdict.workloads[0] if verdict.workloads else None
        return document | {
            "verdict": "measured",
            "median_us": first.time_us.median if first else None,
            "fraction_of_bound": first.fraction_of_bound if first else None,
        }


def visible(document: Document) -> Document:
    """A result without anything that tells of held-out sizes."""
    shown = {key: value for key, value in document.items() if key in _SHOWN}
    if "workloads" in shown:
        shown["workloads"] = [w for w in shown["workloads"] if w["tier"] != "heldout"]
    if "kernels" in shown:
        shown["kernels"] = [visible(row) for row in shown["kernels"]]
    return shown


def _command(name: str, *arguments: str) -> Document:
    """The JSON document of a command.

    Raises:
        UserError: it ended with a user's error, or not in time; the sentence it said.
    """
    from kernelwright.errors import UserError

    command = [sys.executable, "-m", "kernelwright", name, *arguments, "--json"]
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


def _options(dtype: str, sizes: str) -> Sequence[str]:
    pairs = (("--dtype", dtype), ("--size", sizes))
    return [word for option, value in pairs if value for word in (option, value)]


def _write(folder: Path, name: str, source: str, language: str) -> str:
    from kernelwright.errors import UserError

    if language not in _SUFFIXES:
        raise UserError(f"there is no language '{language}': choose from {', '.join(_SUFFIXES)}")
    path = folder / f"{name}{_SUFFIXES[language]}"
    path.write_text(source)
    return str(path)


def _recipe_files() -> dict[str, str]:
    folder = files("kernelwright.recipes")
    return {
        item.name: item.read_text()
        for place in (folder, folder / "cuda")
        for item in place.iterdir()
        if item.name.endswith((".hpp", ".cu"))
    }
