"""The user's own kernel as a first family."""

import re
from collections.abc import Sequence
from pathlib import Path

from kernelwright.build import languages
from kernelwright.errors import CandidateError
from kernelwright.model import Candidate, Family, Language, Lineage, Verdict
from kernelwright.propose.proposer import ProblemView

_LANGUAGES: dict[str, Language] = {
    ".cpp": "cpp", ".cc": "cpp", ".cxx": "cpp", ".c": "cpp", ".cu": "cuda", ".py": "python",
}  # fmt: skip
KERNEL_SUFFIXES = tuple(_LANGUAGES)
"""What kernel files end in; a problem's file may end in `.py` too."""
_EXPORTED = re.compile(r'extern\s+"C"\s*(?:\{\s*)?(?:\w+\s+)*?int\s+(\w+)\s*\(')
_KERNEL = re.compile(r"^@triton\.\w+(?:.*\n)(?:@.*\n)*def\s+\w+", re.MULTILINE)
_TRITON = re.compile(r"^\s*(?:import|from)\s+triton\b", re.MULTILINE)
_DEFINED = re.compile(r"^def\s+([A-Za-z]\w*)\s*\(", re.MULTILINE)
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
    if language is None and chosen == "python" and _TRITON.search(source):
        chosen = "triton"
    known = languages()
    if chosen is None:
        raise CandidateError(f"the language of '{path}' is unknown: add --language cpp")
    if chosen not in known:
        raise CandidateError(f"'{path}' is {chosen}, which nothing builds: only {', '.join(known)}")
    if entry is None:
        entry = _entry_of(source, path, chosen)
    return Family(f"own:{path.name}", chosen, entry, source, Lineage("own", note=path.name))


def _entry_of(source: str, path: Path, language: Language) -> str:
    """The name of the one function that a kernel file is about.

    Raises:
        CandidateError: it cannot be told.
    """
    if language in ("cpp", "cuda"):
        names = {n for n in _EXPORTED.findall(source) if not n.endswith(_AUXILIARY)}
        form, verb = 'export one function as: extern "C" int NAME(...)', "exports"
    else:
        names = set[str](_DEFINED.findall(_KERNEL.sub("", source)))
        for name in (path.stem, "kernel"):
            if name in names:
                return name
        form = f"define one public function, or one that is called {path.stem} or kernel"
        verb = "defines"
    if len(names) != 1:
        found = f"it {verb} {', '.join(sorted(names))}" if names else f"it {verb} none"
        raise CandidateError(f"'{path}' must {form}; {found}")
    return names.pop()


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
