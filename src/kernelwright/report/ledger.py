"""What language models took in a campaign, and what came of it: from the archive alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kernelwright.llm import Ledger
from kernelwright.model import Candidate, Exchange, Family, Rejected, Verdict, content_hash
from kernelwright.store import Archive, from_json

Judged = Sequence[tuple[Candidate, Verdict]]


@dataclass(frozen=True, slots=True)
class Spent:
    """One line: what was asked, and what that took."""

    label: str
    requests: int
    unusable: int
    """Malformed replies, and requests without any."""
    input_tokens: int
    output_tokens: int
    dollars: float | None
    """None: no price is known."""
    seconds: float
    outcome: str = ""
    """What came of it, in words that models had a hand in."""

    @classmethod
    def of(cls, label: str, exchanges: Iterable[Exchange]) -> "Spent":
        """The sum of some exchanges."""
        ledger = Ledger()
        for exchange in exchanges:
            ledger.add(exchange)
        total = ledger.summary()
        return cls(
            label, total["requests"], total["malformed"] + total["failed"], total["input_tokens"],
            total["output_tokens"], total["dollars"], total["seconds"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Accounts:
    """The same requests summed by model, by role and by round, and in all."""

    total: Spent
    by_model: tuple[Spent, ...]
    by_role: tuple[Spent, ...]
    rounds: tuple[Spent, ...]
    """In order, each with the kernels that came out and what became of them."""


def accounts(archive: Archive, judged: Judged) -> Accounts | None:
    """The ledger of an archive, of an unfinished campaign too; None where no model was asked.

    Args:
        archive: holds exchanges, and which kernels each round proposed.
        judged: verdicts, oldest first.
    """
    found = [from_json(event.document, Exchange) for event in archive.events("exchange")]
    if not found:
        return None
    families = {family.identity: family for family in archive.families()}
    proposed = {
        f"{event.document['loop']}/{event.document['round']}": [
            families[i] for i in event.document["families"] if i in families
        ]
        for event in archive.events("proposed")
    }
    return Accounts(
        Spent.of("all", found),
        _grouped(found, lambda exchange: exchange.model),
        _grouped(found, lambda exchange: exchange.role),
        tuple(
            replace(row, outcome=_outcomes(proposed.get(row.label, ()), judged))
            for row in _grouped(found, _round_of)
        ),
    )


def _round_of(exchange: Exchange) -> str:
    return "/".join(exchange.key.split("/")[:2])


def _grouped(found: Sequence[Exchange], label_of: Callable[[Exchange], str]) -> tuple[Spent, ...]:
    labels = dict.fromkeys(label_of(exchange) for exchange in found)
    return tuple(Spent.of(n, [e for e in found if label_of(e) == n]) for n in labels)


def _outcomes(families: Sequence[Family], judged: Judged) -> str:
    return "; ".join(f"{family.name}: {_outcome(family, judged)}" for family in families)


def _outcome(family: Family, judged: Judged) -> str:
    """Its best time of screening, or why it was rejected."""
    best, reason = None, "not judged"
    for candidate, verdict in judged:
        if content_hash(candidate.language, candidate.entry, candidate.source) != family.identity:
            continue
        if isinstance(verdict, Rejected):
            reason = str(verdict.reason).replace("_", " ")
        elif verdict.workloads:
            us = verdict.workloads[0].time_us.median
            best = us if best is None else min(best, us)
    return reason if best is None else f"{best:.4g} µs"


def per_gain(document: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What a proposed kernel, and a unit of gain, took: headings and words.

    Args:
        document: `models` of a result.
    """
    found: list[tuple[str, str]] = []
    parts = (("each kernel", "per_candidate"), ("each unit of gain", "per_gain"))
    for heading, key in parts:
        share = document.get(key)
        if share:
            price = share["dollars"]
            money = "price unknown" if price is None else f"${price:.4g}"
            words = f"{share['tokens']:,} tokens, {money}, {share['seconds']:.0f} s"
            found.append((f"for {heading}", words))
    gain = document.get("gain")
    if gain is not None:
        found.append(("gain", f"{gain:.2f}× the best that no model wrote, in paired comparisons"))
    return tuple(found)
