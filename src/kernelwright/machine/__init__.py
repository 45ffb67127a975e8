"""Probing what this machine is and can do."""

from kernelwright.machine.evict import Evict, evictor, flush_bytes
from kernelwright.machine.gpu import probe_gpu
from kernelwright.machine.probe import probe
from kernelwright.machine.roof import RoofProbe

__all__ = ["Evict", "RoofProbe", "evictor", "flush_bytes", "probe", "probe_gpu"]
