"""What every builder must do: subclass `BuilderConformance`; and one that compiles nothing."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from kernelwright.build import Artifact, Builder
from kernelwright.model import (
    Candidate,
    Dtype,
    FrozenMap,
    Host,
    Reason,
    Rejected,
    Signature,
    Stage,
    Toolchain,
    TunableValue,
    content_hash,
)
from kernelwright.testing import samples


class FakeBuilder:
    """Compiles nothing: the binary is the source with its tunables written in front.

    A source that holds `#error TEXT` is rejected with that text. `built` lists what was compiled,
    so that a test can count builds.
    """

    def __init__(self, cache: Path, toolchains: Sequence[str] = ("g++",)) -> None:
        self.cache = cache
        self.toolchains = tuple(Toolchain(n, f"/fake/{n}", "0", "none", 1) for n in toolchains)
        self.built: list[Candidate] = []

    def available(self) -> str | None:
        """See `Builder`."""
        return None if self.toolchains else "no fake compiler was given"

    def supports(self, candidate: Candidate) -> str | None:
        """See `Builder`."""
        if candidate.language != "cpp":
            return f"the fake builder builds C++, not {candidate.language}"
        found = self._toolchain(candidate)
        return found.diagnostic if isinstance(found, Rejected) else None

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """See `Builder`."""
        toolchain = self._toolchain(candidate)
        if isinstance(toolchain, Rejected):
            return toolchain
        if "#error" in candidate.source:
            words = candidate.source.partition("#error")[2].splitlines()[0]
            return Rejected(Stage.BUILD, Reason.COMPILE_ERROR, f"error: #error{words}")
        macros = [f"{k}={v}" for k, v in sorted(candidate.tunables.items()) if k != "CXX"]
        data = "\n".join([toolchain.name, *macros, candidate.source])
        key = content_hash(data)
        path = self.cache / key / "kernel.so"
        cached = path.exists()
        if not cached:
            path.parent.mkdir(parents=True)
            path.write_text(data)
            self.built.append(candidate)
        return Artifact(
            path, candidate.identity, key, toolchain, 0.0, cached, "", content_hash(data)
        )

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """See `Builder`."""
        return {candidate.identity: self.build(candidate) for candidate in candidates}

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """A program that ends at once."""
        return Host(("/bin/false",), Path("/dev/null"))

    def _toolchain(self, candidate: Candidate) -> Toolchain | Rejected:
        known = {toolchain.name: toolchain for toolchain in self.toolchains}
        name = candidate.tunables.get("CXX", next(iter(known), "none"))
        if name in known:
            return known[str(name)]
        text = f"the compiler '{name}' is not here"
        return Rejected(Stage.BUILD, Reason.TOOLCHAIN_MISSING, text)


class BuilderConformance:
    """Tests of a builder: of C++ candidates, or of those that `good` and `bad` are changed to."""

    @abstractmethod
    def make(self, cache: Path) -> Builder:
        """A builder with an empty or used cache folder, that can build here."""

    @abstractmethod
    def compiler(self) -> str:
        """What it calls the toolchain that it uses; in C++ a value of `CXX`."""

    @pytest.fixture
    def builder(self, tmp_path: Path) -> Builder:
        """With an empty cache."""
        return self.make(tmp_path / "cache")

    def good(self, **values: TunableValue) -> Candidate:
        """A right kernel for `samples.problem()` with the tunables LANES and UNROLL."""
        chosen = {"LANES": 8, "UNROLL": 2, "CXX": self.compiler(), **values}
        return replace(samples.candidate(), tunables=FrozenMap(chosen))

    def bad(self) -> Candidate:
        """A kernel with an error on its second line, which says `unlucky_name`."""
        source = "// first line\n#error unlucky_name\n"
        return Candidate("cpp", "kernel", source, FrozenMap({"CXX": self.compiler()}))

    def test_says_what_it_can_build(self, builder: Builder) -> None:
        """One sentence each, not an exception."""
        assert builder.available() is None
        assert builder.supports(self.good()) is None
        other = replace(self.good(), language="fortran")
        assert "fortran" in (builder.supports(other) or "")

    def test_an_artifact_is_a_file(self, builder: Builder) -> None:
        """It tells whose it is and with what it was built."""
        artifact = builder.build(self.good())
        assert isinstance(artifact, Artifact)
        assert artifact.path.stat().st_size > 0
        assert artifact.candidate == self.good().identity
        assert artifact.language == self.good().language
        assert artifact.toolchain.name == self.compiler()
        assert artifact.cached is False

    def test_says_what_runs_an_artifact(self, builder: Builder) -> None:
        """A program that is there, and files that are there."""
        artifact = builder.build(self.good())
        assert isinstance(artifact, Artifact)
        host = builder.host(artifact, samples.problem().signature, Dtype.F32)
        for path in (Path(host.command[0]), *host.visible, *host.hidden):
            assert path.exists()

    def test_building_again_takes_the_cache(self, builder: Builder, tmp_path: Path) -> None:
        """In this builder and in the next one."""
        first = builder.build(self.good())
        assert isinstance(first, Artifact)
        for again in (builder.build(self.good()), self.make(tmp_path / "cache").build(self.good())):
            assert isinstance(again, Artifact)
            assert again.cached is True
            assert (again.key, again.binary_hash) == (first.key, first.binary_hash)

    def test_tunables_change_the_binary(self, builder: Builder) -> None:
        """Every value is bound."""
        artifacts = [builder.build(self.good(LANES=8)), builder.build(self.good(LANES=4))]
        hashes = {(a.key, a.binary_hash) for a in artifacts if isinstance(a, Artifact)}
        assert len(hashes) == 2

    def test_a_failed_build_has_the_compilers_words(self, builder: Builder, tmp_path: Path) -> None:
        """As a value, without paths of this machine, each time anew."""
        for _ in range(2):
            verdict = builder.build(self.bad())
            assert isinstance(verdict, Rejected)
            assert (verdict.stage, verdict.reason) == (Stage.BUILD, Reason.COMPILE_ERROR)
            assert "unlucky_name" in verdict.diagnostic
            assert str(tmp_path) not in verdict.diagnostic

    def test_a_compiler_that_is_missing_is_a_verdict(self, builder: Builder) -> None:
        """Spaces are restricted before; a stored candidate may still name it."""
        candidate = self.good(CXX="c++-of-the-future")
        assert "c++-of-the-future" in (builder.supports(candidate) or "")
        verdict = builder.build(candidate)
        assert isinstance(verdict, Rejected)
        assert verdict.reason is Reason.TOOLCHAIN_MISSING

    def test_many_are_built_side_by_side(self, builder: Builder) -> None:
        """Each has its own answer; equal candidates have one."""
        candidates = [self.good(), self.bad(), self.good(LANES=4), self.good()]
        built = builder.build_many(candidates)
        assert set(built) == {candidate.identity for candidate in candidates}
        assert isinstance(built[self.bad().identity], Rejected)
        for candidate in (self.good(), self.good(LANES=4)):
            artifact = built[candidate.identity]
            assert isinstance(artifact, Artifact)
            assert artifact.candidate == candidate.identity
        assert builder.build_many([]) == {}
