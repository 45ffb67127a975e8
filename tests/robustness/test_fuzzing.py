"""Garbage from outside ends in one clear sentence or a verdict, never in a traceback."""

import ctypes
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kernelwright import suite
from kernelwright.cli import main
from kernelwright.errors import ArchiveError, CandidateError, UserError
from kernelwright.evaluation.clocks import agreed_us
from kernelwright.execution import Arena, CallReport, Failure, Limits, Worker
from kernelwright.execution.clock import Bracket
from kernelwright.execution.diagnose import explain_problem
from kernelwright.execution.page import Page
from kernelwright.model import Host, Reason
from kernelwright.problems import load_problem, parse_reference
from kernelwright.propose import own_kernel_family
from kernelwright.space import Space, parse_declarations
from kernelwright.store import Archive
from kernelwright.testing import samples

QUIET = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def one_sentence(error: BaseException) -> None:
    text = str(error)
    assert text
    assert "Traceback" not in text
    assert len(text) < 2000


# What a worker writes -----------------------------------------------------------------------------


class StubChild:
    """A worker that answers whatever is on the page, or does not."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome
        self.pid = os.getpid()
        self.process = self
        self.returncode = 3
        self.running = True

    def wait(self, *_: object, **__: object) -> str:
        return self.outcome

    def tail(self, *_: object) -> str:
        return "its last words"

    def cpu_ns(self) -> int:
        return 0

    def tasks(self) -> int:
        return 1

    def output_bytes(self) -> int:
        return 10

    def _nothing(self) -> None:
        pass

    go = freeze = thaw = close = _nothing


@pytest.fixture(autouse=True)
def _stub_clock(monkeypatch):
    stub = lambda child, *_: Bracket(child.outcome, 12_345)  # noqa: E731
    monkeypatch.setattr("kernelwright.execution.worker.bracket", stub)


def worker_with(page: bytes, outcome: str) -> Worker:
    with Arena("x", 4096, huge=False) as arena:
        worker = Worker(Host(("true",), Path("clock")), [arena], 2, Limits())
    worker._child = StubChild(outcome)
    ctypes.memmove(ctypes.addressof(worker._page), page, ctypes.sizeof(Page))
    return worker


def pages() -> st.SearchStrategy[bytes]:
    """Random pages; zeros in the fields that end a worker at once, as often as not."""
    size = ctypes.sizeof(Page)

    def changed(parts: tuple[bytes, bool, bool, int, int]) -> bytes:
        data, no_problem, no_signal, problem, number = parts
        page = Page.from_buffer_copy((data * (size // len(data) + 1))[:size])
        page.problem = 0 if no_problem else problem
        page.signal = 0 if no_signal else number
        return bytes(page)

    small = st.integers(0, 9) | st.integers(0, 70) | st.integers(0, 2**32 - 1)
    blocks = st.binary(min_size=1, max_size=256) | st.binary(min_size=size, max_size=size)
    return st.tuples(blocks, st.booleans(), st.booleans(), small, small).map(changed)


@QUIET
@given(pages(), st.sampled_from(["done", "ended", "timeout", "crowd"]))
def test_any_page_is_a_report_or_a_failure(page, outcome):
    for ask in (
        lambda worker: worker._failure_of(outcome, 1.0, "in a test"),
        lambda worker: worker.null_call(),
        lambda worker: worker.workspace_bytes((1, 2), (0.5,)),
    ):
        worker = worker_with(page, outcome)
        result = ask(worker)
        worker.close()
        if isinstance(result, Failure):
            assert isinstance(result.reason, Reason)
            assert result.detail
            assert all(c.isprintable() or c in "\n\t" for c in result.detail), result.detail
        elif isinstance(result, CallReport):
            assert agreed_us(result, 5.0) >= 0
        else:
            assert result is None or -(2**63) <= result < 2**63


@given(st.integers(0, 2**32 - 1), st.text())
def test_any_problem_of_a_worker_is_a_reason(problem, text):
    failure = explain_problem(problem, text)
    assert isinstance(failure.reason, Reason)
    assert failure.detail


# Problem files ------------------------------------------------------------------------------------

PROBLEM = '''
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kernelwright.problems import problem


@problem(scenario="llm", dtypes=("f32", "bf16"), sizes={"cpu": [dict(T=64, H=48)]},
         ranges=dict(T=(1, 300), H=(1, 300)), distributions=("normal", "outliers"),
         scalar_choices=dict(eps=(1e-6, 1e-3)), outputs=("out",), work="T*H")
def gated(x: Float[Tensor, "T H"], w: Float[Tensor, "H"], eps: float = 1e-6) -> Float[Tensor, "T H"]:
    """Each row times its mean square, gated."""
    return x * torch.sigmoid(w) * x.square().mean(-1, keepdim=True)
'''  # noqa: E501
NASTY = [
    "raise SystemExit(3)", "get_inputs = exit\ndef f(x): return x", "import sys; sys.exit()", "1/0",
    "raise BaseException('odd')", "class E(BaseException): pass\nraise E", "x = lambda: x()\nx()",
    "(" * 300, "def f(x): return x", "problem = 3", "\0", b"\xff",
    "from kernelwright.problems import problem\n@problem()\ndef f(): pass",
    "from kernelwright.problems import problem\n@problem()\ndef f(x: 'Float[Tensor, \"N\"]'): pass",
    "raise ExceptionGroup('many', [ValueError(1)])", "raise Exception('two\\nlines')",
]  # fmt: skip
WORDS = ["T", "H", "Float", "Int", '"', "'", "(", ")", "[", "]", "{", "}", ",", "=", "0", "-1", ":",
         "None", "problem", "1e400", "...", "T*H", "T+", "**", "x", "float('nan')", "\n", " ",
         "lambda", "dict", "()", "'f32'", "True", "object()", "10**30", "@", "=()",
         "\\"]  # fmt: skip


@st.composite
def mutated(draw, text):
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 12))
        put = draw(st.sampled_from(WORDS) | st.text(max_size=4))
        text = text[:at] + put + text[at + cut :]
    return text


def load(path: Path) -> None:
    """Load, and ask for what a campaign asks for first."""
    try:
        found = load_problem(parse_reference(str(path)))
        workload = found.bench_workload(None, None)
        found.check_workloads(workload.dtype, 0)
        found.heldout_workloads(workload.dtype, 0, 1)
        found.public()
        found.cost_of(workload.sizes, workload.dtype)
        found.make_inputs(workload, 0)
    except UserError as error:
        one_sentence(error)


@QUIET
@given(text=mutated(PROBLEM.partition("def gated")[0]) | mutated(PROBLEM))
def test_a_mutated_problem_file_loads_or_says_what_is_wrong(tmp_path, text):
    path = tmp_path / "gated.py"
    tail = "" if "def gated" in text else "def gated" + PROBLEM.partition("def gated")[2]
    path.write_text(text + tail, encoding="utf-8", errors="surrogatepass")
    load(path)


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_a_nasty_problem_file_says_what_is_wrong(tmp_path, text):
    path = tmp_path / "nasty.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_problem(parse_reference(str(path)))
    one_sentence(caught.value)
    assert "nasty" in str(caught.value) or "'f'" in str(caught.value)


# Kernel files -------------------------------------------------------------------------------------

LINES = st.one_of(
    st.text(max_size=60),
    st.builds("// @tune {} = {}".format, st.text(max_size=8), st.text(max_size=20)),
    st.builds("// @tune N = {}".format, st.lists(st.integers(), max_size=6).map(str)),
    st.builds("// @require {}".format, st.text(max_size=60)),
    st.builds(
        "// @require {} {} {}".format,
        st.sampled_from(["N", "T", "9" * 5000, "-N", "min(N)", "'a'", "(" * 200]),
        st.sampled_from(["<", "==", "**", "%", "//", "and", "in", "<<", "if", "=", "is not"]),
        st.sampled_from(["N", "0", "H // 0", "N % (N - N)", '"b"', "1 < 2", "not", "[1]", "None"]),
    ),
    st.sampled_from(
        ["// @tune BIG = " + "9" * 5000, '// @tune NUL = "a\0b"', "# @tune N = 1, 2",
         '// @tune L = "' + "x" * 300_000 + '"', "// @tun N = 1", "// @tune T = 1",
         "// @tune MANY = " + ", ".join(map(str, range(3000))), "// @tune CXX = icc",
         "// @tune FLAGS = -O1", '// @tune FLAGS = "-O2 \'"']
    ),
)  # fmt: skip


@QUIET
@given(st.lists(LINES, max_size=8))
def test_any_declarations_are_read_or_refused(lines):
    source = "\n".join(lines)
    try:
        parse_declarations(source)
        space = Space.of(source, {"T": 3, "H": 5}, dimensions={"T", "H"}, toolchains=["g++"])
    except CandidateError as error:
        one_sentence(error)
        return
    values = space.default()
    assert space.problem_with(values) is None


@QUIET
@given(st.binary(max_size=300), st.sampled_from([".cpp", ".py", ".cu", ".c", ".txt", ""]))
def test_any_kernel_file_is_a_family_or_refused(tmp_path, data, suffix):
    path = tmp_path / f"kernel{suffix}"
    path.write_bytes(data)
    try:
        assert own_kernel_family(path).source is not None
    except CandidateError as error:
        one_sentence(error)


GARBAGE = {
    "nul.cpp": b'// @tune A = "x\0y"\nextern "C" int kernel() { return A[0]; }',
    "long.cpp": b'// @tune A = "' + b"x" * 3_000_000 + b'"\nextern "C" int kernel() { return 0; }',
    "digits.cpp": b"// @tune A = " + b"9" * 5000 + b'\nextern "C" int kernel() { return 0; }',
    "bytes.cpp": b'extern "C" int kernel(' + bytes(range(1, 128)) * 20,
    "not_text.cpp": bytes(range(256)),
    "empty.cpp": b"",
    "deep.cpp": b'extern "C" int kernel() { return ' + b"(" * 5000 + b"; }",
    "include.cpp": b'#include "/dev/zero"\n#include __FILE__\nextern "C" int k() { return 0; }',
    "garbage.py": b"def kernel(x, w, out, *, T, H, eps):\n    " + b"\x00\x01" * 40,
    "deep.py": b"def kernel(x, w, out, *, T, H, eps):\n    " + b"(" * 5000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_through_the_judge_is_a_verdict_or_a_sentence(tmp_path, capsys, judged, name):
    path = tmp_path / name
    path.write_bytes(GARBAGE[name])
    kind, text = judged(path)
    assert kind in ("refused", "rejected"), text
    assert "Traceback" not in text


@pytest.fixture(scope="module")
def judged():
    """Builds a kernel file as `evaluate` does; what follows needs an artifact."""
    from kernelwright.campaign.optimize import open_builder
    from kernelwright.campaign.standing import bind, space_of
    from kernelwright.machine import probe
    from kernelwright.model import Rejected

    machine = probe()
    builder = open_builder(machine)
    signature = load_problem(suite.find("rms_norm")).signature

    def judge(path: Path) -> tuple[str, str]:
        try:
            family = own_kernel_family(path)
            space = space_of(family, signature, {"T": 4, "H": 4}, machine)
            built = builder.build(bind(family, space.default()))
        except UserError as error:
            one_sentence(error)
            return "refused", str(error)
        if isinstance(built, Rejected):
            return "rejected", built.diagnostic
        return "built", ""

    return judge


# Archives -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An archive in one file, without a log beside it."""
    folder = tmp_path_factory.mktemp("whole")
    with Archive.create(folder / "run", {"problem": "scaled"}) as archive:
        archive.add_machine(samples.machine())
        archive.add_family(samples.family())
        for lanes in (4, 8, 16):
            archive.add_verdict(samples.candidate(lanes), samples.measured(float(lanes)), lanes)
        archive.add_verdict(samples.candidate(2), samples.rejected())
        archive.add_event("note", text="half way")
    return folder / "run"


