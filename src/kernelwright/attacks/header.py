"""The header of a submission: the comment lines at the top of its file.

```
// rows: R3 T10
// workload: matrix_mul f32 M=256,K=512,N=256
// does: One sentence, which may go on
//   in indented lines.
// expect: accept wrong_result | screen wrong_result
```

`expect` holds endings as `stage reason`, `no gain` (it may be measured, but not as faster than
the control of the same workload), or `pass` alone. Optional are `isolation: sandbox` (not caught
without bubblewrap) and `gap:` (why it is not caught today).
"""

import re
from pathlib import Path

from kernelwright.attacks.rows import ROWS
from kernelwright.attacks.submission import CONTROL, Ending, Submission, SubmissionLanguage
from kernelwright.errors import CandidateError
from kernelwright.model import Dtype, FrozenMap, Reason, Stage

_LANGUAGES: dict[str, SubmissionLanguage] = {".cpp": "cpp", ".py": "python", ".cu": "cuda"}
_FIELD = re.compile(r"(rows|workload|does|expect|isolation|gap): (.*)")
_NEEDED = ("rows", "workload", "does", "expect")


def read_submission(path: Path) -> Submission:
    """Read what a submission declares.

    Raises:
        CandidateError: the header lacks something or holds what nobody knows.
    """
    fields = _fields(path)
    for name in _NEEDED:
        if name not in fields:
            raise _wrong(path, f"its header has no '{name}:'")
    rows = tuple(fields["rows"].split())
    unknown = [row for row in rows if row not in ROWS and row != CONTROL]
    if unknown or not rows:
        raise _wrong(path, f"there is no row '{' '.join(unknown)}'")
    problem, dtype, sizes = _workload(path, fields["workload"])
    words = [part.strip() for part in fields["expect"].split("|")]
    endings = tuple(_ending(path, w) for w in words if w not in ("pass", "no gain"))
    if (words == ["pass"]) != (CONTROL in rows):
        raise _wrong(path, "a control expects 'pass', and nothing else does")
    isolation = fields.get("isolation")
    if isolation not in (None, "sandbox"):
        raise _wrong(path, f"there is no isolation '{isolation}'")
    return Submission(
        path.stem, path, _LANGUAGES[path.suffix], rows, problem, dtype, sizes, fields["does"],
        endings, "no gain" in words, "sandbox" if isolation else None, fields.get("gap", ""),
    )  # fmt: skip


def _fields(path: Path) -> dict[str, str]:
    mark = "#" if path.suffix == ".py" else "//"
    fields: dict[str, str] = {}
    last = ""
    for line in path.read_text().splitlines():
        if not line.startswith(mark):
            break
        text = line.removeprefix(mark)
        found = _FIELD.fullmatch(text.strip())
        if found:
            last = found[1]
            fields[last] = found[2].strip()
        elif last and text.startswith("   "):
            fields[last] += " " + text.strip()
        else:
            break
    return fields


def _workload(path: Path, text: str) -> tuple[str, Dtype, FrozenMap[str, int]]:
    try:
        problem, dtype, sizes = text.split()
        pairs = [part.split("=") for part in sizes.split(",")]
        return problem, Dtype(dtype), FrozenMap({name: int(value) for name, value in pairs})
    except ValueError:
        raise _wrong(path, "'workload:' is not 'PROBLEM DTYPE A=1,B=2'") from None


def _ending(path: Path, text: str) -> Ending:
    stage, _, reason = text.partition(" ")
    try:
        return Ending(Stage(stage), Reason(reason))
    except ValueError:
        raise _wrong(path, f"'expect:' holds '{text}', which is no stage and reason") from None


def _wrong(path: Path, what: str) -> CandidateError:
    return CandidateError(f"the submission '{path}' cannot be read: {what}")
