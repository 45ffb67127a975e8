"""Code in the documents is executed, and their links lead somewhere.

Fenced `python` blocks of one document run in order in one namespace, unless they say `no-run`.
`<!-- file: NAME -->` before a block writes it to a file, `<!-- run -->` before a `console` block
runs its `$` lines; both in a folder of the document's own.
"""

import ast
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)(?P<more>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    language: str
    mark: str
    runs: bool
    text: str


def blocks(document):
    for found in BLOCK.finditer(document.read_text()):
        runs = "no-run" not in found["more"]
        yield Block(found["language"], found["mark"] or "", runs, found["text"])


def name(document):
    return str(document.relative_to(ROOT))


def with_blocks(language):
    return [d for d in DOCUMENTS if any(b.language == language and b.runs for b in blocks(d))]


@pytest.mark.parametrize("document", with_blocks("python"), ids=name)
def test_python_blocks_run(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {"__name__": "__document__"}
    for block in blocks(document):
        if block.language == "python" and block.runs:
            if block.mark.startswith("file: "):
                (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text)
            exec(compile(block.text, name(document), "exec"), scope)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_python_blocks_that_do_not_run_are_python(document):
    for block in blocks(document):
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize("document", with_blocks("console"), ids=name)
def test_marked_console_lines_run(document, tmp_path):
    for block in blocks(document):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text)
        if block.language == "console" and block.mark == "run":
            for line in block.text.splitlines():
                command = shlex.split(line.removeprefix("$ "))
                assert command[0] == "kernelwright"
                code = "from kernelwright.cli import main; main()"
                subprocess.run(
                    [sys.executable, "-c", code, *command[1:]],
                    cwd=tmp_path, check=True, timeout=240, stdout=subprocess.DEVNULL,
                )  # fmt: skip


def test_commands_in_documents_exist():
    listing = subprocess.run(
        [sys.executable, "-c", "from kernelwright.cli import main; main()", "--help"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    known = set(re.findall(r"^  (\w[\w-]*)  ", listing, re.MULTILINE))
    used = {
        line.split()[2]
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "console"
        for line in block.text.splitlines()
        if line.startswith("$ kernelwright ")
    }
    assert "optimize" in used
    assert used <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (document.parent / target).exists(), target
