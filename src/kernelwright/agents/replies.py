"""Typed replies, and how they are read out of a text that a model wrote.

A reply is one JSON object in a fenced block; a kernel stands in a fenced block of its own after it.
Code inside of JSON strings is avoided: models escape it wrongly.
"""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[\w .:+-]{1,60}$")]
Sentence = Annotated[str, StringConstraints(strip_whitespace=True, max_length=1200)]
Speedup = Annotated[float, Field(gt=0, le=1000)]

_FENCE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[ \t]*(?P<tag>[\w+-]*)[^\n]*\n(?P<text>.*?)^(?P=fence)[`~]*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_LONGEST = 200_000


class Malformed(Exception):
    """A reply cannot be used; the message tells whoever wrote it why."""


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Design(_Reply):
    """A family of kernels that might be written."""

    name: Name
    idea: Sentence
    parent: str = ""
    """Name of the measured family that it starts from; empty: from scratch."""
    expected_speedup: Speedup
    """Over the best kernel so far."""
    difficulty: Annotated[int, Field(ge=1, le=5)] = 3
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.5


class Plan(_Reply):
    """The planner's reply."""

    limiter: Sentence
    """What keeps the best kernel from the bound."""
    designs: Annotated[tuple[Design, ...], Field(min_length=1, max_length=8)]
    next: Name
    """Name of the design to write first."""
    reason: Sentence


class Kernel(_Reply):
    """The coder's and the repairer's reply."""

    name: Name
    idea: Sentence
    expected_speedup: Speedup = 1.0
    source: str = ""
    """The whole file; from the fenced block, or made from the patch."""


class Critique(_Reply):
    """The critic's reply."""

    explanation: Sentence
    limiter: Sentence
    promising: bool
    """Whether to go on from this kernel rather than from the best one."""
    next_move: Sentence
    expected_speedup: Speedup = 1.0


class Draft(_Reply):
    """The author's reply: a problem file."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,50}$")]
    """Of the function, and of the file."""
    summary: Sentence
    assumptions: Annotated[tuple[Sentence, ...], Field(max_length=12)] = ()
    """What was left open, and how it was decided."""
    source: str = ""
    """The whole file, from the fenced block."""


class Selection(_Reply):
    """The librarian's reply."""

    chosen: Annotated[tuple[str, ...], Field(max_length=4)]
    reason: Sentence


R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    tag: str
    text: str


def blocks_of(text: str) -> list[Block]:
    """Every fenced block, in order.

    Raises:
        Malformed: the text is absurdly long.
    """
    if len(text) > _LONGEST:
        raise Malformed(f"the reply is longer than {_LONGEST} characters")
    return [Block(m["tag"].lower(), m["text"]) for m in _FENCE.finditer(text)]


def parse(text: str, kind: type[R], *, code: bool = False, parent: str = "") -> R:
    """Read a reply.

    Args:
        text: what the model wrote.
        kind: what its JSON object must be.
        code: whether a kernel must follow.
        parent: the source that a patch is for.

    Raises:
        Malformed: it is not that; says what to mend.
    """
    blocks = blocks_of(text)
    record = _record(text, blocks)
    if code:
        record["source"] = _source(blocks, parent)
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Malformed(f"the field '{where}' of the JSON object: {first['msg']}") from None


def _record(text: str, blocks: list[Block]) -> dict[str, Any]:
    candidates = [b.text for b in blocks if b.tag == "json"] or [
        b.text for b in blocks if b.text.lstrip().startswith("{")
    ]
    if not candidates and text.strip().startswith("{"):
        candidates = [text]
    if not candidates:
        raise Malformed("there is no fenced block with a JSON object")
    try:
        found = json.loads(candidates[0])
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the JSON object cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("the JSON block does not hold an object")
    return {str(key): value for key, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _source(blocks: list[Block], parent: str) -> str:
    patches = [b.text for b in blocks if b.tag in ("patch", "diff") or _SEARCH in b.text]
    if patches:
        return apply_patch(parent, "\n".join(patches))
    sources = [b.text for b in blocks if b.tag != "json" and not b.text.lstrip().startswith("{")]
    if not sources:
        raise Malformed("there is no fenced block with code after the JSON object")
    if len(sources) > 1:
        raise Malformed("there are several fenced blocks with code: give the whole file in one")
    return sources[0]


_SEARCH = "<<<<<<< SEARCH"
_EDIT = re.compile(
    r"^<{7} SEARCH *\n(?P<before>.*?)^={7} *\n(?P<after>.*?)^>{7} REPLACE *$",
    re.MULTILINE | re.DOTALL,
)


def apply_patch(parent: str, patch: str) -> str:
    """The parent with every edit made.

    Raises:
        Malformed: there is no edit, or the text to be replaced is not there exactly once.
    """
    edits = list(_EDIT.finditer(patch))
    if not parent or not edits:
        raise Malformed("the patch has no SEARCH/REPLACE edit: give the whole file instead")
    for edit in edits:
        before, after = edit["before"], edit["after"]
        count = parent.count(before) if before.strip() else 0
        if count != 1:
            shown = before.strip().splitlines()[0][:80] if before.strip() else "nothing"
            raise Malformed(f"the text to be replaced, from '{shown}', occurs {count} times")
        parent = parent.replace(before, after)
    return parent
