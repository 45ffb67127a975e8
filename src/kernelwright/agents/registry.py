"""Loops by name."""

from kernelwright.agents.loop import AgentLoop, Setting
from kernelwright.agents.population import PopulationLoop
from kernelwright.agents.refine import RefineLoop
from kernelwright.agents.tree import TreeLoop

_LOOPS: dict[str, type[AgentLoop]] = {
    RefineLoop.name: RefineLoop, PopulationLoop.name: PopulationLoop, TreeLoop.name: TreeLoop,
}  # fmt: skip
LOOPS = tuple(_LOOPS)
"""Names of the proposers that need a model."""


def loop_named(name: str, setting: Setting) -> AgentLoop:
    """A loop by name, one of `LOOPS`."""
    return _LOOPS[name](setting)
