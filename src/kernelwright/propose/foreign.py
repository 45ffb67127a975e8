"""Existing kernels with a signature of their own: what is said about them, and what they define.

Everything is said by lines in the source, or by flags that become such lines:

    // @entry launch
    // @argument in = x                  their parameter `in` gets our tensor `x`
    // @argument rows = T                … a dimension, a scalar, or an expression of them
    // @argument scratch = workspace     … memory, of which `@workspace` says how many bytes
    // @workspace 4 * T * H
    // @grid (T * H + block - 1) / block  of a `__global__` function: blocks, and threads of a block
    // @block 256
    // @shared 4 * block                  … bytes of dynamic shared memory
    // @tune BLOCK = 64, 128, 256         a constant of the file

`foreign_call.wrapped` makes of that a kernel under the ABI.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kernelwright.errors import CandidateError
from kernelwright.model import Family
from kernelwright.space import parse_declarations

_SAID = re.compile(
    r"^[ \t]*//+[ \t]*@(entry|workspace|grid|block|shared)[ \t]+(.*?)[ \t]*$", re.MULTILINE
)
_ARGUMENT = re.compile(
    r"^[ \t]*//+[ \t]*@argument[ \t]+(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#(?:.*\\\n)*.*$", re.MULTILINE)
_BOUNDS = re.compile(r"__launch_bounds__\s*\([^()]*\)")
_SPECIFIERS = re.compile(
    r'extern\s+"C"|\b(?:extern|static|inline|__global__|__host__|__forceinline__|__noinline__)\b'
)
_PARAMETER = re.compile(
    r"^(?P<type>.*?[\s*&])(?P<name>[A-Za-z_]\w*)\s*(?:=\s*(?P<default>.+))?$", re.DOTALL
)
_CONSTANT = re.compile(
    r"^(?:[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)[ \t]+(\d+)[uU]?"
    r"|(?:static[ \t]+)?const(?:expr)?[ \t]+int[ \t]+([A-Za-z_]\w*)[ \t]*=[ \t]*(\d+)[ \t]*;)"
    r"[ \t]*(?://.*|/\*.*\*/[ \t]*)?$"
)
LAUNCH_BLOCK = "LAUNCH_BLOCK"
"""The tunable of a `__global__` function's block, where that is a number."""
_MOST, _FEWEST = 1024, 2
"""Between these a power of two is taken for a choice."""


