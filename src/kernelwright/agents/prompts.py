"""Prompts from versioned template files, kept short, with everybody else's text fenced as data."""

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kernelwright.llm import tokens_of

MOST_TOKENS = 12_000
"""Of one prompt, estimated from above."""
_KEPT_FREE = 300
"""Tokens for the complaint about a malformed reply."""
_VERSION = re.compile(r"\{# version (\d+) #\}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
ROLES = ("planner", "coder", "repairer", "critic", "librarian", "author")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt's two texts, and the version of the file that they come from."""

    system: str
    user: str
    version: int

    @property
    def tokens(self) -> int:
        """An estimate from above."""
        return tokens_of(self.system) + tokens_of(self.user)


def render(role: str, **context: Any) -> Rendered:
    """The prompt of a role.

    Long data are clipped further until the whole is short enough.

    Raises:
        ValueError: even clipped hard it is longer than `MOST_TOKENS`.
    """
    template = _environment().get_template(f"{role}.md.jinja")
    for share in (1.0, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.05):
        rendered = Rendered(
            _block(template, "system", context, share),
            _block(template, "user", context, share),
            version_of(role),
        )
        if rendered.tokens <= MOST_TOKENS - _KEPT_FREE:
            return rendered
    raise ValueError(f"the prompt of the {role} cannot be made shorter than {rendered.tokens}")


def _block(template: Template, name: str, context: dict[str, Any], share: float) -> str:
    parts = template.blocks[name](template.new_context({**context, "share": share}))
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).strip() + "\n"


@lru_cache(maxsize=8)
def version_of(role: str) -> int:
    """The version that a role's file states in its first line; raised when its text changes."""
    text = (files("kernelwright.agents") / "prompts" / f"{role}.md.jinja").read_text()
    found = _VERSION.match(text)
    assert found is not None, f"the prompt of the {role} states no version"
    return int(found[1])


def fenced(text: str, tag: str = "data") -> str:
    """A text inside a fence that nothing in it can close."""
    clean = _CONTROL.sub("", text).rstrip("\n")
    longest = max((len(run) for run in re.findall(r"~+", clean)), default=0)
    fence = "~" * max(4, longest + 1)
    return f"{fence}{tag}\n{clean}\n{fence}"


def clipped(text: str, most: int, share: float = 1.0) -> str:
    """At most so many characters (times `share`): the beginning, the end, and what is missing."""
    room = int(most * share)
    if len(text) <= room:
        return text
    head, tail = int(room * 0.65), int(room * 0.3)
    left_out = len(text) - head - tail
    return f"{text[:head]}\n[... {left_out} characters left out ...]\n{text[-tail:]}"


def one_line(text: str, most: int = 200) -> str:
    """A text as one line without backticks, for tables and lists."""
    line = " ".join(_CONTROL.sub(" ", text).split()).replace("`", "'").replace("~", "-")
    return line if len(line) <= most else line[: most - 3] + "..."


def microseconds(value: float | None) -> str:
    """Four significant digits."""
    return "?" if value is None else f"{value:.4g} us"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # plain text for a model: HTML escapes would corrupt code, fences do the separating
    environment = Environment(
        loader=PackageLoader("kernelwright.agents", "prompts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    filters = {"fenced": fenced, "clipped": clipped, "one_line": one_line, "us": microseconds}
    environment.filters.update(filters)  # pyright: ignore[reportUnknownMemberType]
    return environment
