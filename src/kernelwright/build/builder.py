"""Building C++ candidates: flags, cache, limits, and the compiler's words when it fails."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from kernelwright.build.artifact import Artifact
from kernelwright.model import Candidate, Rejected, Toolchain


class CppBuilder:
    """Builds C++ candidates into shared libraries, in a cache that is keyed by everything.

    Args:
        toolchains: Compilers that may be used; the first is the default of `CXX`.
        cache: Folder of the artifacts; made when missing; may be shared between processes.
    """

    def __init__(self, toolchains: Sequence[Toolchain], cache: Path) -> None:
        raise NotImplementedError

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        raise NotImplementedError

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        raise NotImplementedError

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """Compile, link and cache one candidate."""
        raise NotImplementedError

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """Build several candidates, as many at once as there are cores; by identity."""
        raise NotImplementedError
