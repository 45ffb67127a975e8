"""Puts sources together: declarations of tunables, includes, blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernelwright.model import FrozenMap, Machine, TunableValue

INCLUDES = """\
#include "kernelwright.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include <omp.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif"""

Values = Mapping[str, TunableValue]


@dataclass(frozen=True)
class Tunables:
    """Tunables in order of declaration, default first; constraints; departures worth a try."""

    choices: Mapping[str, tuple[TunableValue, ...]]
    constraints: tuple[str, ...] = ()
    departures: tuple[Values, ...] = ()

    def declarations(self) -> str:
        """The comment lines that declare them."""
        lines = [f"// @tune {n} = {', '.join(map(_literal, v))}" for n, v in self.choices.items()]
        return "\n".join([*lines, *(f"// @require {c}" for c in self.constraints)])

    def defaults(self) -> tuple[FrozenMap[str, TunableValue], ...]:
        """The declared defaults, then each departure from them that the choices allow."""
        first = {name: values[0] for name, values in self.choices.items()}
        found = [first]
        for departure in self.departures:
            known = {n: v for n, v in departure.items() if v in self.choices.get(n, ())}
            if len(known) == len(departure):
                found.append({**first, **known})
        return tuple(dict.fromkeys(FrozenMap(values) for values in found))


def _literal(value: TunableValue) -> str:
    text = str(value)
    return f'"{text}"' if " " in text or (text.startswith("-") and isinstance(value, str)) else text


def toolchain_choices(machine: Machine) -> dict[str, tuple[TunableValue, ...]]:
    """The reserved tunables: compilers of this machine (g++ first) and flags."""
    names = sorted((t.name for t in machine.toolchains), key=lambda n: ("clang" in n, n))
    wide = " -mprefer-vector-width=512" if machine.vector_bits == 512 else ""
    choices: dict[str, tuple[TunableValue, ...]] = {"FLAGS": (f"-O3 -march=native{wide}",)}
    return {"CXX": tuple(names), **choices} if names else choices


def lane_choices(machine: Machine) -> tuple[int, ...]:
    """Vector widths in floats: the native one, then narrower ones."""
    native = max(4, machine.vector_bits // 32)
    return tuple(n for n in (native, native // 2) if n >= 4)


@cache
def block_file(path: Path) -> str:
    """A block that is pasted as a whole, with its own namespace."""
    return path.read_text().strip("\n")


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    """Lines one or more levels deeper; preprocessor lines stay in the first column."""
    return [line if line.startswith("#") or not line else "    " * depth + line for line in lines]


def name_locals(lines: Iterable[str], fresh: Callable[[str], str]) -> list[str]:
    """Lines with each `$name` replaced by a name that nothing else in the kernel has."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        if found[1] not in names:
            names[found[1]] = fresh(found[1])
        return names[found[1]]

    return [re.sub(r"\$(\w+)", name, line) for line in lines]
