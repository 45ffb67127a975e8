"""What stands in a built kernel: instructions by kind, from `cuobjdump` and from `objdump`.

Counts are of the code, not of what is executed; where there are loops, those in the innermost ones
stand beside them under names that begin with `loop `. A loop is what lies between a jump backwards
and its target.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from kernelwright.model import FrozenMap

Kinds = Callable[["Instruction"], Iterator[str]]

_FUNCTION = re.compile(r"^\s*Function : (\S+)", re.MULTILINE)
_SASS = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
_X86_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$", re.MULTILINE)
_X86 = re.compile(r"^\s*([0-9a-f]+):\s+(?:(?:lock|rep\w*|bnd|data16|notrack)\s+)*(\S+)[ \t]*(.*)$")
_REGISTER = re.compile(r"\bR(\d+)")
_ADDRESS = re.compile(r"\[R(\d+)\.64")
"""The first register of an address; the second is not written out."""
_STARTUP = re.compile(
    r"_init|_fini|_start|.*@plt.*|(de)?register_tm_clones|frame_dummy|__do_global_dtors_aux"
)
_ARITHMETIC = re.compile(r"(add|sub|mul|div|sqrt|max|min|fn?m(add|sub)|dpbf16)\w*?[ps][sd]$")
_MATRIX = ("HMMA", "IMMA", "DMMA", "BMMA", "HGMMA", "IGMMA", "QGMMA", "BGMMA", "OMMA", "QMMA",
           "UTCHMMA", "UTCQMMA", "UTCIMMA", "UTCOMMA")  # fmt: skip
_FLOATS = ("FADD", "FMUL", "FFMA", "FMNMX", "FSETP", "FSEL", "HADD2", "HMUL2", "HFMA2", "DADD",
           "DMUL", "DFMA")  # fmt: skip
_INTEGERS = ("IMAD", "IADD3", "LEA", "SHF", "LOP3", "ISETP", "IMNMX", "PRMT", "IABS", "SEL", "BFE")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a disassembly."""

    address: int
    name: str
    """With its modifiers: `LDG.E.128`, `vfmadd231ps`."""
    operands: str


def gpu_mixes(text: str) -> dict[str, FrozenMap[str, int]]:
    """Instructions by kind of every function in the output of `cuobjdump -sass`.

    Kinds: `instructions`; `global loads` and `global stores` with their widths (`global loads 128
    bit`); `asynchronous copies`; `shared loads`, `shared stores`, `local loads`, `local stores`;
    `matrix`, `float`, `special` (inverse, exponential and so on), `integer`, `conversions`;
    `atomics`, `barriers`, `shuffles`. And `bytes in flight`: the most that a thread loads from
    global memory before it uses any of it.
    """
    found: dict[str, FrozenMap[str, int]] = {}
    for name, part in _parts(text, _FUNCTION):
        code = [Instruction(int(m[1], 16), m[2], m[3].strip()) for m in _SASS.finditer(part)]
        code = [one for one in code if one.name != "NOP"]
        mix = _mix(code, _gpu_kinds, _sass_target)
        mix["bytes in flight"] = _bytes_in_flight(code)
        found[name] = FrozenMap(dict(mix))
    return found


def processor_mix(text: str) -> FrozenMap[str, int]:
    """Instructions by kind of all functions of a library in the output of `objdump -d` (x86-64).

    Kinds: `instructions`; `packed 512`, `packed 256`, `packed 128` and `single` floating-point
    arithmetic, of which `multiply-adds`; `matrix`; `divisions` (square roots too); `gathers`,
    `streaming stores`, `stack` (vectors to or from the stack), `calls`.
    """
    total: Counter[str] = Counter()
    for name, part in _parts(text, _X86_FUNCTION):
        if _STARTUP.fullmatch(name):
            continue
        lines = (_X86.match(line) for line in part.splitlines())
        code = [Instruction(int(m[1], 16), m[2], m[3]) for m in lines if m]
        total += _mix(code, _processor_kinds, _x86_target)
    return FrozenMap(dict(total))


