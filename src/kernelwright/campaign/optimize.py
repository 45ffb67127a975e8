"""`optimize`: from a problem to a winner with its evidence."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernelwright import suite
from kernelwright.build import Artifact, Builders, builder_for
from kernelwright.build.cache import user_cache_folder
from kernelwright.campaign.diagnosing import profile_of
from kernelwright.campaign.folder import identity_of, open_run, writing
from kernelwright.campaign.loop import Campaign
from kernelwright.campaign.models import check_models, make_again
from kernelwright.campaign.request import CampaignRequest, Progress, Silent
from kernelwright.campaign.result import (
    Document,
    candidate_document,
    machine_document,
    profile_document,
    rejected_by_stage,
    trust_document,
    workload_document,
)
from kernelwright.campaign.standing import Leader
from kernelwright.deploy import measure_operator, write_source, write_winner
from kernelwright.errors import ArchiveError, HarnessError, MachineError, ProblemError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Candidate, Dtype, FrozenMap, Machine, Measured, Target
from kernelwright.problems import public_from_json, public_to_json
from kernelwright.propose import ProblemView
from kernelwright.report import write_report
from kernelwright.store import Archive, to_json


def open_builder(
    machine: Machine, target: Target = "cpu", languages: Iterable[str] = ()
) -> Builders:
    """The builders of this machine.

    Args:
        machine: has the compilers.
        target: where kernels will run.
        languages: that have to be built beside the target's own.

    Raises:
        MachineError: nothing can be built here for the target, or in a language.
    """
    builder = Builders(machine.toolchains, user_cache_folder())
    missing = builder.available()
    if missing is None and target == "cuda":
        if machine.gpu is None:
            why = machine.missing.get("gpu", "no NVIDIA GPU")
            raise MachineError(f"the target cuda cannot be used here: {why}")
        needed = dict.fromkeys(("cuda", *languages))
        builders = (builder_for(n, machine.toolchains, user_cache_folder()) for n in needed)
        missing = next(filter(None, (b.available() for b in builders)), None)
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
    models = check_models(request.models, request.proposers, request.limits)
    settings = settings or JudgeSettings()
    if request.baselines is not None:
        settings = replace(settings, baselines=request.baselines)
    progress.stage("looking at this machine")
    machine = probe()
    languages = [family.language for family in request.own]
    languages += [request.language] if request.language else []
    builder = open_builder(machine, request.target, languages)
    asked = identity_of(request, machine)
    if Archive.exists(request.folder):
        open_run(request.folder, asked).close()  # of another request? Then say so at once
    judge = Judge(
        request.reference, request.dtype, request.sizes, machine, builder,
        seed=None, settings=settings, target=request.target,
    )  # fmt: skip
    with judge.open(progress.stage):
        admit(judge, progress)  # before the run folder exists: a refused problem leaves none
        with open_run(request.folder, asked) as archive:
            archive.add_machine(machine)
            campaign = Campaign(request, machine, builder, judge, archive, progress, models)
            archive.add_event(
                "problem", public=public_to_json(judge.public), dtype=str(judge.dtype)
            )
            campaign.prepare()
            document = _run(campaign, judge, archive, progress)
            document["seconds"] = round(time.monotonic() - started, 2)
            document["machine_facts"] = machine_document(machine)
            archive.add_event("result", **document)
    progress.stage("writing the report")
    with writing(request.folder):
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
    accepted: tuple[Leader, Measured] | None = None
    advice, searched = "", {}
    if campaign.standing.families or campaign.models:
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
        "machine": campaign.machine.named(campaign.request.target),
        "evaluations": len(campaign.standing.tried),
        "rejected": rejected_by_stage(campaign.standing.verdicts),
        "best": None,
        "workloads": [],
        "search": searched,
        "verified": judge.verified(),
        "derived": list(judge.public.derived),
        "heldout_faults": list(judge.heldout_faults),
    }
    if campaign.rounds is not None:
        document["models"] = campaign.rounds.document(accepted[0].candidate if accepted else None)
    if accepted is None:
        return document | _advice(advice, campaign.baseline_us)
    leader, verdict = accepted
    document |= trust_document(
        verdict, document["verified"]["heldout"], _searched(leader, verdict, campaign.baseline_us)
    )
    document["workloads"] = [workload_document(w) for w in verdict.workloads]
    if campaign.request.profile:
        document["profile"] = _profiled(campaign, judge, leader, verdict, archive, progress)
    document |= _write(campaign, judge, (leader.candidate, verdict), progress)
    fastest = verdict.workloads[0].best_baseline
    if fastest is not None and fastest.speedup.high < 1:
        document |= _advice(f"the baseline '{fastest.name}' is faster than the best kernel", {})
    return document


def _profiled(
    campaign: Campaign,
    judge: Judge,
    leader: Leader,
    verdict: Measured,
    archive: Archive,
    progress: Progress,
) -> Document | None:
    """What limits the winner; also in the archive. None where it cannot be built again."""
    progress.stage("looking for what limits it")
    built = campaign.builder.build(leader.candidate)
    if not isinstance(built, Artifact):
        return None
    profile = profile_of(judge, leader.candidate, built, verdict.workloads[0])
    archive.add_event("profile", candidate=leader.candidate.identity, profile=to_json(profile))
    return profile_document(profile)


def _write(
    campaign: Campaign, judge: Judge, accepted: tuple[Candidate, Measured], progress: Progress
) -> Document:
    """Write the winner; but for Python also as an operator, which is measured on processors."""
    candidate, verdict = accepted
    folder, evidence = campaign.request.folder, _evidence(verdict)
    if candidate.language not in ("cpp", "cuda"):
        with writing(folder):
            path = write_source(folder, candidate, evidence)
        return {
            "best": candidate_document(candidate, str(path)),
            "operator": None,
            "operator_absent": f"the kernel is {candidate.language}: it is called as it stands",
        }
    built = campaign.builder.build(candidate)
    with writing(folder):
        winner = write_winner(
            folder, candidate, judge.public, judge.dtype, campaign.request.reference,
            campaign.machine, library=built.path if isinstance(built, Artifact) else None,
            evidence=evidence,
        )  # fmt: skip
    document: Document = {
        "best": candidate_document(candidate, str(winner.source)),
        "operator": str(winner.operator),
    }
    if candidate.language == "cuda":
        absent = "operators are measured on processors only"
        return {**document, "operator_speed": None, "operator_speed_absent": absent}
    progress.stage("measuring the operator inside torch")
    try:
        speed = measure_operator(folder, campaign.request.reference, judge.bench, campaign.machine)
    except HarnessError as error:  # the verdict stands, whatever its operator does
        return {**document, "operator_speed": None, "operator_speed_absent": str(error)}
    return {**document, "operator_speed": speed.document()}


def _searched(leader: Leader, verdict: Measured, baseline_us: Mapping[str, float]) -> float | None:
    """The winner's speed-up as the search saw it, over the baseline of the claim."""
    if verdict.claim is None or verdict.claim.baseline not in baseline_us:
        return None
    return baseline_us[verdict.claim.baseline] / leader.time_us


