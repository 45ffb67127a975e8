"""`suite`: every problem of a set in every dtype, one campaign each, resumable as a whole."""

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
from kernelwright.errors import UndeclaredDtype, UserError
from kernelwright.evaluation import JudgeSettings
from kernelwright.model import Dtype

LOSS = 0.97
"""A row whose best kernel is slower than this share of the best baseline is a loss."""


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """Which problems, and how much work each is worth."""

    folder: Path
    """One run folder per problem and dtype below it; finished ones are kept."""
    problems: tuple[str, ...] = ()
    """Names; empty: all."""
    dtypes: tuple[Dtype, ...] = (Dtype.F32, Dtype.BF16)
    budget: Budget = field(default_factory=Budget)
    strategy: str = "default"
    seed: int = 0
    command: str = ""
    """As typed, for the record."""


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
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        raise UserError(f"there is no problem '{unknown[0]}': see `kernelwright problems`")
    documents: list[tuple[str, Document]] = []
    for name in chosen:
        for dtype in request.dtypes:
            progress.stage(f"{name} {dtype}")
            try:
                documents.append((name, _one(request, name, dtype, progress, settings)))
            except UndeclaredDtype as error:
                progress.note(f"{name} {dtype}: left out, {error}")
                continue
            _write(request, documents)
    return _write(request, documents)


def _one(
    request: SuiteRequest,
    name: str,
    dtype: Dtype,
    progress: Progress,
    settings: JudgeSettings | None,
) -> Document:
    folder = request.folder / f"{name}-{dtype}"
    finished = folder / "result.json"
    if finished.is_file():
        progress.note(f"{name} {dtype}: finished before")
        return json.loads(finished.read_text())
    campaign = CampaignRequest(
        reference=suite.find(name),
        folder=folder,
        dtype=dtype,
        budget=request.budget,
        strategy=request.strategy,
        seed=request.seed,
    )
    return optimize(campaign, progress, settings)


def _write(request: SuiteRequest, documents: Sequence[tuple[str, Document]]) -> Document:
    rows = [suite_row(name, document) for name, document in documents]
    table = {
        "machine": documents[0][1]["machine"] if documents else None,
        "machine_facts": documents[0][1]["machine_facts"] if documents else None,
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
