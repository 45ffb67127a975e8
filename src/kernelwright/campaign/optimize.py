"""`optimize`: from a problem to a winner with its evidence."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernelwright import suite
from kernelwright.build import Artifact, CppBuilder
from kernelwright.build.cache import user_cache_folder
from kernelwright.campaign.loop import Campaign
from kernelwright.campaign.request import CampaignRequest, Progress, Silent
from kernelwright.campaign.result import (
    Document,
    best_baseline,
    candidate_document,
    machine_document,
    rejected_by_stage,
    workload_document,
)
from kernelwright.deploy import measure_operator, write_winner
from kernelwright.errors import ArchiveError, MachineError, ProblemError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, Machine, Measured, content_hash
from kernelwright.problems import public_to_json
from kernelwright.report import write_report
from kernelwright.store import Archive


def open_builder(machine: Machine) -> CppBuilder:
    """The builder of this machine.

    Raises:
        MachineError: nothing can be built here.
    """
    builder = CppBuilder(machine.toolchains, user_cache_folder())
    missing = builder.available()
    if missing:
        raise MachineError(missing)
    return builder


def optimize(
    request: CampaignRequest,
    progress: Progress | None = None,
    settings: JudgeSettings | None = None,
) -> Document:
    """Search for a kernel, accept the best, write winner and report into the run folder.

    Args:
        request: what to optimise; an existing run folder is resumed.
        progress: told what happens.
        settings: how thorough the judge is.

    Returns:
        The document that `optimize --json` prints; also in `result.json` of the run folder.

    Raises:
        UserError: the problem, the machine or the run folder is not usable.
    """
    progress, started = progress or Silent(), time.monotonic()
    settings = settings or JudgeSettings()
    if request.baselines is not None:
        settings = replace(settings, baselines=request.baselines)
    progress.stage("looking at this machine")
    machine = probe()
    builder = open_builder(machine)
    with _open_archive(request, machine) as archive:
        archive.add_machine(machine)
        judge = Judge(
            request.reference, request.dtype, request.sizes, machine, builder,
            seed=None, settings=settings,
        )  # fmt: skip
        with judge.open(progress.stage):
            campaign = Campaign(request, machine, builder, judge, archive, progress)
            archive.add_event(
                "problem", public=public_to_json(judge.public), dtype=str(judge.dtype)
            )
            admit(judge, progress)
            campaign.prepare()
            document = _run(campaign, judge, archive, progress)
        document["seconds"] = round(time.monotonic() - started, 2)
        document["machine_facts"] = machine_document(machine)
        archive.add_event("result", **document)
    progress.stage("writing the report")
    document["report"] = str(write_report(request.folder))
    (request.folder / "result.json").write_text(json.dumps(document, indent=2) + "\n")
    return document


def admit(judge: Judge, progress: Progress) -> None:
    """Run the admission gate on a problem that is not shipped (those are tested).

    Raises:
        ProblemError: it is declared, and a wrong answer would pass or a sound one fail. Of a
            derived problem the findings are only told.
    """
    shipped = Path(suite.__file__).parent
    if Path(judge.reference.path).is_relative_to(shipped):
        return
    progress.stage("admitting the problem")
    findings = judge.admit()
    if findings and not judge.public.derived:
        raise ProblemError(f"the problem '{judge.public.name}' is not sound: {findings[0]}")
    for finding in findings:
        progress.note(f"take care: {finding}")


def _run(campaign: Campaign, judge: Judge, archive: Archive, progress: Progress) -> Document:
    accepted: tuple[Candidate, Measured] | None = None
    advice, searched = "", {}
    if campaign.standing.families:
        progress.stage("measuring baselines")
        campaign.baseline_us = judge.time_baselines()
        progress.stage("searching")
        before, began = len(campaign.standing.tried), time.monotonic()
        campaign.search()
        seconds = time.monotonic() - began
        searched = {
            "seconds": round(seconds, 2),
            "screened_per_minute": round(
                60 * (len(campaign.standing.tried) - before) / max(seconds, 1e-9), 1
            ),
        }
        accepted = campaign.accept()
        if accepted is None:
            advice = "no candidate was accepted: use the best baseline"
    else:
        advice = f"no generator or recipe matches: {judge.unmatched_reason or 'use a baseline'}"
        campaign.baseline_us = judge.time_baselines()
        progress.note(advice)
    archive.add_event("baselines", median_us=campaign.baseline_us)
    document: Document = {
        "problem": judge.public.name,
        "dtype": str(judge.dtype),
        "sizes": dict(judge.sizes),
        "machine": campaign.machine.name,
        "evaluations": len(campaign.standing.tried),
        "rejected": rejected_by_stage(campaign.standing.verdicts),
        "best": None,
        "workloads": [],
        "search": searched,
        "verified": judge.verified(),
        "derived": list(judge.public.derived),
    }
    if accepted is None:
        return document | _advice(advice, campaign.baseline_us)
    candidate, verdict = accepted
    built = campaign.builder.build(candidate)
    winner = write_winner(
        campaign.request.folder, candidate, judge.public, judge.dtype, campaign.request.reference,
        campaign.machine, library=built.path if isinstance(built, Artifact) else None,
        evidence=_evidence(verdict),
    )  # fmt: skip
    document["best"] = candidate_document(candidate, str(winner.source))
    document["operator"] = str(winner.operator)
    document["workloads"] = [workload_document(w) for w in verdict.workloads]
    progress.stage("measuring the operator inside torch")
    speed = measure_operator(
        campaign.request.folder, campaign.request.reference, judge.bench, campaign.machine
    )
    document["operator_speed"] = speed.document()
    fastest = best_baseline(verdict.workloads[0])
    if fastest is not None and fastest[1].high < 1:
        document |= _advice(f"the baseline '{fastest[0]}' is faster than the best kernel", {})
    return document


def _evidence(verdict: Measured) -> list[str]:
    result = verdict.workloads[0]
    fastest = best_baseline(result)
    if fastest is None:
        return []
    name, ratio = fastest
    return [
        f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] over '{name}', the best "
        f"baseline, on {result.workload.label()}: median {result.time_us.median:.1f} us."
    ]


def _advice(text: str, baselines: dict[str, float]) -> dict[str, Any]:
    document: dict[str, Any] = {"advice": text}
    if baselines:
        best = min(baselines, key=baselines.__getitem__)
        document |= {"best_baseline": best, "baseline_us": baselines}
    return document


def _open_archive(request: CampaignRequest, machine: Machine) -> Archive:
    """Create the run folder, or open the one that is there if it asks for the same.

    Raises:
        ArchiveError: the folder belongs to another request.
    """
    asked = _identity(request, machine)
    if not Archive.exists(request.folder):
        return Archive.create(request.folder, asked)
    archive = Archive.open(request.folder)
    before = archive.campaign
    for key in ("problem", "content", "dtype", "sizes", "machine"):
        if before.get(key) != asked[key]:
            archive.close()
            raise ArchiveError(
                f"the run folder '{request.folder}' is of another {key} "
                f"({before.get('problem')} {before.get('dtype') or ''} on "
                f"{before.get('machine')}): choose another --run"
            )
    return archive


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ProblemError(f"the problem file '{path}' cannot be read: {error.strerror}") from None


def _identity(request: CampaignRequest, machine: Machine) -> dict[str, Any]:
    dtype: Dtype | None = request.dtype
    return {
        "problem": f"{Path(request.reference.path).name}:{request.reference.function or ''}",
        "content": content_hash(_read(request.reference.path)),
        "machine": machine.name,
        "reference": request.reference.to_json(),
        "dtype": str(dtype) if dtype else None,
        "sizes": dict(request.sizes) if request.sizes is not None else None,
        "strategy": request.strategy,
        "proposers": list(request.proposers),
        "seed": request.seed,
        "evaluations": request.budget.evaluations,
        "minutes": request.budget.minutes,
    }