def read_all(folder: Path) -> None:
    """Open and read everything, twice; damage is one sentence."""
    for read_only in (True, False):
        try:
            with Archive.open(folder, read_only=read_only) as archive:
                for read in (
                    lambda a=archive: a.campaign, archive.machine, archive.families,
                    archive.candidates, archive.verdicts, archive.evidence, archive.events,
                ):  # fmt: skip
                    try:
                        read()
                    except ArchiveError as error:
                        one_sentence(error)
        except ArchiveError as error:
            one_sentence(error)


@QUIET
@given(
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=40),
    st.floats(0.02, 1),
)
@example(flips=[(0.7653658047750759, 128)], kept=1.0)  # SQLite quoted it, not in UTF-8
def test_a_damaged_archive_is_one_sentence(tmp_path, whole, flips, kept):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    path = run / "archive.db"
    data = bytearray(path.read_bytes())
    for place, value in flips:
        data[int(place * len(data))] = value
    path.write_bytes(data[: int(kept * len(data))] if kept < 0.5 else data)
    read_all(run)


@QUIET
@given(table=st.sampled_from(["verdicts", "samples", "candidates", "families", "campaign", "events",
                              "machines", "meta"]),
       value=st.one_of(st.none(), st.text(max_size=40), st.integers(-(2**63), 2**63 - 1),
                       st.binary(max_size=40), st.just("[" * 5000), st.just('{"type": "Measured"}'),
                       st.just('{"type":"Measured","version":1,"data":{"workloads":[[]]}}'),
                       st.just('{"type":[],"version":1,"data":{}}'),
                       st.just('{"type":"Rejected","version":1,"data":{"stage":{}}}')),
       number=st.integers(0, 10))  # fmt: skip
