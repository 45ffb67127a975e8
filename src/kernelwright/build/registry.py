"""Builders by language: ours and those that installed packages register."""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from kernelwright.build.artifact import Artifact
from kernelwright.build.builder import CppBuilder
from kernelwright.build.cuda import CudaBuilder
from kernelwright.build.protocol import Builder
from kernelwright.build.python import PythonBuilder
from kernelwright.build.triton import TritonBuilder
from kernelwright.errors import UserError
from kernelwright.model import (
    Candidate,
    Dtype,
    Host,
    Language,
    Reason,
    Rejected,
    Signature,
    Stage,
    Toolchain,
)

GROUP = "kernelwright.builders"
"""Entry points of this group are named as their language; they are called as ours are."""
_OURS: dict[Language, Callable[[Sequence[Toolchain], Path], Builder]] = {
    "cpp": CppBuilder,
    "cuda": CudaBuilder,
    "python": PythonBuilder,
    "triton": TritonBuilder,
}


def languages() -> tuple[Language, ...]:
    """Every language that `builder_for` takes, ours first."""
    others = {point.name for point in entry_points(group=GROUP)}
    return (*_OURS, *sorted(others - set(_OURS)))


def builder_for(language: Language, toolchains: Sequence[Toolchain], cache: Path) -> Builder:
    """The builder of a language.

    Args:
        language: `cpp`, `cuda`, `python`, `triton`, or an installed one.
        toolchains: compilers that may be used.
        cache: folder of the artifacts.

    Raises:
        UserError: there is none for this language.
    """
    if language in _OURS:
        return _OURS[language](toolchains, cache)
    for point in entry_points(group=GROUP):
        if point.name == language:
            return point.load()(toolchains, cache)
    known = ", ".join(languages())
    raise UserError(f"nothing builds the language '{language}': choose from {known}")


class Builders:
    """A builder that takes every language: each candidate goes to its own.

    Args:
        toolchains: compilers that may be used.
        cache: folder of the artifacts.
    """

    def __init__(self, toolchains: Sequence[Toolchain], cache: Path) -> None:
        self.toolchains = tuple(toolchains)
        self.cache = cache
        self._builders: dict[Language, Builder] = {}

    def available(self) -> str | None:
        """None when C++ can be built here: that is what the worker's hosts need."""
        return self._of("cpp").available()

    def supports(self, candidate: Candidate) -> str | None:
        """None when the candidate's language is known and its builder can take it."""
        try:
            return self._of(candidate.language).supports(candidate)
        except UserError as error:
            return str(error)

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """What the language's builder makes of it."""
        try:
            return self._of(candidate.language).build(candidate)
        except UserError as error:
            return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, str(error))

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Each language's candidates side by side; by identity, in the order given."""
        every = list(candidates)
        built: dict[str, Artifact | Rejected] = {}
        for language in dict.fromkeys(candidate.language for candidate in every):
            own = [candidate for candidate in every if candidate.language == language]
            if language in languages():
                built |= self._of(language).build_many(own)
            else:
                built |= {candidate.identity: self.build(candidate) for candidate in own}
        return {candidate.identity: built[candidate.identity] for candidate in every}

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """What the language's builder says."""
        return self._of(artifact.language).host(artifact, signature, dtype)

    def _of(self, language: Language) -> Builder:
        if language not in self._builders:
            self._builders[language] = builder_for(language, self.toolchains, self.cache)
        return self._builders[language]
