"""`submit`: one more kernel for a run folder, judged like every candidate of its campaign."""

from pathlib import Path

from kernelwright.campaign.folder import identity_of, open_run
from kernelwright.campaign.loop import Campaign, runs_on
from kernelwright.campaign.optimize import open_builder
from kernelwright.campaign.request import CampaignRequest, Progress, Silent
from kernelwright.campaign.result import Document, workload_document
from kernelwright.errors import ArchiveError, UserError
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.machine import probe
from kernelwright.model import Dtype, Family, FrozenMap, Machine, Rejected, Target
from kernelwright.problems import ProblemReference
from kernelwright.propose import settled
from kernelwright.store import Archive


def submit(
    folder: Path,
    family: Family,
    progress: Progress | None = None,
    settings: JudgeSettings | None = None,
) -> Document:
    """Judge a kernel at its default tunables beside the leader of a run, and keep the verdict.

    `optimize` on the same folder tunes it with the rest; nothing is accepted here.

    Args:
        folder: of a run on this machine that no process works on.
        family: the kernel.
        progress: told what happens.
        settings: how thorough the judge is.

    Returns:
        The document that `submit --json` prints.

    Raises:
        UserError: the folder, the kernel's declarations or the machine are not usable.
    """
    progress = progress or Silent()
    machine = probe()
    request = _request(folder, machine)
    if not runs_on(family, request.target):
        raise UserError(f"a kernel in {family.language} does not run on {request.target}, as the "
                        f"run '{folder}' does")  # fmt: skip
    builder = open_builder(machine, request.target, {family.language})
    judge = Judge(
        request.reference, request.dtype, request.sizes, machine, builder,
        seed=None, settings=settings or JudgeSettings(), target=request.target,
    )  # fmt: skip
    with open_run(folder, identity_of(request, machine)) as archive, judge.open(progress.stage):
        campaign = Campaign(request, machine, builder, judge, archive, progress)
        campaign.take_up(archive.families())
        before = campaign.standing.leader
        progress.stage("judging")
        family = settled(family, judge.public.signature, judge.dtype, judge.sizes)
        candidate = campaign.judge_family(family)
        archive.add_event("submitted", families=[family.identity])
        leader = campaign.standing.leader
        document: Document = {
            "problem": judge.public.name,
            "dtype": str(judge.dtype),
            "sizes": dict(judge.sizes),
            "machine": machine.named(request.target),
            "candidate": candidate.identity,
            "family": family.name,
            "tunables": dict(candidate.tunables),
            "leads": leader is not None and leader.candidate == candidate,
        }
        verdict = [v for c, v in archive.evidence() if c.identity == candidate.identity][-1]
        if isinstance(verdict, Rejected):
            return document | {
                "verdict": "rejected", "stage": str(verdict.stage), "reason": str(verdict.reason),
                "diagnostic": verdict.diagnostic,
            }  # fmt: skip
        own = next(item for item in campaign.standing.measured if item.candidate == candidate)
        return document | {
            "verdict": "measured",
            "workloads": [workload_document(result) for result in verdict.workloads],
            "speedup_over_leader": before.value / own.value if before else None,
        }


def _request(folder: Path, machine: Machine) -> CampaignRequest:
    """What the run was asked.

    Raises:
        ArchiveError: it is no campaign of this machine.
    """
    with Archive.open(folder, read_only=True) as archive:
        asked = archive.campaign
    if not asked.get("reference"):
        raise ArchiveError(f"'{folder}' is no run folder of `optimize`")
    targets: tuple[Target, ...] = ("cuda", "cpu") if machine.gpu else ("cpu",)
    found: list[Target] = [
        target for target in targets if machine.named(target) == asked["machine"]
    ]
    if not found:
        raise ArchiveError(f"the run '{folder}' is of the machine {asked['machine']}, not of this")
    sizes = asked["sizes"]
    return CampaignRequest(
        reference=ProblemReference.from_json(asked["reference"]),
        folder=folder,
        dtype=Dtype(asked["dtype"]) if asked["dtype"] else None,
        sizes=None if sizes is None else FrozenMap(sizes),
        strategy=asked["strategy"],
        proposers=(),
        seed=asked["seed"],
        target=found[0],
        language=asked.get("language"),
    )
