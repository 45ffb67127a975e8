"""Run folders: opened for the request that they belong to; a full disk ends in one sentence."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernelwright.campaign.request import CampaignRequest
from kernelwright.errors import ArchiveError, ProblemError
from kernelwright.model import Dtype, Machine, content_hash
from kernelwright.store import Archive


@contextmanager
def writing(folder: Path) -> Generator[None]:
    """Turn what a full disk raises into one sentence.

    Raises:
        ArchiveError: a file of the run folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise ArchiveError(
            f"'{error.filename or folder}' cannot be written: {error.strerror or error}; all that "
            f"was measured is in the run folder '{folder}': give the same command when there is "
            "space"
        ) from None


def open_run(folder: Path, asked: dict[str, Any]) -> Archive:
    """Create the run folder, or open the one that is there if it asks for the same.

    Raises:
        ArchiveError: the folder belongs to another request.
    """
    if not Archive.exists(folder):
        return Archive.create(folder, asked)
    archive = Archive.open(folder)
    before = archive.campaign
    for key in ("problem", "content", "dtype", "sizes", "machine"):
        if before.get(key) != asked[key]:
            archive.close()
            raise ArchiveError(
                f"the run folder '{folder}' is of another {key} "
                f"({before.get('problem')} {before.get('dtype') or ''} on "
                f"{before.get('machine')}): choose another --run"
            )
    return archive


def identity_of(request: CampaignRequest, machine: Machine) -> dict[str, Any]:
    """What a run folder keeps of its request, and is held against when it is opened again."""
    dtype: Dtype | None = request.dtype
    return {
        "problem": f"{Path(request.reference.path).name}:{request.reference.function or ''}",
        "content": content_hash(_read(request.reference.path)),
        "machine": machine.named(request.target),
        "reference": request.reference.to_json(),
        "dtype": str(dtype) if dtype else None,
        "sizes": dict(request.sizes) if request.sizes is not None else None,
        "strategy": request.strategy,
        "proposers": list(request.proposers),
        "models": list(request.models),
        "seed": request.seed,
        "evaluations": request.budget.evaluations,
        "minutes": request.budget.minutes,
        **({"language": request.language} if request.language else {}),
    }


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ProblemError(f"the problem file '{path}' cannot be read: {error.strerror}") from None
