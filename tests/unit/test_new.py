"""`new`: drafts from a scripted model, held against the gate in a sandbox."""

import json
import sys
from dataclasses import replace

import pytest

from kernelwright.agents.drafts import draft, fault_of
from kernelwright.agents.replies import Draft, Malformed
from kernelwright.campaign import DraftRequest, draft_problem
from kernelwright.campaign import draft as drafting
from kernelwright.cli import main
from kernelwright.errors import UserError
from kernelwright.evaluation.gate import GateReport, examine_file
from kernelwright.sandbox import isolation
from kernelwright.testing import samples
from kernelwright.testing.models import Answer, ScriptedServer, in_order

sandboxed = pytest.mark.skipif(isolation() == "process", reason="bubblewrap does not work here")
GOOD = '''
import torch
from jaxtyping import Float
from torch import Tensor

from kernelwright.problems import problem


@problem(dtypes=("f32",), sizes={"cpu": [dict(T=512, H=1024)]}, ranges=dict(H=(1, 2000)))
def half_norm(x: Float[Tensor, "T H"], w: Float[Tensor, "H"]) -> Float[Tensor, "T H"]:
    """Half of each row by its root mean square, scaled."""
    return 0.5 * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * w
'''
UNUSED = GOOD.replace(" * w\n", "\n")
HOSTILE = GOOD.replace("    return", '    torch.Tensor.data_ptr.__globals__["x"]\n    return')


def reply(source, **changes):
    record = {"name": "half_norm", "summary": "halves", "assumptions": ["eps is \x1b[2J 1e-6"]}
    return f"```json\n{json.dumps(record | changes)}\n```\n```python{source}```\n"


@pytest.fixture
def model(monkeypatch):
    """A function that makes the model of this test answer with some texts, one after the other."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def answering(*texts):
            script = in_order(*(Answer(text) for text in texts))
            server = stack.enter_context(ScriptedServer.serving(script))
            monkeypatch.setenv("OPENAI_BASE_URL", server.address)
            return server

        yield answering


@sandboxed
def test_what_the_gate_finds_goes_back_and_the_correction_is_admitted(model):
    server = model(reply(UNUSED), reply(GOOD))
    document = draft_problem(DraftRequest("half a norm", models=("local:tested",)))
    assert document["gate"] == {"ok": True, "findings": []}
    assert document["repairs"] == 1
    assert document["source"].strip() == GOOD.strip()
    assert document["skeleton"] == "rowwise map-reduce-map"
    assert document["prototype"].startswith('extern "C" int kernel(const float* x, const float* w')
    assert document["models"]["spent"]["requests"] == 2
    said = [message["content"] for message in server.requests[1]["messages"]]
    assert "input w: changing it changes no output" in said[1]
    assert "half a norm" in said[1]


@pytest.fixture
def gate(monkeypatch, tmp_path):
    """A gate that says of every file what it is told to; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(drafting, "isolation", lambda: "sandbox")

    def saying(*findings):
        report = GateReport(replace(samples.problem(), name="half_norm"), findings)
        monkeypatch.setattr(drafting, "examine_file", lambda path: report)

    return saying


def test_corrections_are_bounded_and_nothing_refused_is_written(model, gate, tmp_path, capsys):
    gate("f32: \x1b[2J zeros pass")
    server = model(reply(UNUSED))
    command = ["new", "half a norm", "--model", "local:tested", "--repairs", "1", "--yes"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 1
    assert len(server.requests) == 2
    assert list(tmp_path.iterdir()) == []
    shown = capsys.readouterr().out
    assert "REFUSED" in shown
    assert "\x1b" not in shown


def test_a_draft_is_written_when_it_is_agreed_to(model, gate, tmp_path, monkeypatch, capsys):
    gate()
    (tmp_path / "old.cu").write_text("// ~~~~\n__global__ void half_norm() {}\n")
    server = model(reply(GOOD))
    command = ["new", "old.cu", "--model", "local:tested", "--json"]
    with pytest.raises(SystemExit):
        main(command)
    document = json.loads(capsys.readouterr().out)
    assert document["path"] is None
    assert document["gate"]["ok"]
    assert "__global__ void half_norm" in server.requests[0]["messages"][1]["content"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--yes", "--output", "mine.py"])
    assert ended.value.code == 0
    assert (tmp_path / "mine.py").read_text().strip() == GOOD.strip()
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--yes", "--output", "mine.py"])
    assert ended.value.code == 2
    assert "exists already" in capsys.readouterr().out


@sandboxed
def test_a_hostile_file_is_a_finding(tmp_path):
    (tmp_path / "mine.py").write_text("import os\nos._exit(3)\n")
    report = examine_file(tmp_path / "mine.py")
    assert not report.ok
    assert "gave no answer" in report.findings[0]


def test_without_a_model_one_sentence_says_so():
    with pytest.raises(UserError, match="add --model PROVIDER:NAME"):
        draft_problem(DraftRequest("half a norm"))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (GOOD.replace("import torch\n", "import torch, os\n"), "imports 'os'"),
        (HOSTILE, "'__globals__' is not allowed"),
        (GOOD + "\nwhile True: pass\n", "only imports, constants and functions"),
        (GOOD + "\nx = open('/etc/passwd')\n", "'open' is not allowed"),
        (GOOD.replace("torch.rsqrt", "torch.load"), "'load' is not allowed"),
        (GOOD.replace("def half_norm", "def other"), "no function 'half_norm'"),
        ("def half_norm(:\n", "is not Python"),
    ],
)
def test_a_draft_is_plain(source, words):
    assert words in fault_of(Draft(name="half_norm", summary="", source=source))
    with pytest.raises(Malformed):
        draft("x", "").read(reply("\n" + source))


def test_a_plain_draft_is_fine():
    assert fault_of(Draft(name="half_norm", summary="", source=GOOD)) == ""
    assert draft("x", "").read(reply(GOOD)).name == "half_norm"
