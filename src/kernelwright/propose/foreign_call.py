"""A kernel under the ABI that calls, or launches, an existing function.

Its text is the file's, where each constant that is a tunable has become a default, and a wrapper at
its end.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from kernelwright.errors import CandidateError
from kernelwright.model import Dtype, Family, Signature, TensorArgument
from kernelwright.propose.foreign import (
    LAUNCH_BLOCK,
    ForeignCall,
    Function,
    Parameter,
    constants,
    find_function,
    said_in,
    with_defaults,
)
from kernelwright.space import parse_declarations

_EXPRESSION = re.compile(r"[\w\s+\-*/%()<>=!&|.?:]+")
_WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*")
_QUALIFIERS = re.compile(r"\b(const|volatile|__restrict__|__restrict|restrict|struct)\b")
_ELEMENTS: dict[str, tuple[Dtype, ...]] = {
    "float": (Dtype.F32,), "double": (Dtype.F64,),
    **dict.fromkeys(("bf16", "__nv_bfloat16", "nv_bfloat16"), (Dtype.BF16,)),
    **dict.fromkeys(("f16", "half", "__half"), (Dtype.F16,)),
    **dict.fromkeys(("int", "int32_t"), (Dtype.I32,)),
    **dict.fromkeys(("int64_t", "long", "long long"), (Dtype.I64,)),
    **dict.fromkeys(("int16_t", "short"), (Dtype.I16,)),
    **dict.fromkeys(("int8_t", "signed char"), (Dtype.I8,)),
    **dict.fromkeys(("uint8_t", "unsigned char", "bool"), (Dtype.U8, Dtype.BOOL)),
}  # fmt: skip
_SCALARS = {"float": "double", "int": "long long", "bool": "int"}
_ABI_TAIL = ("prepared", "workspace", "workspace_bytes", "stream")
_OURS = "kw_"
"""What our names begin with in the wrapper: a macro of the file's may be called as a dimension."""
_FUNCTIONS = {"sqrt": "__builtin_sqrt"}


