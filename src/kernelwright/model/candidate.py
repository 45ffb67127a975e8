"""A candidate: one kernel as source plus tunable values, and where it came from."""

from dataclasses import dataclass, field

from kernelwright.model.hashing import content_hash
from kernelwright.model.mapping import FrozenMap

Language = str
"""`cpp`, `cuda` (CUDA C++), `python`, or what an installed builder is registered for."""
TunableValue = int | str


@dataclass(frozen=True, slots=True)
class Lineage:
    """Who proposed a candidate, from what, and why."""

    proposer: str
    parents: tuple[str, ...] = ()
    """Identities of the candidates that this one was made from."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A source whose tunables are open: every assignment of values is a candidate."""

    name: str
    """What the design is, such as `rowwise` or `contraction`; shown to people."""
    language: Language
    entry: str
    source: str
    lineage: Lineage
    defaults: tuple[FrozenMap[str, TunableValue], ...] = ()
    """Good assignments to try first, best guess first; empty: the declared defaults."""

    @property
    def identity(self) -> str:
        """Content hash of language, entry and source."""
        return content_hash(self.language, self.entry, self.source)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One kernel. Two candidates with the same identity are the same kernel."""

    language: Language
    entry: str
    """Name of the exported function."""
    source: str
    tunables: FrozenMap[str, TunableValue] = field(default_factory=FrozenMap[str, TunableValue])
    family: str = ""
    lineage: Lineage = field(default=Lineage("user"), compare=False)

    @property
    def identity(self) -> str:
        """Content hash of language, entry, source and tunable values; not of the lineage."""
        values = [part for k in sorted(self.tunables) for part in (k, repr(self.tunables[k]))]
        return content_hash(self.language, self.entry, self.source, *values)
