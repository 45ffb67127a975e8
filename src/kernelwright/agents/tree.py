"""A tree of designs: opened only under what was measured, corrected by what was observed."""

import math
from dataclasses import dataclass

from kernelwright.agents.history import Attempt, History
from kernelwright.agents.loop import AgentLoop, Idea, Setting, Task
from kernelwright.agents.replies import Design

ROOT = ""
"""Parent of designs that start from scratch: the baselines are measured, so it is always open."""


@dataclass(slots=True)
class Node:
    """A design that may be written."""

    design: Design
    parent: str
    """Identity of a measured family, or `ROOT`."""
    opened: bool = False


class TreeLoop(AgentLoop):
    """Best first by predicted gain, confidence and difficulty, each held against what came out."""

    name = "tree"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.nodes: list[Node] = []
        self._expanded: set[str] = set()

    def tasks(self, history: History) -> list[Task]:
        """Repairs, then the most promising nodes; the planner grows the tree at its leader."""
        tasks = self.repairs(history)
        leader = history.best.identity if history.best else ROOT
        if leader not in self._expanded or not self.open_nodes(history):
            self._expanded.add(leader)
            self._grow(history)
        for node in self.open_nodes(history)[: max(0, self.setting.width - len(tasks))]:
            node.opened = True
            tasks.append(self.write(history, node.design, history.of_family(node.parent)))
        return tasks

    def open_nodes(self, history: History) -> list[Node]:
        """Nodes that may be written now, most promising first."""
        ready = [n for n in self.nodes if not n.opened and self._is_open(n, history)]
        return sorted(ready, key=lambda node: -self.promise(node, history))

    def promise(self, node: Node, history: History) -> float:
        """Log gain over the leader that a node is good for, by difficulty.

        The prediction is scaled by how predictions under the same parent, and all, came out.
        """
        design = node.design
        corrected = math.log(design.expected_speedup) * self.trust(history, node.parent)
        return (
            (corrected + self._handicap(node, history))
            * design.confidence
            / math.sqrt(design.difficulty)
        )

    def trust(self, history: History, parent: str) -> float:
        """Observed over predicted log gain, under a parent before under all; 1 before any is known.

        One prediction that came true counts as known beforehand, so that one failure does not
        close a branch.
        """
        own = [p for p in self._outcomes(history) if p[0].parent == parent]
        outcomes = own or self._outcomes(history)
        predicted = 0.2 + sum(abs(math.log(i.design.expected_speedup)) for i, _ in outcomes)
        observed = 0.2 + sum(gain for _, gain in outcomes)
        return min(2.0, max(0.1, observed / predicted))

    def _outcomes(self, history: History) -> list[tuple[Idea, float]]:
        found: list[tuple[Idea, float]] = []
        for identity, idea in self.ideas.items():
            attempt = history.of_family(identity)
            if attempt is not None and idea.reference_us:
                found.append((idea, self.log_gain(idea, attempt)))
        return found

    def _is_open(self, node: Node, history: History) -> bool:
        parent = history.of_family(node.parent)
        return node.parent == ROOT or (parent is not None and parent.is_measured)

    def _handicap(self, node: Node, history: History) -> float:
        """How far the node's parent is behind the leader, as a log ratio of at most 0."""
        parent, best = history.of_family(node.parent), history.best
        if parent is None or best is None or not parent.best_us or not best.best_us:
            return 0.0
        values = self.setting.values
        ahead, behind = (values.get(a.candidate.identity) for a in (best, parent))
        if ahead and behind:
            return min(0.0, math.log(ahead / behind))
        return min(0.0, math.log(best.best_us / parent.best_us))

    def _grow(self, history: History) -> None:
        by_name: dict[str, Attempt] = {a.name: a for a in reversed(history.attempts)}
        for design in self.plan(history, f"{self.name}/{self.round}/plan"):
            parent = by_name.get(design.parent)
            usable = parent is not None and parent.is_measured
            self.nodes.append(Node(design, parent.identity if parent and usable else ROOT))
