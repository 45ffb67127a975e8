"""Reading tunables and constraints out of a kernel's source.

A declaration is a comment line of its own, `//` in C++ and CUDA, `#` in Python:

    // @tune BLOCK = 64, 128, 256
    // @tune FLAGS = "-O3 -march=native", "-O2"
    // @tune CXX = g++, clang++-19
    // @require BLOCK * UNROLL <= 1024

The first listed value is the default. Integers are ordered by size, whatever their order in the
list; everything else is a string, quoted where it is not a single word.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from kernelwright.errors import CandidateError
from kernelwright.model import TunableValue
from kernelwright.space.constraints import Constraint

RESERVED = frozenset({"CXX", "FLAGS"})
"""Tunables that the builder reads instead of binding them as macros."""

_DIRECTIVE = re.compile(r"^\s*(?://+|#+)\s*@(tun\w*|requir\w*)(.*)$")
_TUNE = re.compile(r"^\s*([A-Za-z_]\w*)\s*=(.*)$")
_VALUE = re.compile(r'\s*(?:"([^"]*)"|([^",]*?))\s*(?:,|$)')
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|\d+)$")
_LONGEST_INTEGER = 20
_LONGEST_TEXT = 1000
"""Characters; values are arguments of a compiler."""
_WORD = re.compile(r"[A-Za-z_][\w+.\-]*$")


@dataclass(frozen=True, slots=True)
class Tunable:
    """A named choice between listed values, all integers or all strings."""

    name: str
    values: tuple[TunableValue, ...]
    """As listed; the first is the default."""
    line: int = 0
    """Line of its declaration, counted from 1; 0 when it was made without a source."""

    @property
    def default(self) -> TunableValue:
        """The first listed value."""
        return self.values[0]

    @property
    def is_ordered(self) -> bool:
        """Whether the values are integers, so that some lie next to each other."""
        return isinstance(self.values[0], int)

    @property
    def ordered(self) -> tuple[TunableValue, ...]:
        """The values by size where they are integers, as listed where they are strings."""
        numbers = [value for value in self.values if isinstance(value, int)]
        return tuple(sorted(numbers)) if numbers else self.values

    def neighbours(self, value: TunableValue) -> tuple[TunableValue, ...]:
        """Integers next to `value` in the list sorted by size; every other string."""
        if not self.is_ordered:
            return tuple(other for other in self.values if other != value)
        place = self.ordered.index(value)
        return self.ordered[max(0, place - 1) : place] + self.ordered[place + 1 : place + 2]


@dataclass(frozen=True, slots=True)
class Declarations:
    """What one source declares."""

    tunables: tuple[Tunable, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tunables, in order of declaration."""
        return tuple(tunable.name for tunable in self.tunables)

    def restricted(self, allowed: Mapping[str, Collection[TunableValue]]) -> "Declarations":
        """The same with only the allowed values of some tunables, such as installed compilers.

        Names that are not declared are ignored.

        Raises:
            CandidateError: nothing is left of a tunable.
        """
        return replace(self, tunables=tuple(_restrict(t, allowed) for t in self.tunables))

    def check_names(self, dimensions: Collection[str]) -> None:
        """Hold the names used against a signature's dimensions.

        Raises:
            CandidateError: a constraint names neither a tunable nor a dimension, or a tunable
                has the name of a dimension (as a macro it would overwrite the parameter).
        """
        for tunable in self.tunables:
            if tunable.name in dimensions:
                raise _error(tunable.line, f"the tunable '{tunable.name}' is also a dimension")
        known = {*self.names, *dimensions}
        for constraint in self.constraints:
            unknown = [name for name in constraint.names if name not in known]
            if unknown:
                raise _error(
                    constraint.line,
                    f"'@require {constraint.text}' names '{unknown[0]}', which is neither a "
                    f"tunable nor a dimension (known: {', '.join(sorted(known)) or 'none'})",
                )


