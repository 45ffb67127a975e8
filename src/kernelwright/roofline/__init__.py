"""Bound and floor: the least time that measured limits, and physics, allow. Pure arithmetic."""

from kernelwright.roofline.limits import (
    Rates,
    bound,
    datasheet_floor_us,
    floor_us,
    fraction_of_bound,
    memory_rate,
)

__all__ = [
    "Rates",
    "bound",
    "datasheet_floor_us",
    "floor_us",
    "fraction_of_bound",
    "memory_rate",
]