def _evidence(verdict: Measured) -> list[str]:
    result = verdict.workloads[0]
    fastest = result.best_baseline
    if fastest is None:
        return []
    name, ratio = fastest.name, fastest.speedup
    return [
        f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] over '{name}', the best "
        f"baseline, on {result.workload.label()}: median {result.time_us.median:.1f} us.",
        *verdict.warnings,
    ]


def _advice(text: str, baselines: dict[str, float]) -> dict[str, Any]:
    document: dict[str, Any] = {"advice": text}
    if baselines:
        best = min(baselines, key=baselines.__getitem__)
        document |= {"best_baseline": best, "baseline_us": baselines}
    return document


def replay(folder: Path) -> Document:
    """Make every request to a model again from a run folder alone, and compare.

    Returns:
        The document that `replay --json` prints: `identical`, and what differs.

    Raises:
        ArchiveError: the folder is no run folder, or no model was asked in it.
    """
    with Archive.open(folder, read_only=True) as archive:
        asked, machine = archive.events("problem"), archive.machine()
        if not archive.events("brief") or not asked or machine is None:
            raise ArchiveError(f"in the run folder '{folder}' no language model was asked")
        public = public_from_json(asked[-1].document["public"])
        campaign = archive.campaign
        brief = archive.events("brief")[0].document
        view = ProblemView(
            public.signature, None, Dtype(asked[-1].document["dtype"]),
            FrozenMap(brief["sizes"]), machine, target=brief["target"],
        )  # fmt: skip
        return make_again(archive, view, campaign["proposers"], campaign["seed"])
