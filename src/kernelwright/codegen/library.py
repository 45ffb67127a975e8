"""The building blocks that generated kernels are put together from.

Each file under `blocks/` is a sequence of blocks, opened by a line `//@ name: needed, needed`.
A kernel contains the blocks it uses and those that they need, in the order of the files.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "blocks"
_FILES = {
    "simd": ("parallel.hpp", "vector.hpp", "reduce.hpp", "math.hpp"),
    "simt": ("simt.cu", "groups.cu"),
}
_HEADER = re.compile(r"^//@ (\w+)(?:: ([\w, ]+))?$")


@cache
def _blocks(space: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """Name to needed blocks and text."""
    found: dict[str, tuple[tuple[str, ...], str]] = {}
    for file in _FILES[space]:
        name, needs, lines = "", (), list[str]()
        for line in [*(_FOLDER / file).read_text().splitlines(), "//@ end"]:
            header = _HEADER.match(line)
            if header is None:
                lines.append(line)
                continue
            if name:
                found[name] = (needs, "\n".join(lines).strip("\n"))
            name, lines = header[1], []
            needs = tuple(part.strip() for part in (header[2] or "").split(",") if part.strip())
    return found


def paste(names: Iterable[str], space: str = "simd") -> str:
    """The text of these blocks and of what they need, inside their namespace."""
    blocks = _blocks(space)
    wanted: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in wanted:
            wanted.add(name)
            stack.extend(blocks[name][0])
    texts = [text for name, (_, text) in blocks.items() if name in wanted]
    return f"namespace {space} {{\n\n" + "\n\n".join(texts) + f"\n\n}}  // namespace {space}"
