"""The winning source with its tunables bound, so that it compiles without our builder."""

import re
import shlex
from collections.abc import Mapping, Sequence

from kernelwright.model import Candidate, TunableValue

_TUNE_LINE = re.compile(
    r"^(?P<head>\s*(?://+|#+)\s*@tune\s+(?P<name>[A-Za-z_]\w*)\s*=)(?P<rest>.*)$"
)
_VALUE = re.compile(r'\s*("[^"]*"|[^",]+?)\s*(?:,|$)')
RESERVED = ("CXX", "FLAGS")
"""Tunables that say how to compile; they are part of the command, not macros."""


def bound_source(candidate: Candidate, notes: Sequence[str], command: Sequence[str]) -> str:
    """Source text of `best.cpp`.

    A header states where the kernel comes from and the command that builds it, and defines each
    tunable unless the command line does. The chosen values become the declared defaults, so that
    the file can be judged or tuned again as it stands.

    Args:
        candidate: the winner.
        notes: sentences for the header.
        command: the complete compile command, as words.
    """
    macros = {k: v for k, v in candidate.tunables.items() if k not in RESERVED}
    lines = [f"// {note}" for note in notes]
    lines += ["//", f"// Build: {shlex.join(command)}", ""]
    for name, value in macros.items():
        lines += [f"#ifndef {name}", f"#define {name} {value}", "#endif"]
    if macros:
        lines.append("")
    return "\n".join(lines) + with_defaults(candidate.source, candidate.tunables)


def bound_python_source(candidate: Candidate, notes: Sequence[str]) -> str:
    """Source text of `best_kernel.py`: callable without the tunables, which stay declared.

    Args:
        candidate: the winner.
        notes: sentences for the header.
    """
    text = "".join(f"# {note}\n" for note in notes)
    text += with_defaults(candidate.source, candidate.tunables).rstrip("\n") + "\n"
    if candidate.tunables:
        values = ", ".join(f"{name}={value!r}" for name, value in candidate.tunables.items())
        entry = candidate.entry
        text += f"\n\nimport functools\n\n{entry} = functools.partial({entry}, {values})\n"
    return text


def with_defaults(source: str, values: Mapping[str, TunableValue]) -> str:
    """The source with the given values first in their `@tune` lists."""

    def chosen_first(line: str) -> str:
        match = _TUNE_LINE.match(line)
        if match is None or match["name"] not in values:
            return line
        wanted = str(values[match["name"]])
        listed = [m[1].strip() for m in _VALUE.finditer(match["rest"]) if m[1].strip()]
        first = [text for text in listed if _same(text, wanted)]
        others = [text for text in listed if not _same(text, wanted)]
        return f"{match['head']} {', '.join([*first, *others])}" if first else line

    ended = "\n" if source.endswith("\n") else ""
    return "\n".join(chosen_first(line) for line in source.splitlines()) + ended


def _same(listed: str, wanted: str) -> bool:
    text = listed.strip('"')
    if text == wanted:
        return True
    try:
        return int(text, 0) == int(wanted, 0)
    except ValueError:
        return False