def _parts(text: str, heading: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    heads = list(heading.finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    for head, end in zip(heads, ends, strict=False):
        yield head[1], text[head.end() : end]


def _mix(
    code: Sequence[Instruction], kinds: Kinds, target: Callable[[Instruction], int | None]
) -> "Counter[str]":
    loops = _innermost(code, target)
    mix: Counter[str] = Counter()
    for one in code:
        looped = any(first <= one.address <= last for first, last in loops)
        for kind in ("instructions", *kinds(one)):
            mix[kind] += 1
            if looped:
                mix[f"loop {kind}"] += 1
    return mix


def _innermost(
    code: Sequence[Instruction], target: Callable[[Instruction], int | None]
) -> list[tuple[int, int]]:
    """First and last address of each loop that holds no other; a jump to itself is none."""
    jumps = [(to, one.address) for one in code if (to := target(one)) is not None]
    inside = {one.address for one in code}
    loops = {(to, at) for to, at in jumps if to < at and to in inside}
    return [
        (first, last)
        for first, last in loops
        if not any((first, last) != (a, b) and first <= a and b <= last for a, b in loops)
    ]


def _sass_target(one: Instruction) -> int | None:
    if not one.name.startswith("BRA"):
        return None
    place = re.search(r"0x([0-9a-f]+)\s*$", one.operands)
    return int(place[1], 16) if place else None


def _x86_target(one: Instruction) -> int | None:
    if not one.name.startswith("j"):
        return None
    place = re.match(r"([0-9a-f]+)\b", one.operands)
    return int(place[1], 16) if place else None


def _gpu_kinds(one: Instruction) -> Iterator[str]:
    base, *modifiers = one.name.split(".")
    match base:
        case "LDG" | "LD" | "STG" | "ST":
            way = "loads" if base.startswith("L") else "stores"
            yield f"global {way}"
            yield f"global {way} {_bits(modifiers)} bit"
        case "LDGSTS" | "UBLKCP" | "UTMALDG" | "UTMASTG":
            yield "asynchronous copies"
        case "LDS" | "LDSM":
            yield "shared loads"
        case "STS" | "STSM":
            yield "shared stores"
        case "LDL":
            yield "local loads"
        case "STL":
            yield "local stores"
        case "ATOM" | "ATOMG" | "ATOMS" | "RED" | "REDG":
            yield "atomics"
        case "BAR":
            yield "barriers"
        case "SHFL":
            yield "shuffles"
        case "MUFU":
            yield "special"
        case _ if base in _MATRIX:
            yield "matrix"
        case _ if base in _FLOATS:
            yield "float"
        case _ if base in _INTEGERS or (base[:1] == "U" and base[1:] in _INTEGERS):
            yield "integer"
        case _ if base in ("F2F", "F2FP", "I2F", "F2I", "I2FP", "F2IP", "FRND"):
            yield "conversions"
        case _:
            return


def _bits(modifiers: Sequence[str]) -> int:
    for modifier in modifiers:
        if modifier in ("U8", "S8"):
            return 8
        if modifier in ("U16", "S16"):
            return 16
        if modifier in ("64", "128", "256"):
            return int(modifier)
    return 32


def _bytes_in_flight(code: Iterable[Instruction]) -> int:
    """The most bytes of global loads between the first of them and the first use of any."""
    waiting: set[int] = set()
    flying = most = 0
    for one in code:
        base, *modifiers = one.name.split(".")
        first, *rest = one.operands.split(",", 1)
        is_load = base in ("LDG", "LD")
        read = rest[0] if is_load and rest else one.operands
        used = {int(number) for number in _REGISTER.findall(read)}
        used |= {int(number) + 1 for number in _ADDRESS.findall(read)}
        if used & waiting:
            waiting.clear()
            flying = 0
        target = _REGISTER.search(first)
        if is_load and target:
            nbytes = _bits(modifiers) // 8
            flying += nbytes
            start = int(target[1])
            waiting |= set(range(start, start + max(1, nbytes // 4)))
            most = max(most, flying)
    return most


def _processor_kinds(one: Instruction) -> Iterator[str]:
    name, operands = one.name, one.operands
    if name.startswith("call"):
        yield "calls"
        return
    if name.startswith(("tdp", "tile")):
        if name.startswith("tdp"):
            yield "matrix"
        return
    bare = name.removeprefix("v")
    if bare.startswith(("gather", "pgather")):
        yield "gathers"
        return
    if bare.startswith("movnt"):
        yield "streaming stores"
        return
    if bare.startswith("mov"):
        if re.search(r"%[xyz]mm", operands) and re.search(r"\(%r[sb]p\)", operands):
            yield "stack"
        return
    arithmetic = _ARITHMETIC.match(bare)
    if arithmetic is None:
        return
    if bare[0] == "f" or bare.startswith("dp"):
        yield "multiply-adds"
    if bare.startswith(("div", "sqrt")):
        yield "divisions"
    if bare.endswith(("ss", "sd")):
        yield "single"
        return
    width = {"z": 512, "y": 256}.get(next(iter(re.findall(r"%([zy])mm", operands)), "x"), 128)
    yield f"packed {width}"