def parse_declarations(source: str) -> Declarations:
    """Read every `@tune` and `@require` line of a source.

    Names in constraints that are not tunables are taken for dimensions; `check_names` holds them
    against a signature.

    Raises:
        CandidateError: a line is malformed, a name or value is declared twice, a list is empty or
            mixes integers with strings, or a constraint is not a condition; says which line.
    """
    tunables: dict[str, Tunable] = {}
    conditions: list[tuple[int, str]] = []
    for number, text in enumerate(source.splitlines(), start=1):
        found = _DIRECTIVE.match(text)
        if found is None:
            continue
        keyword, rest = found.groups()
        if keyword not in ("tune", "require"):
            meant = "tune" if keyword.startswith("tun") else "require"
            raise _error(number, f"'@{keyword}' is unknown: write '@{meant}'")
        if keyword == "require":
            conditions.append((number, rest.strip()))
            continue
        tunable = _parse_tunable(rest, number)
        if tunable.name in tunables:
            first = tunables[tunable.name].line
            raise _error(number, f"the tunable '{tunable.name}' is declared already (line {first})")
        tunables[tunable.name] = tunable
    kinds = {t.name: "int" if t.is_ordered else "str" for t in tunables.values()}
    constraints = tuple(Constraint.parse(text, line, kinds) for line, text in conditions)
    return Declarations(tuple(tunables.values()), constraints)


def _parse_tunable(rest: str, line: int) -> Tunable:
    match = _TUNE.match(rest)
    if match is None:
        shown = rest.strip() or "nothing"
        raise _error(line, f"'@tune' takes NAME = VALUE, VALUE, ... and not '{shown}'")
    name, listed = match.group(1), match.group(2)
    values = tuple(_parse_values(listed, name, line))
    if len({type(value) for value in values}) > 1:
        raise _error(line, f"the tunable '{name}' mixes integers with strings")
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise _error(line, f"the tunable '{name}' lists {twice[0]!r} twice")
    if name in RESERVED and isinstance(values[0], int):
        raise _error(line, f"the values of '{name}' are strings, such as {_EXAMPLE[name]}")
    return Tunable(name, values, line)


_EXAMPLE = {"CXX": "g++, clang++", "FLAGS": '"-O3 -march=native"'}


def _parse_values(listed: str, name: str, line: int) -> list[TunableValue]:
    if not listed.strip():
        raise _error(line, f"the tunable '{name}' lists no values")
    values: list[TunableValue] = []
    position = 0
    while position < len(listed):
        match = _VALUE.match(listed, position)
        if match is None:
            rest = listed[position:].strip()
            raise _error(line, f"the values of '{name}' cannot be read from '{rest}' on")
        values.append(_parse_value(match.group(1), match.group(2), name, line))
        position = match.end()
    if listed.rstrip().endswith(","):
        raise _error(line, f"the list of '{name}' has an empty value")
    return values


def _parse_value(quoted: str | None, bare: str | None, name: str, line: int) -> TunableValue:
    if quoted is not None:
        if len(quoted) > _LONGEST_TEXT or not quoted.isprintable():
            what = f"is longer than {_LONGEST_TEXT} characters" if quoted.isprintable() else (
                "holds characters that cannot be printed"
            )  # fmt: skip
            raise _error(line, f"a value of '{name}' {what}")
        return quoted
    if not bare:
        raise _error(line, f"the list of '{name}' has an empty value")
    if _INTEGER.match(bare):
        if len(bare) > _LONGEST_INTEGER:
            raise _error(line, f"the value '{bare[:24]}...' of '{name}' does not fit 64 bits")
        return int(bare, 16 if "x" in bare.lower() else 10)
    if _WORD.match(bare):
        return bare
    raise _error(line, f"the value '{bare}' of '{name}' is neither an integer nor quoted text")


def _restrict(tunable: Tunable, allowed: Mapping[str, Collection[TunableValue]]) -> Tunable:
    if tunable.name not in allowed:
        return tunable
    left = tuple(value for value in tunable.values if value in allowed[tunable.name])
    if not left:
        listed = ", ".join(str(value) for value in tunable.values)
        here = ", ".join(sorted(str(value) for value in allowed[tunable.name])) or "none"
        raise _error(
            tunable.line,
            f"no value of '{tunable.name}' can be used here: declared {listed}; available {here}",
        )
    return replace(tunable, values=left)


def _error(line: int, message: str) -> CandidateError:
    return CandidateError(f"line {line}: {message}" if line else message)
