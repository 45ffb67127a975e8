"""The trial call that a Triton candidate declares: what its kernels are compiled for ahead of time.

    # @call x: bf16[T, H], w: bf16[H], out: bf16[T, H], T = 4096, H = 4096, eps = 1e-06

Tensors in their order, with element type and dimensions; then dimensions and scalars with values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kernelwright.errors import CandidateError, KernelwrightError
from kernelwright.model import Dtype, Scalar, Signature, evaluate_dimension

TRIAL_CALL = "# @call"
_LINE = re.compile(r"^\s*#+\s*@call\b(.*)$", re.MULTILINE)
_PART = re.compile(r"[^,\[\]]+(?:\[[^\]]*\])?")
_TENSOR = re.compile(r"\s*([A-Za-z_]\w*)\s*:\s*(\w+)\s*\[([^\]]*)\]\s*$")
_VALUE = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*(\S+)\s*$")


@dataclass(frozen=True, slots=True)
class TrialCall:
    """Shapes and values of one call; tunables come beside them."""

    tensors: tuple[tuple[str, tuple[int, ...], Dtype], ...]
    """Name, shape and element type."""
    values: Mapping[str, Scalar]
    """Dimensions and scalars."""


def parse_call(source: str) -> TrialCall | None:
    """The trial call of a source; None where it declares none.

    Raises:
        CandidateError: there are several, or it cannot be read.
    """
    lines = _LINE.findall(source)
    if len(lines) > 1:
        raise CandidateError("a source has one '# @call' line at most")
    if not lines:
        return None
    found: list[tuple[str, Dtype, tuple[str, ...]]] = []
    values: dict[str, Scalar] = {}
    for part in _PART.findall(lines[0]):
        if match := _TENSOR.fullmatch(part):
            found.append(
                (
                    match[1],
                    _dtype(match[2]),
                    tuple(filter(None, map(str.strip, match[3].split(",")))),
                )
            )
        elif match := _VALUE.fullmatch(part):
            values[match[1]] = _number(match[2])
        elif part.strip():
            raise CandidateError(
                "'# @call' takes NAME: DTYPE[DIMENSIONS] and NAME = VALUE, and not "
                f"'{part.strip()}'"
            )
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    try:
        return TrialCall(
            tuple(
                (n, tuple(evaluate_dimension(d, sizes) for d in dims), t) for n, t, dims in found
            ),
            values,
        )
    except (KernelwrightError, KeyError, ValueError) as error:
        raise CandidateError(f"'# @call' has a dimension without a value: {error}") from None


def call_line(
    signature: Signature, dtype: Dtype, sizes: Mapping[str, int], scalars: Mapping[str, Scalar]
) -> str:
    """The line that declares a call of this signature."""
    parts = [f"{t.name}: {t.resolve(dtype)}[{', '.join(t.dims)}]" for t in signature.tensors]
    values = {name: sizes[name] for name in signature.dimensions if name in sizes}
    parts += [f"{name} = {value!r}" for name, value in {**values, **scalars}.items()]
    return f"# @call {', '.join(parts)}"


def _dtype(text: str) -> Dtype:
    try:
        return Dtype(text)
    except ValueError:
        raise CandidateError(f"'# @call' names the element type '{text}'") from None


def _number(text: str) -> Scalar:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise CandidateError(f"'# @call' gives the value '{text}', which is no number")
