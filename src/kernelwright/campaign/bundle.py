"""Packing bundles: candidates that a machine without network judges with torch alone.

A bundle is a folder: problem, candidates, Kernelwright's own source, the packages that judging
needs beside torch, and `evaluate.py`. Its verdicts have a run folder of their own, because a run
folder is of one machine; it is made here and knows the bundle by the digest of its manifest.
"""

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from sysconfig import get_config_var
from typing import Any
from zipfile import BadZipFile, ZipFile

from kernelwright.campaign.standing import bind
from kernelwright.errors import ArchiveError, UserError
from kernelwright.evaluation.bundled import FORMAT, MANIFEST, file_digest, listed_files, read_bundle
from kernelwright.evaluation.public import read_public
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    FrozenMap,
    PublicProblem,
    Rejected,
    Target,
    content_hash,
    language_target,
)
from kernelwright.problems import ProblemReference, public_to_json
from kernelwright.propose import settled
from kernelwright.space import parse_declarations
from kernelwright.store import Archive, to_json

_PURE = ("jaxtyping", "wadler-lindig", "cloudpickle")
"""What judging needs beside torch and what torch brings, in pure Python."""
_WHEEL = re.compile(r"numpy-.*-cp(3\d+)-cp\1-manylinux.*_(x86_64|aarch64)\.whl")
_PROGRAM = Path(__file__).with_name("bundle_program.py")


@dataclass(frozen=True, slots=True)
class Work:
    """What a bundle is about."""

    reference: ProblemReference
    public: PublicProblem
    candidates: tuple[Candidate, ...]
    dtype: Dtype
    sizes: FrozenMap[str, int]
    target: Target
    baselines: tuple[str, ...] | None = None
    """Names of those to run there; None: all."""


def work_of_run(archive: Archive, best: int, baselines: tuple[str, ...] | None = None) -> Work:
    """The best measured candidates of a run.

    Args:
        archive: of the run.
        best: most candidates.
        baselines: names of those to run there; None: all.

    Raises:
        UserError: it has measured none, or its problem has changed.
    """
    asked, known = archive.campaign, archive.candidates()
    values: dict[str, float] = {}
    for stored in archive.verdicts():
        if isinstance(stored.verdict, Rejected):
            values.pop(stored.candidate, None)
        elif stored.value is not None:
            values[stored.candidate] = stored.value
    chosen = sorted(values, key=values.__getitem__)[:best]
    if not chosen:
        raise UserError(f"nothing was measured in '{archive.folder}': there is nothing to bundle")
    reference = ProblemReference.from_json(asked["reference"])
    if content_of(reference) != asked["content"]:
        raise UserError(f"'{reference.path}' has changed since '{archive.folder}' was made")
    candidates = tuple(known[identity] for identity in chosen)
    dtype = Dtype(asked["dtype"]) if asked["dtype"] else None
    target = language_target(candidates[0].language)
    public, bench = read_public(reference, dtype, asked["sizes"], target)
    return Work(reference, public, candidates, bench.dtype, bench.sizes, target, baselines)


def work_of_kernels(
    reference: ProblemReference,
    families: Sequence[Family],
    dtype: Dtype | None,
    sizes: FrozenMap[str, int] | None,
    baselines: tuple[str, ...] | None = None,
) -> Work:
    """Kernel files at their declared defaults.

    Raises:
        UserError: they run on different targets, or a declaration cannot be read.
    """
    if len({language_target(family.language) for family in families}) != 1:
        raise UserError("a bundle holds kernels of one target: for processors or for a GPU")
    target = language_target(families[0].language)
    public, bench = read_public(reference, dtype, sizes, target)
    candidates: dict[str, Candidate] = {}
    for family in families:
        whole = settled(family, public.signature, bench.dtype, bench.sizes)
        defaults = {t.name: t.default for t in parse_declarations(whole.source).tunables}
        candidate = bind(whole, FrozenMap(defaults))
        candidates.setdefault(candidate.identity, candidate)
    chosen = tuple(candidates.values())
    return Work(reference, public, chosen, bench.dtype, bench.sizes, target, baselines)


