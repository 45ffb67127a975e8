"""The live roof: what memory and arithmetic give, round by round."""

from dataclasses import dataclass, field, replace
from statistics import median

from kernelwright.machine import RoofProbe
from kernelwright.model import Bound, Machine
from kernelwright.roofline import Rates, bound


@dataclass(frozen=True, slots=True)
class BenchCost:
    """What the bench workload asks for at least."""

    bytes_read: int
    bytes_written: int
    operations: float
    """0 where not known."""
    unit: str = "fma"
    """What may do them: `fma`, or so many `bf16 products` for each (`expr.unit_of`)."""

    @property
    def bytes_moved(self) -> int:
        """Read plus written."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bound under each round's roof, and under the median roof."""

    per_round_us: list[float]
    typical: Bound


@dataclass(slots=True)
class RoofSamples:
    """One reading per round."""

    rates: list[Rates] = field(default_factory=list[Rates])

    def bounds(self, cost: BenchCost) -> Bounds:
        """Bounds of every round.

        Raises:
            ValueError: there was no round.
        """
        if not self.rates:
            raise ValueError("no round was measured")
        moved, operations = cost.bytes_moved, cost.operations
        per_round = [bound(moved, operations, rates).median_us for rates in self.rates]
        names = [rates.roof for rates in self.rates]
        typical = Rates(
            max(set(names), key=names.count),
            median(rates.gbs for rates in self.rates),
            median(rates.gflops for rates in self.rates),
            self.rates[0].unit,
        )
        return Bounds(per_round, bound(moved, operations, typical))


class RoofReader:
    """The roof probe: started when it is read first, frozen between readings.

    Args:
        machine: where the probe runs; its arithmetic peak stands in for workloads that memory
            bounds, a live one is taken where arithmetic may bound.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._started: RoofProbe | None = None

    def read(self, cost: BenchCost) -> Rates:
        """Rates at this moment."""
        roof = self._probe().measure(cost.bytes_read, cost.bytes_written)
        unit, peak = self._machine.arithmetic(cost.unit)
        memory_us = cost.bytes_moved / (roof.gbs * 1e3)
        if peak > 0 and cost.operations / (peak * 1e3) > 0.5 * memory_us:
            peak = self._probe().gflops(unit)
        return replace(roof, gflops=peak, unit=unit)

    def bound(self, cost: BenchCost) -> Bound:
        """The bound at this moment."""
        rates = self.read(cost)
        return bound(cost.bytes_moved, cost.operations, rates)

    def close(self) -> None:
        """End the probe's process."""
        if self._started is not None:
            self._started.close()

    def _probe(self) -> RoofProbe:
        m = self._machine
        self._started = self._started or RoofProbe(m.toolchains, m.cores, m.l3_bytes)
        return self._started
