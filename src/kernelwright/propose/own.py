"""The user's own kernel as a first family."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kernelwright.build import TRIAL_CALL, call_line, languages
from kernelwright.errors import CandidateError
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    Language,
    Lineage,
    Signature,
    Verdict,
)
from kernelwright.propose.foreign import ForeignCall, declared, find_function, is_foreign, said_in
from kernelwright.propose.foreign_call import wrapped
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


def own_kernel_family(
    path: Path,
    language: str | None = None,
    entry: str | None = None,
    call: ForeignCall | None = None,
) -> Family:
    """Read a kernel file as a family; the exported name is found in the source unless given.

    Args:
        path: the file.
        language: None: by suffix and imports.
        entry: the function; one with a signature of its own has to be named.
        call: what is said about that, beside what the file says; `settled` puts such a family
            under the ABI.

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
    if chosen not in ("cpp", "cuda"):
        if call is not None and call != ForeignCall():
            raise CandidateError(
                f"'{path}' is {chosen}: arguments are said of C++ and CUDA C++ only"
            )
        entry = entry or _entry_of(source, path, chosen)
    else:
        entry, source = _compiled(source, path, chosen, entry, call or ForeignCall())
    return Family(f"own:{path.name}", chosen, entry, source, Lineage("own", note=path.name))


def settled(family: Family, signature: Signature, dtype: Dtype, sizes: Mapping[str, int]) -> Family:
    """A family as it is built, once it is known what it computes.

    A function with a signature of its own is put under the ABI. A Triton family says what its
    kernels are compiled for ahead of time: where it does not say so itself the line is the source's
    last, so that the lines of diagnostics are those of the file.

    Args:
        family: of any language.
        signature: what it computes.
        dtype: the workload's element type.
        sizes: the bench sizes.

    Raises:
        CandidateError: it is not said what an argument is.
    """
    if is_foreign(family):
        return wrapped(family, signature, dtype)
    if family.language != "triton" or TRIAL_CALL in family.source:
        return family
    scalars = {s.name: 1 if s.default is None else s.default for s in signature.scalars}
    line = call_line(signature, dtype, sizes, scalars)
    return replace(family, source=f"{family.source.rstrip()}\n\n{line}\n")


def _compiled(
    source: str, path: Path, language: Language, entry: str | None, call: ForeignCall
) -> tuple[str, str]:
    """The entry of a C++ or CUDA file, and its text with all that is said about the entry."""
    named, _ = said_in(source)
    described = entry is not None or named is not None or call != ForeignCall()
    entry = entry or named or _entry_of(source, path, language)
    try:
        foreign = not find_function(source, entry).is_under_abi
    except CandidateError:
        if described:
            raise
        return entry, source  # the builder says what is wrong with it
    if foreign:
        return entry, declared(source, call)
    if call != ForeignCall():
        raise CandidateError(f"'{entry}' of '{path}' is under the ABI: no arguments are to be said")
    return entry, source


def _entry_of(source: str, path: Path, language: Language) -> str:
    """The name of the one function that a kernel file is about.

    Raises:
        CandidateError: it cannot be told.
    """
    if language in ("cpp", "cuda"):
        names = {n for n in _EXPORTED.findall(source) if not n.endswith(_AUXILIARY)}
        form = (
            'export one function as: extern "C" int NAME(...), or name one of another form: --entry'
        )
        verb = "exports"
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
