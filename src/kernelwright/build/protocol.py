"""What every builder does."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from kernelwright.build.artifact import Artifact
from kernelwright.model import Candidate, Dtype, Host, Rejected, Signature


class Builder(Protocol):
    """Turns candidates of one language into artifacts, and says what runs them."""

    def available(self) -> str | None:
        """None when something can be built here, else one sentence that names the mend."""
        ...

    def supports(self, candidate: Candidate) -> str | None:
        """None when this builder can take the candidate, else why not."""
        ...

    def build(self, candidate: Candidate) -> Artifact | Rejected:
        """The artifact, or why there is none in the compiler's words."""
        ...

    def build_many(self, candidates: Iterable[Candidate]) -> dict[str, Artifact | Rejected]:
        """The same for several, by identity."""
        ...

    def host(self, artifact: Artifact, signature: Signature, dtype: Dtype) -> Host:
        """How a worker runs an artifact of this builder.

        Args:
            artifact: what `build` made.
            signature: what calls of it pass.
            dtype: the workload's element type.

        Raises:
            HarnessError: our own part of it cannot be built.
        """
        ...


def build_side_by_side(
    build: Callable[[Candidate], Artifact | Rejected], candidates: Iterable[Candidate]
) -> dict[str, Artifact | Rejected]:
    """Build each of them, as many at once as there are cores; by identity."""
    unique = {candidate.identity: candidate for candidate in candidates}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(unique, pool.map(build, unique.values()), strict=True))
