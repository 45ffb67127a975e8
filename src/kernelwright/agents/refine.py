"""Refinement by a coder and a critic: plan, write, measure, explain, write again."""

from kernelwright.agents.history import History
from kernelwright.agents.loop import AgentLoop, Setting, Task
from kernelwright.agents.replies import Design


class RefineLoop(AgentLoop):
    """Mends what was rejected, improves on what was measured, and plans anew when both are done."""

    name = "refine"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._designs: list[Design] = []

    def tasks(self, history: History) -> list[Task]:
        """Repairs, then the critic's next moves, then designs of the plan."""
        tasks = self.repairs(history)
        for idea, attempt in self.measured(history):
            if not idea.settled and len(tasks) < self.setting.width:
                tasks.append(self.improve(history, idea, attempt))
        if not tasks and not self._designs:
            self._designs = self.plan(history, f"{self.name}/{self.round}/plan")
        while self._designs and len(tasks) < self.setting.width:
            design = self._designs.pop(0)
            parent = next((a for a in history.attempts if a.name == design.parent), None)
            tasks.append(self.write(history, design, parent))
        return tasks