def check_free(folder: Path, run: Path) -> None:
    """See that a bundle and its run folder can be made.

    Raises:
        UserError: one of them is in use.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"'{folder}' is there already: name a new folder")
    if Archive.exists(run):
        raise ArchiveError(f"the run folder '{run}' holds an archive already: name a new one")


def write_bundle(folder: Path, work: Work, run: Path, numpy: Path | None = None) -> None:
    """Pack a folder, and make the run folder that takes its verdicts.

    Args:
        folder: must not exist, or be empty.
        work: what is judged.
        run: must not hold a run.
        numpy: a wheel for the Python there; None: what is installed here.

    Raises:
        UserError: a folder is in use, or a package that judging needs is not installed.
    """
    check_free(folder, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_files(folder, work, numpy)
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written: {error.strerror or error}") from None
    bundle = read_bundle(folder)
    asked = {
        "problem": f"{Path(work.reference.path).name}:{work.reference.function or ''}",
        "content": content_of(work.reference),
        "reference": work.reference.to_json(),
        "machine": None,
        "dtype": str(work.dtype),
        "sizes": dict(work.sizes),
        "target": work.target,
        "bundle": bundle.digest,
    }
    with Archive.create(run, asked) as archive:
        archive.add_event("problem", public=public_to_json(work.public), dtype=str(work.dtype))
        for candidate in bundle.candidates:
            archive.add_candidate(candidate)


def content_of(reference: ProblemReference) -> str:
    """Hash of a problem's file, as run folders have it."""
    try:
        return content_hash(Path(reference.path).read_bytes())
    except OSError as error:
        raise UserError(
            f"the problem '{reference.path}' cannot be read: {error.strerror}"
        ) from None


def _write_files(folder: Path, work: Work, numpy: Path | None) -> None:
    package = Path(__file__).parents[1]
    shutil.copytree(
        package, folder / "source" / "kernelwright",
        ignore=shutil.ignore_patterns("__pycache__", "corpus"),
    )  # fmt: skip
    for name in _PURE:
        _copy_distribution(name, folder / "packages")
    if numpy is None:
        _copy_distribution("numpy", folder / "compiled" / str(get_config_var("SOABI")))
    else:
        _unpack_numpy(numpy, folder / "compiled")
    shutil.copyfile(_PROGRAM, folder / "evaluate.py")
    problem = Path(work.reference.path)
    if problem.is_relative_to(package):
        file = Path("source", "kernelwright", problem.relative_to(package))
    else:
        file = Path("problem", problem.name)
        (folder / "problem").mkdir()
        shutil.copyfile(problem, folder / file)
    (folder / "candidates").mkdir()
    names: list[str] = []
    for number, candidate in enumerate(work.candidates, start=1):
        names.append(f"candidates/{number}-{candidate.identity[:12]}.json")
        (folder / names[-1]).write_text(json.dumps(to_json(candidate), indent=1) + "\n")
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "problem": {"file": str(file), "function": work.reference.function},
        "dtype": str(work.dtype),
        "sizes": dict(work.sizes),
        "target": work.target,
        "baselines": None if work.baselines is None else list(work.baselines),
        "candidates": names,
        "files": {name: file_digest(folder / name) for name in listed_files(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _unpack_numpy(wheel: Path, into: Path) -> None:
    """Numpy is compiled: for one version of Python, and used there only where there is none."""
    fits = _WHEEL.fullmatch(wheel.name)
    if fits is None:
        raise UserError(f"'{wheel}' is no wheel of numpy for Linux, numpy-...-cp312-cp312-....whl")
    try:
        with ZipFile(wheel) as file:
            file.extractall(into / f"cpython-{fits[1]}-{fits[2]}-linux-gnu")
    except (OSError, BadZipFile) as error:
        raise UserError(f"the wheel '{wheel}' cannot be read: {error}") from None


def _copy_distribution(name: str, into: Path) -> None:
    """An installed package as it was installed, with its licence, without its tests."""
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise UserError(f"a bundle needs the package {name}: pip install {name}") from None
    for path in _needed(distribution.files or ()):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(path.locate()), target)


def _needed(files: Iterable[metadata.PackagePath]) -> Iterable[metadata.PackagePath]:
    for path in files:
        left_out = {"..", "__pycache__", "tests"} & set(path.parts)
        if not left_out and path.suffix not in (".pyi", ".a", ".h"):
            yield path
