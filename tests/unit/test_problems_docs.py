"""The page on writing problems is executed as one program."""

import importlib.util
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "writing-a-problem.md"


def test_every_snippet_runs_in_order(tmp_path, capsys):
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(snippets) >= 8
    program = tmp_path / "page.py"
    program.write_text("\n\n".join(snippets))
    spec = importlib.util.spec_from_file_location("page", program)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    said = capsys.readouterr().out
    assert "q.shape[1] and k.shape[1] are one size, D1: the function needs them equal" in said