@dataclass(frozen=True, slots=True)
class ForeignCall:
    """What is said about a function with a signature of its own."""

    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    """Their parameter to ours, or to an expression."""
    tune: Mapping[str, str] | None = None
    """Name of a constant to its values; None: every power of two is a choice."""
    workspace: str | None = None
    """Bytes that the function needs, an expression."""
    grid: str | None = None
    """Blocks of a `__global__` function: up to three expressions."""
    block: str | None = None
    """Threads of a block, likewise; `block` in what follows is the first."""
    shared: str | None = None
    """Bytes of dynamic shared memory of a block, an expression."""

    def lines(self) -> list[str]:
        """The same as lines of a source, but for `tune`."""
        found = [f"// @argument {theirs} = {ours}" for theirs, ours in self.arguments.items()]
        for name in ("workspace", "grid", "block", "shared"):
            value = getattr(self, name)
            found += [f"// @{name} {value}"] if value is not None else []
        return found


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an existing function."""

    type: str
    """As it is written, without its name."""
    name: str
    default: str | None

    @property
    def is_pointer(self) -> bool:
        """Whether it takes an address."""
        return "*" in self.type


@dataclass(frozen=True, slots=True)
class Function:
    """An existing function, found in a source."""

    name: str
    result: str
    parameters: tuple[Parameter, ...]
    is_kernel: bool
    """Whether it is `__global__`, to be launched and not called."""

    @property
    def is_under_abi(self) -> bool:
        """Whether it ends as every kernel under the ABI does."""
        last = self.parameters[-4:]
        pointers = [p.is_pointer for p in last]
        voids = all("void" in last[i].type for i in (0, 1, 3)) if len(last) == 4 else False
        return not self.is_kernel and pointers == [True, True, False, True] and voids


def find_function(source: str, name: str) -> Function:
    """The definition of a function.

    Raises:
        CandidateError: it is not there, is a template, or its parameters cannot be read.
    """
    text = _DIRECTIVE.sub(";", _COMMENT.sub(" ", source))
    found = re.search(rf"\b{re.escape(name)}\s*\((?P<list>[^()]*)\)\s*\{{", text)
    if found is None:
        raise CandidateError(f"there is no definition of a function '{name}' in the file")
    head = re.split(r"[;{}]", text[: found.start()])[-1]
    if re.search(r"\btemplate\b", head):
        raise CandidateError(f"'{name}' is a template: name a function that calls or launches it")
    listed = found["list"].strip()
    parts = [part.strip() for part in listed.split(",")] if listed not in ("", "void") else []
    parameters: list[Parameter] = []
    for part in parts:
        match = _PARAMETER.match(part)
        if match is None:
            raise CandidateError(f"the parameter '{part}' of {name} cannot be read: give it a name")
        parameters.append(Parameter(match["type"].strip(), match["name"], match["default"]))
    result = " ".join(_SPECIFIERS.sub(" ", _BOUNDS.sub(" ", head)).split())
    return Function(name, result, tuple(parameters), "__global__" in head)


def said_in(source: str) -> tuple[str | None, ForeignCall]:
    """The entry and the description of its call that a source holds.

    Raises:
        CandidateError: something is said twice.
    """
    said: dict[str, str] = {}
    for name, value in _SAID.findall(source):
        if name in said:
            raise CandidateError(f"'@{name}' is said twice in the file")
        said[name] = value
    arguments: dict[str, str] = {}
    for theirs, ours in _ARGUMENT.findall(source):
        if theirs in arguments:
            raise CandidateError(f"'@argument {theirs}' is said twice in the file or by a flag")
        arguments[theirs] = ours
    get = said.get
    call = ForeignCall(
        arguments, None, get("workspace"), get("grid"), get("block"), get("shared")
    )  # fmt: skip
    return get("entry"), call


def is_foreign(family: Family) -> bool:
    """Whether a family's entry has a signature of its own.

    Raises:
        CandidateError: its definition cannot be read although arguments are declared.
    """
    if family.language not in ("cuda", "cpp") or family.lineage.proposer != "own":
        return False
    try:
        return not find_function(family.source, family.entry).is_under_abi
    except CandidateError:
        if _ARGUMENT.search(family.source):
            raise
        return False


def declared(source: str, call: ForeignCall) -> str:
    """The source with what flags say, and the constants that are choices, as lines at its end.

    Raises:
        CandidateError: a constant is to be tuned that the file does not have.
    """
    lines = call.lines()
    numbers = constants(source)
    block = call.block or said_in(source)[1].block
    if block is not None and block.isdecimal():
        numbers[LAUNCH_BLOCK] = int(block)
    if call.tune is not None:
        unknown = [name for name in call.tune if name not in numbers]
        if unknown:
            raise CandidateError(
                f"there is no '#define {unknown[0]} NUMBER' to tune; there is: "
                f"{', '.join(numbers) or 'none'}"
            )
        choices = dict(call.tune)
    elif parse_declarations(source).tunables:
        choices = {}
    else:
        choices = {
            name: _around(value) for name, value in numbers.items() if _is_choice(name, value)
        }
    lines += [f"// @tune {name} = {values}" for name, values in choices.items()]
    return "\n".join([source.rstrip("\n"), *lines]) + "\n" if lines else source


def constants(source: str) -> dict[str, int]:
    """Every integer that is `#define`d, or is a constant of the file, once."""
    matches = [m for line in source.splitlines() if (m := _CONSTANT.match(line))]
    names = [m[1] or m[3] for m in matches]
    return {
        name: int(m[2] or m[4])
        for name, m in zip(names, matches, strict=True)
        if names.count(name) == 1
    }


def with_defaults(source: str, names: set[str]) -> str:
    """The text with these constants as defaults; lines keep their numbers for the compiler.

    A macro from outside takes the constant's place, because its definition is left out then.
    """
    lines: list[str] = []
    before = ""
    for number, line in enumerate(source.splitlines(), start=1):
        match = _CONSTANT.match(line)
        name = (match[1] or match[3]) if match is not None else None
        if name in names and not re.match(rf"\s*#\s*ifndef\s+{name}\b", before):
            lines += [f"#ifndef {name}", line, "#endif", f"#line {number + 1}"]
        else:
            lines.append(line)
        before = line
    return "\n".join(lines) + "\n"


def _is_choice(name: str, value: int) -> bool:
    """Whether other values are worth a try; the width of a warp is not a choice."""
    power = _FEWEST <= value <= _MOST and value & (value - 1) == 0
    return power and not (value == 32 and "warp" in name.lower())


def _around(value: int) -> str:
    near = [n for n in (value, value // 2, 2 * value) if 1 <= n <= _MOST]
    return ", ".join(map(str, near))
