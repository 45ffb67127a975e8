"""Probing what this machine is and can do."""

from kernelwright.machine.evict import Evict, evictor, flush_bytes
from kernelwright.machine.probe import probe
from kernelwright.machine.roof import Roof, RoofProbe

__all__ = ["Evict", "Roof", "RoofProbe", "evictor", "flush_bytes", "probe"]
