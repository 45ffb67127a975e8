"""`propose`: the model here, the device elsewhere; bundles go there and verdicts come back.

Each step takes in the verdicts of the last bundle, lets the loops of models propose, and packs new
kernels and variants of earlier ones. All of it is in one run folder, which replays as others do.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kernelwright.agents import Brief, Desk
from kernelwright.campaign.bundle import Work, check_free, content_of, write_bundle
from kernelwright.campaign.bundle_import import import_results
from kernelwright.campaign.exchanges import add_brief
from kernelwright.campaign.models import check_models, open_rounds, shelf_of
from kernelwright.campaign.request import Progress, Silent
from kernelwright.campaign.result import Document
from kernelwright.campaign.standing import bind
from kernelwright.errors import ArchiveError, CandidateError, UserError
from kernelwright.evaluation.public import read_public
from kernelwright.llm import Ledger, Limits
from kernelwright.machine import probe
from kernelwright.model import (
    Candidate,
    Dtype,
    Family,
    FrozenMap,
    Machine,
    Measured,
    PublicProblem,
    Rejected,
    Target,
    Verdict,
    Workload,
)
from kernelwright.problems import ProblemReference, public_to_json
from kernelwright.propose import ProblemView, settled
from kernelwright.search import FamilyView, Request, Tried, View, strategy_named
from kernelwright.space import Space
from kernelwright.store import Archive

_UNKNOWN = "not known yet: the first verdicts will tell; write for any of its kind"
_YARDSTICK = "eager"
"""The baseline that kernels of different bundles are compared by."""


@dataclass(frozen=True, slots=True)
class FarRequest:
    """One step of a campaign whose device is elsewhere."""

    run: Path
    """The run folder; an existing one goes on, and says what is not said here."""
    bundle: Path
    """The folder to pack."""
    reference: ProblemReference | None = None
    dtype: Dtype | None = None
    sizes: FrozenMap[str, int] | None = None
    target: Target = "cuda"
    results: Path | None = None
    """What the last bundle's `evaluate.py` wrote; None: it was imported already."""
    own: tuple[Family, ...] = ()
    """Kernels to begin with."""
    proposers: tuple[str, ...] = ("refine",)
    models: tuple[str, ...] = ()
    """Empty: those of the step before."""
    limits: Limits = field(default_factory=Limits)
    """Of all steps together."""
    kernels: int = 6
    """Most candidates of a bundle."""
    minutes: float = 10.0
    """Longest wait for models."""
    seed: int = 0
    baselines: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Far:
    """What a step works with."""

    archive: Archive
    asked: Mapping[str, Any]
    public: PublicProblem
    bench: Workload
    machine: Machine | None
    """The other one; None before it has answered."""

    @property
    def target(self) -> Target:
        """Where kernels run."""
        return self.asked["target"]


def propose(request: FarRequest, progress: Progress | None = None) -> Document:
    """Take verdicts in, ask the models, pack the next bundle.

    Returns:
        The document that `propose --json` prints.

    Raises:
        UserError: the verdicts of the last bundle are missing or do not fit, nothing is left to
            try, or the problem, a model or a folder is not usable.
    """
    progress, run = progress or Silent(), request.run
    if Archive.exists(run):
        _take(run, request.results)
    archive = _opened(request)
    with archive:
        asked = archive.campaign
        number = len(archive.events("packed")) + 1
        packed = run / f"bundle-{number}"
        check_free(request.bundle, packed)
        reference = ProblemReference.from_json(asked["reference"])
        public, bench = read_public(
            reference, Dtype(asked["dtype"]), asked["sizes"], asked["target"]
        )
        far = _Far(archive, asked, public, bench, archive.machine())
        for own in request.own:
            archive.add_family(settled(own, public.signature, bench.dtype, bench.sizes))
        models = _proposed(far, request, progress)
        chosen = _chosen(far, request, progress)
        if not chosen:
            raise UserError(f"nothing is left to try in '{run}': the models propose no more")
        progress.stage("packing")
        work = Work(reference, public, chosen, bench.dtype, bench.sizes, far.target,
                    request.baselines)  # fmt: skip
        write_bundle(request.bundle, work, packed)
        archive.add_event("packed", number=number, bundle=str(request.bundle), run=str(packed))
        return {
            "problem": public.name, "dtype": str(bench.dtype), "sizes": dict(bench.sizes),
            "target": far.target, "step": number, "run": str(run), "bundle": str(request.bundle),
            "machine": far.machine.named(far.target) if far.machine else None,
            "best": _best(archive),
            "candidates": [
                {"candidate": c.identity, "family": c.family, "tunables": dict(c.tunables)}
                for c in chosen
            ],
            "models": models,
        }  # fmt: skip