def test_any_value_in_any_column_is_one_sentence(tmp_path, whole, table, value, number):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    with closing(sqlite3.connect(run / "archive.db")) as connection:
        connection.execute(f"DROP TRIGGER {table}_no_update")
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        column = columns[number % len(columns)]
        try:
            connection.execute(f'UPDATE {table} SET "{column}" = ?', (value,))
            connection.commit()
        except sqlite3.Error:
            return
    read_all(run)


@pytest.mark.parametrize("command", ["report", "optimize"])
@pytest.mark.parametrize("what", ["empty", "text", "folder", "other", "missing", "torn", "newer"])
def test_commands_on_what_is_no_archive_end_with_exit_code_2(
    tmp_path, whole, capsys, monkeypatch, what, command
):
    run = tmp_path / "run"
    run.mkdir()
    path = run / "archive.db"
    if what == "empty":
        path.touch()
    elif what == "text":
        path.write_text("a text " * 1000)
    elif what == "folder":
        path.mkdir()
    elif what == "other":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE meta (value)")
            connection.commit()
    elif what == "torn":
        path.write_bytes((whole / "archive.db").read_bytes()[:6000])
    elif what == "newer":
        shutil.copytree(whole, run, dirs_exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TRIGGER meta_no_update")
            connection.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
            connection.commit()
    elif command == "optimize":
        pytest.skip("a folder without an archive gets one")
    words = (
        [command, str(run)] if command == "report" else ["optimize", "rms_norm", "--run", str(run)]
    )
    with pytest.raises(SystemExit) as caught:
        main(words)
    told = capsys.readouterr().err
    assert caught.value.code == 2, told
    assert told.startswith("kernelwright: ") or "\nkernelwright: " in told
    assert "Traceback" not in told
