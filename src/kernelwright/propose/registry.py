"""Proposers by name: ours and those that installed packages register."""

from importlib.metadata import entry_points

from kernelwright.errors import UserError
from kernelwright.propose.library import GenerateProposer, RecipeProposer
from kernelwright.propose.proposer import Proposer

_OURS: dict[str, type[GenerateProposer] | type[RecipeProposer]] = {
    "recipes": RecipeProposer,
    "generate": GenerateProposer,
}


def proposer_names() -> tuple[str, ...]:
    """Every name that `proposer_named` takes, ours first."""
    others = {point.name for point in entry_points(group="kernelwright.proposers")}
    return (*_OURS, *sorted(others - set(_OURS)))


def proposer_named(name: str) -> Proposer:
    """A proposer by name.

    Raises:
        UserError: no such proposer is installed.
    """
    if name in _OURS:
        return _OURS[name]()
    for point in entry_points(group="kernelwright.proposers"):
        if point.name == name:
            return point.load()()
    raise UserError(f"there is no proposer '{name}': choose from {', '.join(proposer_names())}")
