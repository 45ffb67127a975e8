"""The MCP server, driven by the official client."""

import asyncio
import json
import os
import subprocess
import sys

import pytest
from mcp import Client, StdioServerParameters

from kernelwright.cli import tools
from kernelwright.errors import UserError
from kernelwright.store import Archive
from kernelwright.testing import samples

NAMES = {"problems", "read_problem", "evaluate", "profile", "compare", "recipes", "recipe", "moves",
         "attempts", "explain", "submit"}  # fmt: skip


def talk(server, *calls):
    """What the server says to each call."""

    async def talking():
        async with Client(server) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            return listed, [await client.call_tool(name, given) for name, given in calls]

    return asyncio.run(talking())


@pytest.fixture
def run_folder(tmp_path):
    with Archive.create(tmp_path / "run", {"problem": "scaled"}) as archive:
        archive.add_verdict(samples.candidate(), samples.measured(accepted=False), 1.0)
        archive.add_verdict(samples.candidate(4), samples.rejected())
    return tmp_path / "run"


def test_the_server_lists_its_tools_and_answers_over_standard_streams():
    code = "from kernelwright.cli import main; main(['mcp'])"
    parameters = StdioServerParameters(
        command=sys.executable, args=["-c", code], env=dict(os.environ)
    )
    listed, (found,) = talk(parameters, ("recipe", {"name": "scan.hpp"}))
    assert listed == NAMES
    assert "namespace scan" in found.structured_content["source"]


def test_attempts_are_looked_up_and_rejections_explained(run_folder):
    run = str(run_folder)
    rejected = samples.candidate(4).identity[:16]
    _, (listed, explained, unknown) = talk(
        tools.make_server(), ("attempts", {"run": run}),
        ("explain", {"run": run, "candidate": rejected}),
        ("explain", {"run": run, "candidate": "zz"}),
    )  # fmt: skip
    rows = listed.structured_content["attempts"]
    assert [row.get("reason") for row in rows] == [None, "wrong_result"]
    assert rows[0]["median_us"] == 12.5
    assert explained.structured_content["diagnostic"] == samples.rejected().diagnostic
    assert explained.structured_content["source"] == samples.SOURCE
    assert unknown.is_error
    assert "no candidate 'zz'" in unknown.content[0].text


def test_tools_run_the_commands(monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command[3:])
        document = {
            "verdict": "measured", "heldout_faults": ["T=1237"], "generality": {"timed": [1237]},
            "warnings": ["collapses on T=1237"],
            "workloads": [{"tier": "bench", "median_us": 3.0}, {"tier": "heldout", "T": 1237}],
        }  # fmt: skip
        return subprocess.CompletedProcess(command, 0, json.dumps(document), "")

    monkeypatch.setattr(tools.subprocess, "run", run)
    found = tools.evaluate("rms_norm", "int x;", dtype="bf16", sizes="T=4,H=8")
    assert found["workloads"] == [{"tier": "bench", "median_us": 3.0}]
    assert "1237" not in str(found)
    (command,) = commands
    assert command[:5] == ["evaluate", "--dtype", "bf16", "--size", "T=4,H=8"]
    assert command[5:8] == ["--json", "--", "rms_norm"]
    tools.compare("--help", ["int x;", "int y;"])
    assert commands[1][:4] == ["compare", "--json", "--", "--help"]  # no option
    assert len(commands[1]) == 6
    tools.profile("rms_norm", "int x;", "cuda")
    assert commands[2][:5] == ["profile", "--like", "rms_norm", "--json", "--"]
    assert "1237" not in str(tools.submit("runs/mine", "int x;"))
    assert commands[3][:4] == ["submit", "--json", "--", "runs/mine"]
    assert "latency" in tools.moves("latency", "cuda")["moves"]
    assert len(commands) == 4


def test_a_users_error_is_passed_on():
    with pytest.raises(UserError, match="no shipped problem 'nothing'"):
        tools.read_problem("nothing")
    with pytest.raises(UserError, match="no language 'rust'"):
        tools.evaluate("rms_norm", "fn main() {}", "rust")