def _opened(request: FarRequest) -> Archive:
    """The run folder, made where there is none."""
    if Archive.exists(request.run):
        archive = Archive.open(request.run)
        if not archive.campaign.get("far"):
            archive.close()
            raise ArchiveError(f"'{request.run}' is no run of `propose`: choose another --run")
        return archive
    if request.reference is None:
        raise UserError("say what is to be computed: kernelwright propose PROBLEM ...")
    reference = request.reference
    public, bench = read_public(reference, request.dtype, request.sizes, request.target)
    asked = {
        "far": True,
        "problem": f"{Path(reference.path).name}:{reference.function or ''}",
        "content": content_of(reference),
        "reference": reference.to_json(),
        "machine": None,
        "target": request.target,
        "dtype": str(bench.dtype),
        "sizes": dict(bench.sizes),
        "proposers": list(request.proposers),
        "models": list(request.models),
        "seed": request.seed,
    }
    archive = Archive.create(request.run, asked)
    archive.add_event("problem", public=public_to_json(public), dtype=str(bench.dtype))
    return archive


# Verdicts


def _take(run: Path, results: Path | None) -> None:
    """The verdicts of the last bundle, if they were not taken before.

    Raises:
        UserError: they are not here, do not fit, or are of another machine than those before.
    """
    with Archive.open(run) as archive:
        packed, taken = archive.events("packed"), archive.events("taken")
        if len(packed) == len(taken):
            return
        last = packed[-1].document
        if results is not None:
            import_results(results, Path(last["run"]))
        with Archive.open(Path(last["run"]), read_only=True) as far:
            if not far.events("imported"):
                raise UserError(
                    f"the verdicts of '{last['bundle']}' are missing: run its evaluate.py there, "
                    "and add --results results.json"
                )
            _take_over(archive, far)
        archive.add_event("taken", number=last["number"])


def _take_over(archive: Archive, far: Archive) -> None:
    machine, before = far.machine(), archive.machine()
    target = archive.campaign["target"]
    if machine is None:
        raise UserError(f"'{far.folder}' does not say which machine judged")
    if before is None:
        archive.add_machine(machine)
    elif before.named(target) != machine.named(target):
        raise UserError(f"these verdicts are of {machine.named(target)}, those before of "
                        f"{before.named(target)}: times do not compare")  # fmt: skip
    candidates = far.candidates()
    for stored in far.verdicts():
        value = _value(stored.verdict)
        archive.add_verdict(candidates[stored.candidate], stored.verdict, value)


def _value(verdict: Verdict) -> float | None:
    """Time over the yardstick's, from the same rounds; None where that did not run."""
    if isinstance(verdict, Rejected) or not verdict.workloads:
        return None
    peers = {peer.name: peer.speedup.median for peer in verdict.workloads[0].peers}
    return 1 / peers[_YARDSTICK] if _YARDSTICK in peers else None


def _latest(archive: Archive) -> Measured | None:
    measured = [v.verdict for v in archive.verdicts() if isinstance(v.verdict, Measured)]
    return measured[-1] if measured else None


def _best(archive: Archive) -> Document | None:
    """The fastest so far, by its speed-up over the yardstick."""
    values = {v.candidate: v.value for v in archive.verdicts() if v.value is not None}
    if not values:
        return None
    best = min(values, key=values.__getitem__)
    candidate = archive.candidates()[best]
    return {"candidate": best, "family": candidate.family, "tunables": dict(candidate.tunables),
            "speedup": {_YARDSTICK: 1 / values[best]}}  # fmt: skip


