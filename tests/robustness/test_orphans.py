"""Whatever a killed judge had just started ends with it, and its memory is given back."""

import subprocess
import sys
from pathlib import Path

import pytest
from kills import shared_memory

KINDS = [("compiler", 40), ("worker", 25), ("frozen", 3), ("server", 8), ("forked", 2)]


@pytest.mark.parametrize(("kind", "tries"), KINDS)
def test_nothing_outlives_its_starter(tmp_path, kind, tries):
    """Without `sandbox.Tie` a compiler lives on, with its sandbox, after a third of the tries."""
    script, shared = Path(__file__).with_name("orphans.py"), shared_memory()
    command = [sys.executable, str(script), kind, str(tries), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert shared_memory() <= shared
