"""Taking the verdicts of a bundle into its run folder.

The file of results comes from another machine and is read as if somebody hostile had written it:
everything is decoded by declared types and held against what was packed, and one thing that does
not fit refuses the whole file. What cannot be known here is whether that machine's owner measured
what the file says: digests show accidents, not who made a file.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from kernelwright.campaign.result import (
    Document,
    candidate_document,
    machine_document,
    rejected_by_stage,
    trust_document,
    workload_document,
)
from kernelwright.errors import ArchiveError, UserError
from kernelwright.evaluation.bundled import FORMAT, RESULTS, results_digest
from kernelwright.model import (
    Bound,
    Candidate,
    Estimate,
    Machine,
    Measured,
    Peer,
    Reason,
    Rejected,
    Verdict,
    Workload,
)
from kernelwright.model.records import from_json
from kernelwright.store import Archive

_MOST_BYTES = 256 << 20
_LONGEST_DIAGNOSTIC = 1 << 17
_SAFE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
_NOT_JUDGED = (Reason.TOOLCHAIN_MISSING,)
"""Reasons that tell of the machine and nothing of the kernel."""
_KEYS = ("candidate", "verdict", "heldout")
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Row:
    """One verdict that fits."""

    candidate: Candidate
    verdict: Verdict
    heldout: int
    """Held-out sizes at which it was checked."""

    @property
    def time_us(self) -> float:
        """Median at the bench sizes; infinite for a rejection."""
        if isinstance(self.verdict, Rejected):
            return math.inf
        return self.verdict.workloads[0].time_us.median


def import_results(path: Path, run: Path) -> Document:
    """Take verdicts into the run folder that their bundle was packed with.

    Args:
        path: the file of results, or the bundle that has it.
        run: the run folder.

    Returns:
        The document that `bundle --import --json` prints.

    Raises:
        UserError: it does not fit: another bundle, problem, size or type, an altered file, numbers
            that no judge says, or results that are here already.
    """
    file = path / RESULTS if path.is_dir() else path
    with Archive.open(run) as archive:
        document = _read(file)
        asked = archive.campaign
        if "bundle" not in asked:
            raise UserError(f"'{run}' is no run folder of a bundle: it was searched in here")
        _check_origin(file, document, asked)
        machine = _machine(file, document["machine"], asked["target"])
        rows = list(_rows(file, document["verdicts"], archive, asked))
        _check_earlier(run, archive, document["digest"])
        result = _result(archive, asked, machine, rows)
        archive.add_machine(machine)
        for row in rows:
            if row.candidate.identity not in {v.candidate for v in archive.verdicts()}:
                archive.add_verdict(row.candidate, row.verdict)
        archive.add_event("result", **result)
        archive.add_event("imported", digest=document["digest"], written=document.get("written"))
    return result | {"run": str(run)}


def _read(file: Path) -> Document:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise UserError(f"'{file}' is larger than any results are")
        loaded: Any = json.loads(file.read_text())
        document: Document = dict(loaded)
        if document["format"] != FORMAT:
            raise UserError(f"'{file}' holds results of another format")
        if document["digest"] != results_digest(document):
            raise UserError(f"'{file}' was altered after it was written")
        return document
    except FileNotFoundError:
        raise UserError(f"there are no results '{file}': run evaluate.py of the bundle") from None
    except OSError as error:
        raise UserError(f"'{file}' cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"'{file}' holds no results: {type(error).__name__}: {error}") from None


def _check_origin(file: Path, document: Document, asked: Document) -> None:
    """The same bundle, problem, sizes and types as were packed."""
    if document.get("manifest") != asked["bundle"]:
        raise UserError(f"'{file}' is about another bundle than this run folder")
    for key, name in (("content", "problem"), ("dtype", "dtype"), ("sizes", "sizes"),
                      ("target", "target")):  # fmt: skip
        if document.get(name) != asked[key]:
            raise UserError(f"'{file}' is about another {name} than was packed")
    if not isinstance(document.get("verdicts"), list) or "machine" not in document:
        raise UserError(f"'{file}' lacks its verdicts or its machine")


def _check_earlier(run: Path, archive: Archive, digest: str) -> None:
    machine = archive.machine()
    if digest in [event.document["digest"] for event in archive.events("imported")]:
        raise UserError(f"these results are in '{run}' already")
    if archive.events("imported"):
        on = machine.named(archive.campaign["target"]) if machine else "another machine"
        raise UserError(f"'{run}' has results already, of {on}: pack the bundle again for others")


def _decoded(file: Path, what: str, data: Any, kind: type[Record]) -> Record:
    try:
        return from_json(data, kind)
    except ArchiveError as error:
        raise UserError(f"'{file}': {what} cannot be read: {error}") from None
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"'{file}': {what} cannot be read: {type(error).__name__}: {error}"
        ) from None


def _machine(file: Path, data: Any, target: str) -> Machine:
    machine = _decoded(file, "the machine", data, Machine)
    named = machine.named("cuda" if target == "cuda" else "cpu")
    if not _SAFE_NAME.fullmatch(machine.name) or not _SAFE_NAME.fullmatch(named):
        raise UserError(f"'{file}': the machine has no plain name")
    if machine.isolation not in ("sandbox", "process"):
        raise UserError(f"'{file}': the machine's isolation is neither sandbox nor process")
    if not _is_sane(machine):
        raise UserError(f"'{file}': the machine has rates that no machine has")
    if target == "cuda" and machine.gpu is None:
        raise UserError(f"'{file}': kernels for a GPU were judged on a machine without one")
    return machine


def _rows(file: Path, data: list[Document], archive: Archive, asked: Document) -> Iterator[Row]:
    known = archive.candidates()
    for number, row in enumerate(data, start=1):
        what = f"verdict {number}"
        if not isinstance(row, dict) or set(_KEYS) - set(row):  # pyright: ignore
            raise UserError(f"'{file}': {what} is damaged")
        identity, judged, heldout = (row[key] for key in _KEYS)
        candidate = known.pop(str(identity), None)
        if candidate is None:
            raise UserError(f"'{file}': {what} is of a kernel that was not packed, or a second one")
        verdict = _decoded(file, what, judged, cast(type[Verdict], Measured | Rejected))
        wrong = _misfit(verdict, archive, asked)
        if wrong or not isinstance(heldout, int):
            raise UserError(f"'{file}': {what} {wrong or 'is damaged'}")
        if isinstance(verdict, Rejected) and verdict.reason in _NOT_JUDGED:
            continue
        yield Row(candidate, verdict, heldout)


def _misfit(verdict: Verdict, archive: Archive, asked: Document) -> str:
    """What no judge of this bundle says; empty where it may be true."""
    if isinstance(verdict, Rejected):
        long = len(verdict.diagnostic) > _LONGEST_DIAGNOSTIC
        return "has an endless diagnostic" if long else ""
    if not verdict.accepted or not verdict.workloads:
        return "is no acceptance"
    first = verdict.workloads[0].workload
    problem = archive.events("problem")[-1].document["public"]["name"]
    if first.tier != "bench" or dict(first.sizes) != asked["sizes"]:
        return "was not measured at the sizes that were packed"
    for result in verdict.workloads:
        if result.workload.problem != problem or str(result.workload.dtype) != asked["dtype"]:
            return "is of another problem or type"
        if not 0 <= result.error <= 1 or result.rounds < 1:
            return "has an error that no right kernel has, or no rounds"
    return "" if _is_sane(verdict) else "has numbers that no clock says"


def _is_sane(value: Any) -> bool:
    """Whether every number in a record is finite and not negative, and every interval is one.

    Errors of baselines may have no bound, and scalars of a workload are what the problem says.
    """
    if isinstance(value, Estimate) and not 0 < value.low <= value.median <= value.high:
        return False
    if isinstance(value, Bound) and not (value.median_us > 0 and value.roof_rate > 0):
        return False
    if isinstance(value, int | float):
        return math.isfinite(value) and value >= 0
    if isinstance(value, Mapping):
        return all(map(_is_sane, cast(Mapping[str, Any], value).values()))
    if isinstance(value, tuple):
        return all(map(_is_sane, cast(tuple[Any, ...], value)))
    if isinstance(value, Workload) or not is_dataclass(value):
        return True
    exempt = ("error",) if isinstance(value, Peer) else ()
    return all(_is_sane(getattr(value, f.name)) for f in fields(value) if f.name not in exempt)


def _result(archive: Archive, asked: Document, machine: Machine, rows: list[Row]) -> Document:
    """As `optimize` describes a campaign, with a line for each candidate."""
    best = min(rows, key=lambda row: row.time_us, default=None)
    judged = {row.candidate.identity for row in rows}
    missing = [c.identity for c in archive.candidates().values() if c.identity not in judged]
    document: Document = {
        "problem": archive.events("problem")[-1].document["public"]["name"],
        "dtype": asked["dtype"],
        "sizes": asked["sizes"],
        "machine": machine.named(asked["target"]),
        "isolation": machine.isolation,
        "machine_facts": machine_document(machine),
        "evaluations": len(rows),
        "rejected": rejected_by_stage(row.verdict for row in rows),
        "not_judged": missing,
        "candidates": [_line(row) for row in rows],
        "best": None,
        "workloads": [],
    }
    if best is None or isinstance(best.verdict, Rejected):
        return document
    return document | {
        "best": candidate_document(best.candidate, None),
        "workloads": [workload_document(result) for result in best.verdict.workloads],
        **trust_document(best.verdict, best.heldout),
    }


def _line(row: Row) -> Document:
    verdict = row.verdict
    line: Document = {"candidate": row.candidate.identity, "family": row.candidate.family}
    if isinstance(verdict, Rejected):
        reason = {"stage": str(verdict.stage), "reason": str(verdict.reason)}
        return line | {"verdict": "rejected", **reason, "diagnostic": verdict.diagnostic}
    bench = verdict.workloads[0]
    fastest = bench.best_baseline
    return line | {
        "verdict": "measured",
        "median_us": bench.time_us.median,
        "ci_us": [bench.time_us.low, bench.time_us.high],
        "fraction_of_bound": bench.fraction_of_bound,
        "best_baseline": fastest.name if fastest else None,
        "speedup": fastest.speedup.median if fastest else None,
        "speedup_ci": [fastest.speedup.low, fastest.speedup.high] if fastest else None,
    }