# Proposals


def _proposed(far: _Far, request: FarRequest, progress: Progress) -> Document | None:
    """Ask the loops once, unless families of an interrupted step wait to be packed."""
    archive, asked = far.archive, far.asked
    names = request.models or tuple(asked["models"])
    models = check_models(names, asked["proposers"], request.limits)
    view = ProblemView(far.public.signature, None, far.bench.dtype, far.bench.sizes,
                       far.machine or probe(), target=far.target)  # fmt: skip
    add_brief(archive, _brief(far, view), again=True)
    deadline = time.monotonic() + 60 * request.minutes
    ledger = Ledger(request.limits)
    rounds = open_rounds(
        archive, view, asked["proposers"],
        lambda journal: Desk(models, ledger, journal, deadline), asked["seed"], None,
    )  # fmt: skip
    if not _untried(archive):
        progress.stage("asking the models")
        for family in rounds.wait(deadline):
            progress.note(f"proposed: {family.name}")
        for loop in rounds.loops:
            if loop.finished:
                progress.note(f"{loop.name} has ended: {loop.finished}")
    rounds.close()
    return rounds.document(None)


def _brief(far: _Far, view: ProblemView) -> Brief:
    verdict = _latest(far.archive)
    result = verdict.workloads[0] if verdict and verdict.workloads else None
    baseline_us = {peer.name: peer.time_us.median for peer in result.peers} if result else {}
    shelf = shelf_of(far.archive.families() if far.machine is None else (), far.target)
    brief = Brief.of(far.public, view, baseline_us, shelf, result.bound if result else None)
    if far.machine is None:
        compilers = ("nvcc",) if far.target == "cuda" else ("g++",)
        return replace(brief, machine=(_UNKNOWN,), compilers=compilers)
    return brief


def _untried(archive: Archive) -> list[Family]:
    known = {c.source for c in archive.candidates().values()}
    return [family for family in archive.families() if family.source not in known]


def _chosen(far: _Far, request: FarRequest, progress: Progress) -> tuple[Candidate, ...]:
    """New families at their defaults first, then what the strategy would try next."""
    families: dict[str, Family] = {}
    views: list[FamilyView] = []
    for family in far.archive.families():
        try:
            space = _space(far, family)
        except CandidateError as error:
            progress.note(f"{family.name} is left out: {error}")
            continue
        families[family.identity] = family
        views.append(FamilyView.of(family, space))
    strategy, tried = strategy_named("default", far.asked["seed"]), list[Tried]()
    candidates = far.archive.candidates()
    for stored in far.archive.verdicts():
        candidate = candidates[stored.candidate]
        identity = Family(candidate.family, candidate.language, candidate.entry, candidate.source,
                          candidate.lineage).identity  # fmt: skip
        outcome = stored.verdict if isinstance(stored.verdict, Rejected) else stored.value
        if identity in families and outcome is not None:
            wanted = Request(identity, candidate.tunables)
            tried.append(Tried(wanted, outcome))
            strategy.tell(wanted, stored.verdict, stored.value)
    new = {family.identity for family in _untried(far.archive)}
    requests = [Request(v.identity, v.space.default()) for v in views if v.identity in new]
    requests = requests[: request.kernels]
    left = request.kernels - len(requests)
    if left > 0 and tried:
        asked = strategy.ask(View(tuple(views), tuple(tried), 2 * request.kernels), 2 * left)
        requests += [item for item in asked if item not in requests][:left]
    return tuple(bind(families[item.family], item.values) for item in requests)


def _space(far: _Far, family: Family) -> Space:
    names = {*far.public.signature.dimensions, *far.bench.sizes}
    toolchains: Sequence[str] | None = None
    if family.language == "cuda":
        toolchains = ["nvcc"]
    elif far.machine is not None:
        toolchains = [toolchain.name for toolchain in far.machine.toolchains]
    return Space.of(family.source, far.bench.sizes, dimensions=names, toolchains=toolchains)
