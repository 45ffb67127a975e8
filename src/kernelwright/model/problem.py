"""What a problem declares, as plain data: all that proposers, prompts and logs ever see."""

from dataclasses import dataclass, field
from typing import Literal

from kernelwright.model.dtypes import Dtype
from kernelwright.model.mapping import FrozenMap
from kernelwright.model.signature import Signature

Sizes = FrozenMap[str, int]


@dataclass(frozen=True, slots=True)
class PublicProblem:
    """A problem without its code and without anything that the judge keeps secret."""

    name: str
    scenario: str
    summary: str
    """First line of the reference's docstring."""
    signature: Signature
    dtypes: tuple[Dtype, ...]
    sizes: FrozenMap[str, tuple[Sizes, ...]]
    """Bench sizes by target, `cpu` and `gpu`."""
    ranges: FrozenMap[str, tuple[int, int]] = field(default_factory=FrozenMap[str, tuple[int, int]])
    """Least and greatest size that a kernel must be right for, by dimension name."""
    distributions: tuple[str, ...] = ("normal",)
    peers: tuple[str, ...] = ()
    """Baselines beside `eager` and `compile`."""
    source: str = ""
    """Provenance."""
    reference_text: str = ""
    """Source text of the reference, for people and models to read."""
    derived: tuple[str, ...] = ()
    """What was derived rather than declared, one sentence each."""
    contract: str = ""
    """What the problem allows beyond the default contract (such as TF32); empty: nothing."""
    target: Literal["cpu", "cuda"] = "cpu"
