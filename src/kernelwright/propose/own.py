"""The user's own kernel as a first family."""

import re
from collections.abc import Sequence
from pathlib import Path

from kernelwright.errors import CandidateError
from kernelwright.model import Candidate, Family, Language, Lineage, Verdict
from kernelwright.propose.proposer import ProblemView

_LANGUAGES: dict[str, Language] = {
    ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp", ".c": "cpp", ".cu": "cuda", ".py": "triton",
}  # fmt: skip
_EXPORTED = re.compile(r'extern\s+"C"\s*(?:\{\s*)?(?:\w+\s+)*?int\s+(\w+)\s*\(')
_AUXILIARY = ("_workspace", "_prepared", "_prepare")


def own_kernel_family(path: Path, language: str | None = None, entry: str | None = None) -> Family:
    """Read a kernel file as a family; the exported name is found in the source unless given.

    Raises:
        CandidateError: the file cannot be read, its language is unknown, or it does not export
            exactly one function.
    """
    try:
        source = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise CandidateError(f"the kernel file '{path}' cannot be read: {reason}") from None
    chosen = language or _LANGUAGES.get(path.suffix)
    if chosen not in ("cpp", "cuda", "triton"):
        raise CandidateError(f"the language of '{path}' is unknown: add --language cpp")
    if chosen != "cpp":
        raise CandidateError(f"'{path}' is {chosen}: only C++ kernels (cpp) can be run as yet")
    if entry is None:
        names = [n for n in _EXPORTED.findall(source) if not n.endswith(_AUXILIARY)]
        if len(set(names)) != 1:
            found = f"it exports {', '.join(sorted(set(names)))}" if names else "it exports none"
            raise CandidateError(
                f"'{path}' must export one function as: extern \"C\" int NAME(...); {found}"
            )
        entry = str(names[0])
    return Family(f"own:{path.name}", chosen, entry, source, Lineage("own", note=path.name))


class OwnKernelProposer:
    """Proposes one kernel file."""

    name = "own"
    cost = "nothing"

    def __init__(self, family: Family) -> None:
        self._family = family

    def propose(
        self,
        view: ProblemView,
        parents: Sequence[Candidate],
        evidence: Sequence[tuple[Candidate, Verdict]],
        count: int,
    ) -> tuple[Family, ...]:
        """The file's family."""
        return (self._family,)[:count]
