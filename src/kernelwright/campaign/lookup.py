"""What is known already: recipes, moves, the attempts of a run and what became of them."""

from importlib.resources import files
from pathlib import Path

from kernelwright.campaign.result import Document, profile_document
from kernelwright.diagnosis.moves import moves_against
from kernelwright.errors import UserError
from kernelwright.model import Limit, Profile, Rejected, Target
from kernelwright.store import Archive, from_json

_SUFFIXES = (".hpp", ".cu")


def recipes(name: str | None = None) -> Document:
    """Names of the expert kernels, with what their first comment says; or the source of one.

    Raises:
        UserError: there is none of that name.
    """
    folder = files("kernelwright.recipes")
    places = (folder, folder / "cuda")
    found = {
        item.name: item.read_text()
        for place in places
        for item in place.iterdir()
        if item.name.endswith(_SUFFIXES)
    }
    if name is None:
        return {"recipes": sorted(found)}
    if name not in found:
        raise UserError(f"there is no recipe '{name}': choose from {', '.join(sorted(found))}")
    return {"name": name, "source": found[name]}


def moves(limit: str | None = None, target: Target = "cpu") -> Document:
    """What usually helps against a limit that `profile` names, or against each of them.

    Raises:
        UserError: there is no such limit.
    """
    known = [str(item) for item in Limit]
    if limit is not None and limit not in known:
        raise UserError(f"there is no limit '{limit}': choose from {', '.join(known)}")
    chosen = known if limit is None else [limit]
    found = {name: list(moves_against(Limit(name), target)) for name in chosen}
    return {"target": target, "moves": {name: some for name, some in found.items() if some}}


def attempts(run: Path, most: int = 40) -> Document:
    """What a campaign tried, newest last: candidate, family, tunables, time or rejection.

    Raises:
        ArchiveError: it is no run folder.
    """
    with Archive.open(run, read_only=True) as archive:
        rows: list[Document] = []
        for candidate, verdict in archive.evidence()[-most:]:
            row: Document = {
                "candidate": candidate.identity[:16], "family": candidate.family,
                "proposer": candidate.lineage.proposer, "tunables": dict(candidate.tunables),
            }  # fmt: skip
            if isinstance(verdict, Rejected):
                row |= {"stage": str(verdict.stage), "reason": str(verdict.reason)}
            elif verdict.workloads:
                row["median_us"] = verdict.workloads[0].time_us.median
            rows.append(row)
        return {"problem": archive.campaign.get("problem"), "attempts": rows}


def explained(run: Path, candidate: str) -> Document:
    """Why a candidate was rejected, or what it reached and what limits it; with its source.

    Args:
        run: the run folder.
        candidate: the beginning of its identity.

    Raises:
        ArchiveError: it is no run folder, or holds no such candidate.
    """
    with Archive.open(run, read_only=True) as archive:
        found = archive.candidate(candidate)
        verdict = [v for c, v in archive.evidence() if c.identity == found.identity][-1]
        document: Document = {
            "candidate": found.identity, "family": found.family, "language": found.language,
            "source": found.source, "tunables": dict(found.tunables), "idea": found.lineage.note,
        }  # fmt: skip
        if isinstance(verdict, Rejected):
            return document | {
                "verdict": "rejected", "stage": str(verdict.stage), "reason": str(verdict.reason),
                "diagnostic": verdict.diagnostic,
            }  # fmt: skip
        first = verdict.workloads[0] if verdict.workloads else None
        profiles = [
            from_json(event.document["profile"], Profile)
            for event in archive.events("profile")
            if event.document["candidate"] == found.identity
        ]
        return document | {
            "verdict": "measured",
            "median_us": first.time_us.median if first else None,
            "fraction_of_bound": first.fraction_of_bound if first else None,
            "profile": profile_document(profiles[-1]) if profiles else None,
        }
