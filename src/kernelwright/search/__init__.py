"""Strategies that decide what to try next."""

from kernelwright.search.landscape import Landscape, compare, evaluations_to, run
from kernelwright.search.plain import ExhaustiveStrategy, ModelRankedStrategy, RandomStrategy
from kernelwright.search.portfolio import DefaultStrategy
from kernelwright.search.registry import strategy_named, strategy_names
from kernelwright.search.strategy import SeededStrategy, Strategy
from kernelwright.search.tpe import OptunaStrategy
from kernelwright.search.view import FamilyView, Request, Tried, View

__all__ = [
    "DefaultStrategy",
    "ExhaustiveStrategy",
    "FamilyView",
    "Landscape",
    "ModelRankedStrategy",
    "OptunaStrategy",
    "RandomStrategy",
    "Request",
    "SeededStrategy",
    "Strategy",
    "Tried",
    "View",
    "compare",
    "evaluations_to",
    "run",
    "strategy_named",
    "strategy_names",
]
