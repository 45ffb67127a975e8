"""`suite`: every problem of a set in every dtype, one campaign each, resumable as a whole.

A row that fails is told and the run goes on; the same command tries such rows again, and no others.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernelwright import suite
from kernelwright.campaign.optimize import optimize
from kernelwright.campaign.request import Budget, CampaignRequest, Progress, Silent
from kernelwright.campaign.result import Document, suite_row
from kernelwright.errors import KernelwrightError, MachineError, UndeclaredDtype, UserError
from kernelwright.evaluation import JudgeSettings
from kernelwright.model import Dtype, FrozenMap, Target

LOSS = 0.97
"""A row whose best kernel is slower than this share of the best baseline is a loss."""


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """Which problems, and how much work each is worth."""

    folder: Path
    """One run folder per problem and dtype below it; finished ones are kept."""
    problems: tuple[str, ...] = ()
    """Names; empty: all."""
    dtypes: tuple[Dtype, ...] | None = None
    """None: all that each problem declares."""
    budget: Budget = field(default_factory=Budget)
    strategy: str = "default"
    seed: int = 0
    target: Target = "cpu"
    """Where kernels run."""
    sizes: tuple[tuple[str, FrozenMap[str, int]], ...] = ()
    """Problems with bench sizes, a row for each; the others are run at the first that they declare
    for the target."""
    baselines: tuple[str, ...] | None = None
    """None: `eager`, `compile` and every peer."""
    command: str = ""
    """As typed, for the record."""
    profile: bool = True
    """Look for what limits each winner."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One campaign of a suite."""

    name: str
    dtype: Dtype
    sizes: FrozenMap[str, int] | None

    @property
    def label(self) -> str:
        """Of its run folder."""
        sizes = "" if self.sizes is None else "".join(f"-{k}{v}" for k, v in self.sizes.items())
        return f"{self.name}-{self.dtype}{sizes}"


def run_suite(
    request: SuiteRequest,
    progress: Progress | None = None,
    settings: JudgeSettings | None = None,
) -> Document:
    """Optimise every problem in the dtypes that it declares; write and return `suite.json`.

    Raises:
        UserError: a problem is unknown, or the machine cannot build.
    """
    progress = progress or Silent()
    known = suite.names()
    chosen = request.problems or known
    unknown = sorted({*chosen, *(name for name, _ in request.sizes)} - set(known))
    if unknown:
        raise UserError(f"there is no problem '{unknown[0]}': see `kernelwright problems`")
    documents: list[tuple[str, Document]] = []
    for row in _rows(request, chosen):
        progress.stage(row.label)
        try:
            documents.append((row.name, _one(request, row, progress, settings)))
        except UndeclaredDtype as error:
            progress.note(f"{row.label}: left out, {error}")
            continue
        except MachineError:
            raise  # no other row could do better
        except KernelwrightError as error:
            reason = str(error).strip().partition("\n")[0]
            progress.note(f"{row.label}: failed, {reason}")
            documents.append((row.name, _failed(row, reason)))
        _write(request, documents)
    return _write(request, documents)


def _rows(request: SuiteRequest, names: Sequence[str]) -> list[_Row]:
    """In the order of the problems."""
    return [
        _Row(name, dtype, sizes)
        for name in names
        for dtype in request.dtypes or tuple(map(Dtype, suite.dtypes(name)))
        for sizes in [s for n, s in request.sizes if n == name] or [None]
    ]


def _one(
    request: SuiteRequest, row: _Row, progress: Progress, settings: JudgeSettings | None
) -> Document:
    folder = request.folder / row.label
    finished = folder / "result.json"
    if finished.is_file():
        progress.note(f"{row.label}: finished before")
        return json.loads(finished.read_text())
    campaign = CampaignRequest(
        reference=suite.find(row.name),
        folder=folder,
        dtype=row.dtype,
        sizes=row.sizes,
        budget=request.budget,
        strategy=request.strategy,
        baselines=request.baselines,
        seed=request.seed,
        target=request.target,
        profile=request.profile,
    )
    return optimize(campaign, progress, settings)


def _failed(row: _Row, reason: str) -> Document:
    """In the place of what `optimize` would have told; not kept, so that it is tried again."""
    return {
        "problem": row.name,
        "dtype": str(row.dtype),
        "sizes": dict(row.sizes or {}),
        "evaluations": 0,
        "seconds": 0.0,
        "workloads": [],
        "advice": f"failed: {reason}",
    }


def _write(request: SuiteRequest, documents: Sequence[tuple[str, Document]]) -> Document:
    rows = [suite_row(name, document) for name, document in documents]
    nothing: Document = {}
    facts = next((document for _, document in documents if "machine_facts" in document), nothing)
    table = {
        "machine": facts.get("machine"),
        "machine_facts": facts.get("machine_facts"),
        "target": request.target,
        "command": request.command,
        "summary": summary(rows),
        "problems": rows,
    }
    request.folder.mkdir(parents=True, exist_ok=True)
    (request.folder / "suite.json").write_text(json.dumps(table, indent=2) + "\n")
    return table


def summary(rows: Sequence[Document]) -> dict[str, Any]:
    """Geometric means and losses of `speedup_kernel`; rows without a kernel count as a loss."""
    kernels = [row for row in rows if row["speedup_kernel"] is not None]
    contested = [row["speedup_kernel"] for row in kernels if row["contested"]]
    return {
        "rows": len(rows),
        "geomean_kernel": _geomean([row["speedup_kernel"] for row in kernels]),
        "geomean_contested": _geomean(contested),
        "geomean_eager": _geomean([r["speedup_eager"] for r in kernels if r["speedup_eager"]]),
        "losses": [
            f"{row['problem']} {row['dtype']}"
            for row in rows
            if row["speedup_kernel"] is None or row["speedup_kernel"] < LOSS
        ],
    }


def _geomean(values: Sequence[float]) -> float | None:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None
