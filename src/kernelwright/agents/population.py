"""A population: islands of kernels, each keeping the best of every niche (MAP-Elites).

After Mouret and Clune, "Illuminating search spaces by mapping elites" (2015). A niche is told by
what the compiled kernel does (its memory path, compute shape, parallel level and synchronisation),
never by words in its source.
"""

from random import Random

from kernelwright.agents.history import Attempt, History
from kernelwright.agents.loop import AgentLoop, Idea, Setting, Task, Work
from kernelwright.agents.replies import Design
from kernelwright.model import content_hash

AXES = ("memory", "compute", "parallel", "synchronisation")
"""Facts are words such as `memory:streaming`; each axis takes those that begin with its name."""
_ISLANDS = 2
_MIGRATION = 4
"""Rounds after which every island sees the elites of all."""


def niche_of(facts: tuple[str, ...]) -> tuple[str, ...]:
    """The niche of a kernel: for each axis, what its machine code shows."""
    return tuple(
        "+".join(sorted(f.partition(":")[2] for f in facts if f.startswith(f"{axis}:"))) or "none"
        for axis in AXES
    )


class PopulationLoop(AgentLoop):
    """Changes elites, and crosses those of different niches."""

    name = "population"

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._designs: list[Design] = []

    def tasks(self, history: History) -> list[Task]:
        """Repairs; then children of elites, or a plan while there is no elite."""
        tasks = self.repairs(history)
        if not any(attempt.is_measured for attempt in history.attempts):
            if not tasks and not self._designs:
                self._designs = self.plan(history, f"{self.name}/{self.round}/plan")
            designs, self._designs = self._designs, []
            return tasks + [self.write(history, design) for design in designs]
        key = content_hash(self.name, str(self.setting.seed), str(self.round))
        rng = Random(int(key, 16))
        for slot in range(len(tasks), self.setting.width):
            island = (self.round + slot) % _ISLANDS
            tasks.append(self._child(history, island, rng))
        return tasks

    def elites(self, history: History, island: int | None) -> dict[tuple[str, ...], Attempt]:
        """The best of every niche of an island; of all where there is a migration, or None."""
        everyone = island is None or self.round % _MIGRATION == 0
        found: dict[tuple[str, ...], Attempt] = {}
        for attempt in history.attempts:
            if attempt.is_measured and (everyone or self._island(attempt) == island):
                niche = niche_of(self.setting.inspect(attempt.candidate))
                found.setdefault(niche, attempt)
        return found

    def _island(self, attempt: Attempt) -> int:
        idea = self.ideas.get(attempt.identity)
        return idea.island if idea else int(attempt.identity, 16) % _ISLANDS

    def _child(self, history: History, island: int, rng: Random) -> Task:
        elites = self.elites(history, island) or self.elites(history, None)
        niches = list(elites)
        # the better half twice as likely, in the order of the history
        weights = [2 if place <= len(niches) // 2 else 1 for place in range(len(niches))]
        first = rng.choices(niches, weights)[0]
        others = [niche for niche in self.elites(history, None) if niche != first]
        if others and rng.random() < 0.4:
            second = rng.choice(others)
            other = self.elites(history, None)[second]
            idea = (
                f"Cross the kernel to start from ({_shown(first)}) with '{other.name}' "
                f"({_shown(second)}), which is for reading: take from each what makes it fast."
            )
            examples = {other.name: other.candidate.source}
        else:
            axis = AXES[rng.randrange(len(AXES))]
            idea = (
                f"The compiled kernel shows {_shown(first)}. Keep what makes it fast, and change "
                f"its {axis} to something that none of these has: "
                f"{'; '.join(sorted({_shown(n) for n in elites}))}."
            )
            examples = {}
        design = Design(name="child", idea=idea, expected_speedup=1.1)
        return self._written(history, design, elites[first], examples, island)

    def _written(
        self,
        history: History,
        design: Design,
        parent: Attempt,
        examples: dict[str, str],
        island: int,
    ) -> Task:
        def task(work: Work) -> Idea | None:
            idea = self.write(history, design, parent, examples)(work)
            if idea is not None:
                idea.island = island
            return idea

        return task


def _shown(niche: tuple[str, ...]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in zip(AXES, niche, strict=True))
