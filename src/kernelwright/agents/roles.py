"""The roles: what each is asked, and how its reply is read. Each is usable alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kernelwright.agents.brief import Brief
from kernelwright.agents.copies import copied
from kernelwright.agents.history import Attempt, History
from kernelwright.agents.prompts import Rendered, render
from kernelwright.agents.replies import (
    Critique,
    Design,
    Kernel,
    Malformed,
    Plan,
    Selection,
    parse,
)
from kernelwright.errors import CandidateError
from kernelwright.model import Rejected
from kernelwright.space import Space

T = TypeVar("T")
REPAIRS = 2
"""Rounds in which a rejected kernel is mended."""
_DESIGNS = 4


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """One request of a role, and how the text that comes back is read."""

    role: str
    prompt: Rendered
    read: Callable[[str], T]
    """Raises `Malformed`."""
    max_output_tokens: int = 16_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What a kernel must be beside well-formed: declared, exported, new."""

    brief: Brief
    measured: dict[str, str] = field(default_factory=dict[str, str])
    """Sources that are right, by name."""
    others: dict[str, str] = field(default_factory=dict[str, str])
    """Every other source, by name."""

    def check(self, source: str) -> None:
        """Hold a source against them.

        Raises:
            Malformed: says what to mend.
        """
        brief = self.brief
        if f"{brief.entry}(" not in source:
            raise Malformed(f"the file does not define '{brief.entry}'")
        try:
            Space.of(
                source, brief.sizes, dimensions={*brief.sizes, *brief.ranges},
                toolchains=brief.compilers or None,
            )  # fmt: skip
        except CandidateError as error:
            raise Malformed(f"its tunables: {error}") from None
        twin = copied(source, brief.language, self.measured, self.others)
        if twin:
            raise Malformed(
                f"it is the kernel '{twin}' again but for names, comments or constants: constants "
                "are tunables, and a new kernel does something else"
            )


def plan(brief: Brief, history: History, notes: Sequence[str], limits: str = "") -> Question[Plan]:
    """Which designs are worth writing; `limits` is what limits the best kernel."""
    prompt = render(
        "planner", brief=brief, attempts=history.attempts, best=history.best, notes=list(notes),
        count=_DESIGNS, limits=limits,
    )  # fmt: skip
    return Question("planner", prompt, lambda text: parse(text, Plan), 6_000)


@dataclass(frozen=True, slots=True)
class Start:
    """What a new kernel is changed from."""

    attempt: Attempt | None = None
    """None: it is written from scratch."""
    limits: str = ""
    """What limits it; empty where nobody knows."""


SCRATCH = Start()


def write(
    brief: Brief,
    history: History,
    design: Design,
    rules: Rules,
    start: Start = SCRATCH,
    examples: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
) -> Question[Kernel]:
    """A kernel of a design, from scratch or changed from a parent."""
    prompt = render(
        "coder", brief=brief, attempts=history.attempts, parent=start.attempt, design=design,
        limits=start.limits, examples=dict(examples or {}), notes=list(notes), translate="",
    )  # fmt: skip
    return Question("coder", prompt, _kernel_reader(rules, start.attempt))


def translate(brief: Brief, source: Attempt, rules: Rules) -> Question[Kernel]:
    """A kernel in the brief's language from one in another."""
    prompt = render(
        "coder", brief=brief, attempts=(), parent=source, examples={}, notes=[],
        translate=source.candidate.language, design=None, limits="",
    )  # fmt: skip
    return Question("coder", prompt, _kernel_reader(rules, None))


def repair(
    brief: Brief, attempt: Attempt, rejection: Rejected, number: int, rules: Rules
) -> Question[Kernel]:
    """What a rejected kernel should be."""
    prompt = render(
        "repairer", brief=brief, attempt=attempt, rejection=rejection, round=number, rounds=REPAIRS
    )
    return Question("repairer", prompt, _kernel_reader(rules, attempt))


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured kernel beside what was predicted of it."""

    attempt: Attempt
    idea: str
    reference_name: str
    """What both speed-ups are over."""
    predicted: float
    observed: float
    facts: tuple[str, ...] = ()
    """What its machine code shows."""
    limits: str = ""
    """What limits it, by which numbers; empty where nobody knows."""


def criticise(
    brief: Brief, history: History, measured: Measurement, notes: Sequence[str]
) -> Question[Critique]:
    """Why a kernel gained or did not, and what follows."""
    prompt = render(
        "critic", brief=brief, attempts=history.attempts, notes=list(notes),
        attempt=measured.attempt, idea=measured.idea, reference_name=measured.reference_name,
        predicted=measured.predicted, observed=measured.observed, facts=measured.facts,
        limits=measured.limits,
    )  # fmt: skip
    return Question("critic", prompt, lambda text: parse(text, Critique), 4_000)


def select(brief: Brief, history: History) -> Question[Selection]:
    """What of the shelf the coder should read."""
    shelf = {name: _about(text) for name, text in brief.shelf.items()}
    prompt = render("librarian", brief=brief, attempts=history.attempts, notes=[], shelf=shelf)

    def read(text: str) -> Selection:
        found = parse(text, Selection)
        unknown = [name for name in found.chosen if name not in brief.shelf]
        if unknown:
            raise Malformed(f"there is no '{unknown[0][:60]}' on the shelf")
        return found

    return Question("librarian", prompt, read, 2_000)


def _kernel_reader(rules: Rules, parent: Attempt | None) -> Callable[[str], Kernel]:
    base = parent.candidate.source if parent else ""

    def read(text: str) -> Kernel:
        kernel = parse(text, Kernel, code=True, parent=base)
        rules.check(kernel.source)
        return kernel

    return read


def _about(source: str) -> str:
    """The comment that a source begins with."""
    lines: list[str] = []
    for line in source.splitlines():
        text = line.strip()
        if not text.startswith(("//", "#", '"""')) and lines:
            break
        if text.startswith(("// @", "#include", "#pragma")) or not text:
            continue
        lines.append(text.lstrip('/#" '))
    return " ".join(lines)
