"""Agents: roles that language models play, and the loops in which they propose kernels.

A role is a prompt template and a typed reply (`roles`), asked through a `Desk`, which repairs a
malformed reply once, counts what it takes and keeps within the limits. Loops are proposers: parents
and evidence in, families out. What a model writes is hostile input: it is read, and run nowhere but
where every candidate is.
"""

from kernelwright.agents.brief import Brief
from kernelwright.agents.desk import Answer, Desk, Journal
from kernelwright.agents.history import Attempt, History, family_of
from kernelwright.agents.loop import AgentLoop, Idea, Setting
from kernelwright.agents.prompts import MOST_TOKENS, ROLES, render, version_of
from kernelwright.agents.registry import LOOPS, loop_named
from kernelwright.agents.replies import Critique, Design, Kernel, Malformed, Plan, Selection
from kernelwright.agents.roles import Question, Rules

__all__ = [
    "LOOPS",
    "MOST_TOKENS",
    "ROLES",
    "AgentLoop",
    "Answer",
    "Attempt",
    "Brief",
    "Critique",
    "Design",
    "Desk",
    "History",
    "Idea",
    "Journal",
    "Kernel",
    "Malformed",
    "Plan",
    "Question",
    "Rules",
    "Selection",
    "Setting",
    "family_of",
    "loop_named",
    "render",
    "version_of",
]
