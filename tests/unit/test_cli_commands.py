"""The command line as a user meets it: real processes, exit codes, one-sentence errors."""

import json
import os
import subprocess
import sys

import pytest

from kernelwright.campaign import Budget, CampaignStatus
from kernelwright.cli.output import print_json
from kernelwright.cli.progress import PlainProgress, describe
from kernelwright.model import FrozenMap
from kernelwright.sandbox import isolation

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("OPENAI")} | {
    "COLUMNS": "100"
}


def run(*arguments, cwd=None):
    code = "from kernelwright.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, timeout=120, env=ENVIRONMENT,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "no_such_problem"), "no shipped problem 'no_such_problem'"),
        (("show", "nowhere.py"), "there is no problem file 'nowhere.py'"),
        (("show", "rms_norm", "--dtype", "f7"), "there is no element type 'f7'"),
        (("show", "rms_norm", "--dtype", "f64"), "'rms_norm' is not declared for f64"),
        (("problems", "--scenario", "cooking"), "there is no scenario 'cooking'"),
        (("optimize", "mine.cpp"), "add --like PROBLEM"),
        (("optimize", "rms_norm", "--like", "softmax"), "--like goes with a kernel file"),
        (("optimize", "rms_norm", "--size", "T:4"), "is not a list of sizes"),
        (("evaluate", "rms_norm", "absent.cpp"), "'absent.cpp' cannot be read"),
        (("compare", "rms_norm", "absent.xyz"), "'absent.xyz' cannot be read"),
        (("profile", "absent.cpp", "--like", "rms_norm"), "'absent.cpp' cannot be read"),
        (("report", "no_run"), "'no_run' is not a run folder"),
        (("report", "absent.json"), "there is no table 'absent.json'"),
        (("replay", "no_run"), "'no_run' is not a run folder"),
        (("optimize", "rms_norm", "--model", "gpt"), "'gpt' names no model"),
        (("optimize", "rms_norm", "--model", "openai:gpt-5"), "OPENAI_API_KEY"),
        (("optimize", "rms_norm", "--proposers", "refine"), "add --model"),
    ],
)
def test_a_users_error_is_one_sentence_and_exit_code_2(arguments, words, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_wrong_option_is_refused_without_a_traceback():
    done = run("optimize", "rms_norm", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_command_with_examples():
    text = run("--help").stdout
    commands = ["problems", "show", "probe", "optimize", "evaluate", "compare", "profile", "report",
                "suite", "audit", "replay", "new", "attempts", "explain", "submit",
                "recipes", "moves", "propose"]  # fmt: skip
    for command in commands:
        assert command in text
        words = run(command, "--help").stdout
        assert f"kernelwright {command}" in words  # an example
        assert "--json" in words


def test_help_is_quick_because_nothing_heavy_is_loaded():
    heavy = (
        "torch numpy rich sqlalchemy optuna plotly pydantic pydantic_ai mcp jinja2 "
        "kernelwright.campaign"
    )
    code = (
        "import sys\nfrom kernelwright.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {heavy.split()} if m in sys.modules], file=sys.stderr)"
    )
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"
    after = os.times()  # processor time: a busy machine shall not decide this
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.4


def test_show_prints_the_exact_prototype_as_json():
    done = run("show", "rms_norm", "--dtype", "bf16", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0
    assert document["prototype"] == (
        'extern "C" int kernel(const bf16* x, const bf16* w, bf16* out, int64_t T, int64_t H, '
        "double eps, const void* prepared, void* workspace, int64_t workspace_bytes, void* stream)"
    )
    assert document["skeleton"] == "rowwise map-reduce-map"


def test_show_takes_a_problem_from_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n\ndef halve(x):\n    return x / 2\n\n"
        "def get_inputs():\n    return (torch.ones(3, 5),)\n"
    )
    done = run("show", "mine.py:halve", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["name"] == "halve"
    assert document["derived"]


@pytest.mark.skipif(isolation() == "process", reason="bubblewrap does not work here")
def test_show_imports_a_strangers_file_in_a_sandbox(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_API_KEY", "hunter2")
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / "folder" / "mine.py").write_text(
        "import os, pathlib\n"
        "assert 'SECRET_API_KEY' not in os.environ, 'a key'\n"
        f"assert not os.path.exists({str(tmp_path / 'secret')!r}), 'a file'\n"
        f"assert not os.access({str(tmp_path / 'folder')!r}, os.W_OK), 'can write'\n"
        "def halve(x):\n    return x / 2\n\nexample_shapes = {'x': (3, 5)}\n"
    )
    done = run("show", tmp_path / "folder" / "mine.py", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "halve"


def test_show_names_the_fault_of_a_problem_file(tmp_path):
    (tmp_path / "mine.py").write_text("def halve(x:\n")
    done = run("show", "mine.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "line 1 is not Python" in done.stderr


def status(**changes):
    values = {
        "evaluations": 23, "budget": Budget(60, 5.0), "best_us": 648.0, "best_speedup": 1.31,
        "best_baseline": "F.rms_norm", "fraction_of_bound": 0.84,
        "rejected": FrozenMap({"build": 3, "check": 1}), "seconds_left": 41.4,
    }  # fmt: skip
    return CampaignStatus(**values | changes)


def test_a_status_says_what_a_watcher_wants_to_know():
    assert describe(status()) == (
        "23/60 judged  best 648 µs  1.31x F.rms_norm  84 % of bound  "
        "rejected: build 3, check 1  41 s left"
    )
    nothing = {"best_us": None, "best_speedup": None, "fraction_of_bound": None}
    assert describe(status(rejected=FrozenMap(), **nothing)) == "23/60 judged  41 s left"


def test_plain_progress_keeps_quiet_between_statuses(capsys):
    progress = PlainProgress(sys.stdout, every_s=60)
    progress.stage("searching")
    progress.update(status(evaluations=1))
    progress.update(status(evaluations=2))
    progress.note("new best")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["searching", "1/60", "new"]


def test_json_has_no_numbers_that_json_lacks(capsys):
    print_json({"a": float("nan"), "b": [1.5, float("inf")], "c": FrozenMap({"d": (1, 2)})})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": {"d": [1, 2]}}


def test_a_suite_table_becomes_a_picture(tmp_path):
    row = {"problem": "p", "dtype": "f32", "speedup_kernel": 1.5, "ci": [1.4, 1.6],
           "best_baseline": "eager"}  # fmt: skip
    (tmp_path / "suite.json").write_text(json.dumps({"machine": "m", "problems": [row]}))
    done = run("report", "suite.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1.50× over eager" in (tmp_path / json.loads(done.stdout)["svg"]).read_text()
    (tmp_path / "suite.json").write_text("[]")
    assert run("report", "suite.json", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("kernelwright opt", "optimize"),
        ("kernelwright optimize rms", "rms_norm"),
        ("kernelwright optimize rms_norm --dtype b", "bf16"),
    ],
)
def test_shells_complete_commands_problems_and_dtypes(typed, offered):
    words = typed.split()
    environment = {**os.environ, "_KERNELWRIGHT_COMPLETE": "complete_bash", "COMP_WORDS": typed,
                   "COMP_CWORD": str(len(words) - 1)}  # fmt: skip
    command = [sys.executable, "-m", "kernelwright"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert offered in done.stdout.split()
