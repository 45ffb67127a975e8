"""`new`: a problem file from words or from a kernel, held against the admission gate."""

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from kernelwright.agents import Desk
from kernelwright.agents.drafts import Refused, draft
from kernelwright.agents.replies import Draft
from kernelwright.campaign.request import Progress, Silent
from kernelwright.campaign.result import Document
from kernelwright.errors import MachineError, UserError
from kernelwright.evaluation.gate import GateReport, examine_file
from kernelwright.llm import Ledger, Limits, model_named
from kernelwright.sandbox import isolation

REPAIRS = 3


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """What a problem shall state."""

    description: str
    """In words; may be empty where there is a kernel."""
    kernel: str = ""
    """Text of an existing kernel or reference."""
    models: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    repairs: int = REPAIRS
    """Most corrections of what the gate refuses."""


def draft_problem(request: DraftRequest, progress: Progress | None = None) -> Document:
    """Have a model draft a problem file, and run the gate on it in a sandbox.

    What the gate finds goes back to the model, a bounded number of times.

    Returns:
        The document that `new --json` prints; `source` is the file's text, `gate.ok` whether it is
        admitted. Nothing is written.

    Raises:
        UserError: nothing is asked for, no model is named, or none gives a draft.
        ModelError: a model cannot be used.
        MachineError: there is no sandbox here.
    """
    progress, started = progress or Silent(), time.monotonic()
    if not request.models:
        raise UserError("`new` needs a language model: add --model PROVIDER:NAME")
    if not request.description.strip() and not request.kernel.strip():
        raise UserError("say what the problem is, in words or by the file of a kernel")
    if isolation() != "sandbox":
        raise MachineError(
            "what a model writes is run in a sandbox only: install bubblewrap (see `probe`)"
        )
    desk = Desk([model_named(name) for name in request.models], Ledger(request.limits))
    refused: Refused | None = None
    for number in range(request.repairs + 1):
        progress.stage("asking the model" if refused is None else f"correction {number}")
        found = _asked(desk, request, refused, number)
        if found is None:
            break
        progress.stage("running the gate")
        report = _examined(found)
        refused = Refused(found.source, report.findings, number + 1, request.repairs)
        document = _document(found, report, number)
        if report.ok:
            break
        progress.note(f"the gate refuses it: {report.findings[0][:160]}")
    return {
        **document,  # pyright: ignore[reportPossiblyUnboundVariable]
        "models": {"models": [m.name for m in desk.models], "spent": desk.ledger.summary()},
        "seconds": round(time.monotonic() - started, 2),
    }


def _asked(desk: Desk, request: DraftRequest, refused: Refused | None, number: int) -> Draft | None:
    """The next draft; None where a correction does not come, so that the last draft stands.

    Raises:
        UserError: there is no draft at all.
    """
    question = draft(request.description, request.kernel, refused)
    answer = desk.ask(question, f"new/{number}", desk.models[number % len(desk.models)])
    if answer.value is None and refused is None:
        raise UserError(f"the model gave no draft: {answer.reason}")
    return answer.value


def _examined(found: Draft) -> GateReport:
    with tempfile.TemporaryDirectory(prefix="kernelwright-new-") as folder:
        path = Path(folder) / f"{found.name}.py"
        path.write_text(found.source)
        report = examine_file(path)
    if report.public is not None and report.public.name != found.name:
        wrong = f"the problem is called '{report.public.name[:60]}', not '{found.name}'"
        return GateReport(report.public, (*report.findings, wrong))
    return report


def _document(found: Draft, report: GateReport, repairs: int) -> Document:
    public = report.public
    document: Document = {
        "problem": found.name,
        "summary": found.summary,
        "assumptions": list(found.assumptions),
        "source": found.source,
        "gate": {"ok": report.ok, "findings": list(report.findings)},
        "repairs": repairs,
        "skeleton": report.skeleton,
        "expression": report.expression,
    }
    if public is not None:
        document |= {
            "dtypes": [str(dtype) for dtype in public.dtypes],
            "sizes": {name: [dict(s) for s in many] for name, many in public.sizes.items()},
            "distributions": list(public.distributions),
            "prototype": f'extern "C" {public.signature.prototype("kernel", public.dtypes[0])}',
        }
    return document
