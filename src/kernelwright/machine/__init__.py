"""Probing what this machine is and can do."""

from kernelwright.machine.probe import probe
from kernelwright.machine.roof import Roof, RoofProbe

__all__ = ["Roof", "RoofProbe", "probe"]
