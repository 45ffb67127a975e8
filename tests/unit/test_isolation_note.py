"""Every result says how hostile code was confined, and what that does not withstand."""

from dataclasses import replace

import pytest

from kernelwright.campaign.result import machine_document
from kernelwright.cli.output import print_isolation, print_trust
from kernelwright.sandbox import isolation_note
from kernelwright.testing import samples


@pytest.mark.parametrize("level", ["sandbox", "process"])
def test_terminal_and_json_say_it(level, capsys):
    machine = replace(samples.machine(), isolation=level)
    facts = machine_document(machine)
    assert facts["isolation"] == level
    assert ("can read what this user can" in facts["isolation_note"]) == (level == "process")
    for show in (print_isolation, print_trust):
        show({"machine_facts": facts})
        printed = capsys.readouterr().out
        assert f"isolation {level}" in printed.replace("`", "")
        assert ("fork bomb" in printed) == (level == "process")


def test_the_sentence_is_one():
    assert isolation_note("sandbox") == ""
    assert isolation_note("process").count(".") == 0