def wrapped(family: Family, signature: Signature, dtype: Dtype) -> Family:
    """The family under the ABI.

    Raises:
        CandidateError: it is not said what a parameter is, or what is said does not fit.
    """
    function = find_function(family.source, family.entry)
    _, call = said_in(family.source)
    names = {parameter.name for parameter in function.parameters}
    for theirs in call.arguments:
        if theirs not in names:
            raise CandidateError(
                f"{function.name} has no parameter '{theirs}': it has {', '.join(sorted(names))}"
            )
    known = constants(family.source)
    if function.is_kernel and (call.block or "").isdecimal():
        known[LAUNCH_BLOCK] = int(call.block or "")
    wrapper = _Wrapper(function, signature, dtype, call, family.language, known)
    # a constant that is called as a dimension cannot be a tunable
    numbers = "|".join(map(re.escape, wrapper.numbers)) or "(?!)"
    source = re.sub(rf"^// @tune (?:{numbers}) = .*\n", "", family.source, flags=re.MULTILINE)
    source = with_defaults(source, set(parse_declarations(source).names))
    text = "\n".join([source.rstrip("\n"), "", *wrapper.lines()])
    return replace(family, entry=wrapper.entry, source=text + "\n")


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """The text of the function under the ABI, which needs no header."""

    function: Function
    signature: Signature
    dtype: Dtype
    call: ForeignCall
    language: str
    constants: Mapping[str, int]
    """Of the file; expressions may name them."""

    @property
    def entry(self) -> str:
        """Its name."""
        return f"{self.function.name}_under_abi"

    @property
    def numbers(self) -> list[str]:
        """Dimensions and scalars."""
        return [*self.signature.dimensions, *(s.name for s in self.signature.scalars)]

    def lines(self) -> list[str]:
        """The whole text."""
        passed = self._passed()
        arguments = ", ".join(self._value(parameter) for parameter in passed)
        written = {self._said(parameter) for parameter in passed}
        for output in self.signature.outputs:
            if output.name not in written:
                raise self._error(
                    f"nothing writes the output '{output.name}': add "
                    f"--argument PARAMETER={output.name}"
                )
        numbers = [f"long long {_OURS}{name}" for name in self.signature.dimensions]
        numbers += [f"{_SCALARS[s.kind]} {_OURS}{s.name}" for s in self.signature.scalars]
        given = [f"const void* {_OURS}{t.name}" for t in self.signature.inputs]
        given += [f"void* {_OURS}{t.name}" for t in self.signature.outputs]
        given += [*numbers, f"const void* {_OURS}prepared", f"void* {_OURS}workspace"]
        given += [f"long long {_OURS}workspace_bytes", f"void* {_OURS}stream"]
        lines = self._default_block()
        lines.append(f'extern "C" int {self.entry}({", ".join(given)}) {{')
        lines += [f"    (void){_OURS}{name};" for name in (*self.numbers, *_ABI_TAIL)]
        lines += [*(f"    {line}" for line in self._body(arguments)), "}"]
        if self.call.workspace is not None:
            size = self._expression(self.call.workspace, f"--workspace {self.call.workspace}")
            lines += [
                f'extern "C" long long {self.entry}_workspace({", ".join(numbers) or "void"}) {{',
                *(f"    (void){_OURS}{name};" for name in self.numbers),
                f"    return (long long)({size});", "}",
            ]  # fmt: skip
        return lines

    def _body(self, arguments: str) -> list[str]:
        call = self.call
        if self.function.is_kernel:
            if call.grid is None or call.block is None:
                raise self._error(
                    "a __global__ function is launched: say how, such as "
                    f'--grid "({self.numbers[0]} + block - 1) / block" --block 256'
                )
            block = LAUNCH_BLOCK if call.block.isdecimal() else call.block
            threads = self._extent(block, f"--block {call.block}")
            blocks = self._extent(call.grid, f"--grid {call.grid}", ("block",))
            shared = self._expression(call.shared or "0", f"--shared {call.shared}", ("block",))
            return [
                f"const dim3 {_OURS}threads({threads});",
                f"const long long {_OURS}block = {_OURS}threads.x;",
                f"(void){_OURS}block;",
                f"const dim3 {_OURS}grid({blocks});",
                f"{self.function.name}<<<{_OURS}grid, {_OURS}threads, (size_t)({shared}), "
                f"(cudaStream_t){_OURS}stream>>>({arguments});",
                "return (int)cudaGetLastError();",
            ]
        if call.grid or call.block or call.shared:
            raise self._error(
                "it launches by itself: --grid, --block and --shared are for __global__ functions"
            )
        called = f"{self.function.name}({arguments})"
        none = "(int)cudaGetLastError()" if self.language == "cuda" else "0"
        if self.function.result == "void":
            return [f"{called};", f"return {none};"]
        return [f"const int {_OURS}code = (int){called};",
                f"return {_OURS}code ? {_OURS}code : {none};"]  # fmt: skip

    def _default_block(self) -> list[str]:
        if LAUNCH_BLOCK not in self.constants:
            return []
        number = self.constants[LAUNCH_BLOCK]
        return [f"#ifndef {LAUNCH_BLOCK}", f"#define {LAUNCH_BLOCK} {number}", "#endif"]

    def _extent(self, text: str, what: str, more: Collection[str] = ()) -> str:
        parts = [self._expression(part, what, more) for part in text.split(",")]
        if len(parts) > 3:
            raise self._error(f"'{what}' has more than three extents")
        return ", ".join(f"(unsigned)({part})" for part in parts)

    def _passed(self) -> list[Parameter]:
        """Parameters up to the last one that nothing but its default says."""
        found = list(self.function.parameters)
        while found and found[-1].default is not None and self._said(found[-1]) is None:
            found.pop()
        return found

    def _said(self, parameter: Parameter) -> str | None:
        if parameter.name in self.call.arguments:
            return self.call.arguments[parameter.name]
        if "cudaStream_t" in parameter.type:
            return "stream"
        ours = [*(t.name for t in self.signature.tensors), *self.numbers, *_ABI_TAIL]
        return parameter.name if parameter.name in ours else None

    def _value(self, parameter: Parameter) -> str:
        said = self._said(parameter)
        tensors = {tensor.name: tensor for tensor in self.signature.tensors}
        if said is None:
            raise self._error(
                f"say what '{parameter.type} {parameter.name}' is: --argument "
                f"{parameter.name}=NAME, one of {', '.join([*tensors, *self.numbers])}, workspace "
                "and stream, or an expression of dimensions and scalars"
            )
        kind = "cudaStream_t" if "cudaStream_t" in parameter.type else _cast(parameter.type)
        if said in tensors:
            self._check_element(parameter, tensors[said])
            return f"({kind}){_OURS}{said}"
        if said in ("stream", "workspace", "prepared"):
            return f"({kind}){_OURS}{said}"
        if said == "nullptr":
            return f"({kind})nullptr"
        if parameter.is_pointer:
            raise self._error(
                f"'{parameter.name}' is a pointer, and '{said}' is none: name one of "
                f"{', '.join(tensors)}, workspace or nullptr"
            )
        return f"({kind})({self._expression(said, f'--argument {parameter.name}={said}')})"

    def _check_element(self, parameter: Parameter, tensor: TensorArgument) -> None:
        if not parameter.is_pointer:
            raise self._error(
                f"'{parameter.name}' takes no pointer, and '{tensor.name}' is a tensor"
            )
        element = " ".join(_QUALIFIERS.sub(" ", parameter.type).replace("*", " ").split())
        allowed, given = _ELEMENTS.get(element), tensor.resolve(self.dtype)
        if allowed is not None and given not in allowed:
            other = f": add --dtype {allowed[0]}" if tensor.dtype is None else ""
            raise self._error(
                f"'{parameter.name}' points to {element}, and '{tensor.name}' is {given}{other}"
            )

    def _expression(self, text: str, what: str, more: Collection[str] = ()) -> str:
        """A checked expression with our names as the wrapper has them; constants keep theirs."""
        ours = {*self.numbers, "workspace_bytes", *more}
        kept = {"true", "false", *self.constants}
        unknown = [w for w in _WORD.findall(text) if w not in {*ours, *kept, *_FUNCTIONS}]
        if unknown or not _EXPRESSION.fullmatch(text):
            wrong = f"names '{unknown[0]}'" if unknown else "is no expression"
            known = ", ".join(sorted({*self.numbers, *self.constants, *more}))
            raise self._error(f"'{what}' {wrong}; known are {known}")
        return _WORD.sub(
            lambda m: f"{_OURS}{m[0]}" if m[0] in ours else _FUNCTIONS.get(m[0], m[0]), text
        )

    def _error(self, text: str) -> CandidateError:
        listed = ", ".join(f"{p.type} {p.name}" for p in self.function.parameters)
        return CandidateError(f"{self.function.name}({listed}): {text}")


def _cast(written: str) -> str:
    """The type of a parameter as a conversion to it has it."""
    return " ".join(re.sub(r"\b(__restrict__|__restrict|restrict)\b", "", written).split())
