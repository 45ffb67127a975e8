"""Near-copies: the same kernel under other names, comments, layout or constants."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from kernelwright.model import content_hash

if TYPE_CHECKING:
    from pygments.lexer import Lexer

_DIRECTIVE = re.compile(r"^\s*(?://+|#+)\s*@(?:tune|require)\b.*$", re.MULTILINE)
_FROM_OUTSIDE = re.compile(r"_mm\w*|_tile\w*|__\w+|omp_\w+|std|cuda\w*|torch|to_float|from_float")


@lru_cache(maxsize=512)
def shape_of(source: str, language: str, constants: bool = False) -> str:
    """Hash of a source's tokens: own names by order of appearance, no comments, no layout.

    Args:
        source: a kernel.
        language: decides how it is read.
        constants: whether numbers, strings and the declared tunables count; without them, two
            sources that differ in constants alone are one family with an undeclared tunable.
    """
    from pygments.token import Comment, Name, Number, String, Text

    names: dict[str, str] = {}
    parts: list[str] = []
    for kind, text in _lexer(language).get_tokens(source):
        if kind in Comment and kind not in Comment.Preproc:
            continue
        if kind in Text or not text.strip():
            continue
        if kind in Name and not _FROM_OUTSIDE.fullmatch(text):
            parts.append(names.setdefault(text, f"n{len(names)}"))
        elif kind in Number or kind in String:
            parts.append(text if constants else "0")
        else:
            parts += text.split()
    if constants:
        parts += [" ".join(line.split()) for line in _DIRECTIVE.findall(source)]
    return content_hash(*parts)


def copied(source: str, language: str, measured: dict[str, str], others: dict[str, str]) -> str:
    """The name of what a source copies; empty when it is new.

    Args:
        source: a new kernel.
        language: of it.
        measured: sources that are right, by name: other constants do not make a new kernel.
        others: sources that were rejected or not judged yet, by name: a constant may mend them.
    """
    for name, other in measured.items():
        if shape_of(source, language) == shape_of(other, language):
            return name
    for name, other in others.items():
        if shape_of(source, language, True) == shape_of(other, language, True):
            return name
    return ""


def _lexer(language: str) -> "Lexer":
    import pygments.lexers as lexers

    named: Callable[[str], Lexer] = lexers.get_lexer_by_name  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return named({"cuda": "cuda", "python": "python"}.get(language, "cpp"))
