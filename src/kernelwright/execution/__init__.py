"""Processes, shared memory and clocks."""

from kernelwright.execution.arena import Arena
from kernelwright.execution.confined_python import environment, python_view
from kernelwright.execution.device import DeviceArena
from kernelwright.execution.process import role_environment
from kernelwright.execution.report import Call, CallReport, Failure, Limits, Pointer, Poison, Stream
from kernelwright.execution.role import RoleProcess
from kernelwright.execution.serve import arena_view, device_arenas, every_processor, serve
from kernelwright.execution.worker import Worker

__all__ = [
    "Arena",
    "Call",
    "CallReport",
    "DeviceArena",
    "Failure",
    "Limits",
    "Pointer",
    "Poison",
    "RoleProcess",
    "Stream",
    "Worker",
    "arena_view",
    "device_arenas",
    "environment",
    "every_processor",
    "python_view",
    "role_environment",
    "serve",
]
