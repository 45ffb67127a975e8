"""How reductions are accumulated: along the lanes, across them, across the threads of a row."""

from __future__ import annotations

from dataclasses import dataclass

from kernelwright.codegen.emit import Context, Scope
from kernelwright.codegen.functions import float_text
from kernelwright.codegen.sweeps import Sweep
from kernelwright.expr.rowwise import Reduction


@dataclass(frozen=True)
class Accumulators:
    """Statements for reductions; `index` and `rows` select among several rows and accumulators."""

    context: Context

    def _is_blocked_sum(self, reduction: Reduction) -> bool:
        return reduction.op == "sum" and reduction.value.kind == "float"

    def settle(self, sweep: Sweep, index: str) -> str:
        """The statement that settles the sums of a sweep; empty where nothing is summed."""
        if sweep.stores:
            return ""
        sums = [r for r in sweep.reductions if self._is_blocked_sum(r)]
        return " ".join(f"{r.value.name}_lanes{index}.settle();" for r in sums)

    def declare(self, reduction: Reduction, rows: str) -> str:
        """The accumulators of a reduction."""
        name, op = f"{reduction.value.name}_lanes", reduction.op
        if op in ("argmax", "argmin"):
            self.context.blocks.add("best")
            return f"simd::best<{1 if op == 'argmax' else -1}> {name}{rows}[UNROLL];"
        self.context.blocks.add("across")
        if self._is_blocked_sum(reduction):
            self.context.blocks.add("blocked_sum")
            return f"simd::blocked_sum<UNROLL> {name}{rows};"
        identity = self._identity(reduction)
        kind = "floats" if reduction.value.kind == "float" else "longs"
        kind = "ints" if reduction.value.kind == "bool" else kind
        if rows:
            loops = "for (auto& row_lanes : {0}) for (auto& lane : row_lanes) lane = {1};"
        else:
            loops = "for (auto& lane : {0}) lane = {1};"
        return f"simd::{kind} {name}{rows}[UNROLL]; " + loops.format(name, identity)

    def _identity(self, reduction: Reduction) -> str:
        kind, op = reduction.value.kind, reduction.op
        if kind == "bool":
            return "simd::splat(true)" if op == "all" else "simd::splat(false)"
        if kind == "int":
            values = {"sum": "0", "prod": "1", "max": "INT64_MIN", "min": "INT64_MAX"}
            return f"simd::splat((int64_t){values[op]})"
        values = {"sum": 0.0, "prod": 1.0, "max": float("-inf"), "min": float("inf")}
        return f"simd::splat({float_text(values[op])})"

    def _operand(self, scope: Scope, reduction: Reduction) -> str:
        value = scope.value(reduction.body)
        if reduction.op in ("argmax", "argmin"):
            return scope.spread(scope.as_float(value)).text
        if reduction.value.kind == "float":
            value = scope.as_float(value)
        elif reduction.value.kind == "bool":
            value = scope.as_bool(value)
        else:
            value = scope.as_int(value, 64)
        return scope.spread(value).text

    def accumulate(self, scope: Scope, reduction: Reduction, index: str) -> str:
        """The statement that takes one vector into the accumulators."""
        name, op, operand = (
            f"{reduction.value.name}_lanes",
            reduction.op,
            self._operand(scope, reduction),
        )
        if op in ("argmax", "argmin"):
            column = self.context.axis_names[reduction.columns[-1].axis]
            return f"{name}{index}.offer({operand}, {column}, lanes);"
        identity = self._identity(reduction)
        if self._is_blocked_sum(reduction):
            row = index.removesuffix("[acc]")
            return f"{name}{row}.add(acc, simd::keep({operand}, {identity}, lanes));"
        target, kept = f"{name}{index}", f"simd::keep({operand}, {identity}, lanes)"
        if op in ("max", "min"):
            self.context.blocks |= {"extremes", "across_extremes"}
            # a greater or NaN operand is rare: it goes first, so that NaN stays
            return f"{target} = simd::{op}imum({kept}, {target});"
        symbol = {"sum": "+", "prod": "*", "any": "|", "all": "&"}[op]
        return f"{target} {symbol}= {kept};"

    def finish(self, scope: Scope, reduction: Reduction, index: str) -> None:
        """Combine lanes, accumulators and, where a row is split, threads."""
        name, op, kind = reduction.value.name, reduction.op, reduction.value.kind
        lanes = f"{name}_lanes{index}"
        if op in ("argmax", "argmin"):
            sign = 1 if op == "argmax" else -1
            scope.lines += [
                f"simd::winner {name}_best = simd::best<{sign}>::across({lanes});",
                f"if (split) {name}_best = "
                f"simd::across_team(team, turn, {name}_best, simd::best_of<{sign}>{{}});",
                f"const int64_t {name} = {name}_best.index;",
            ]
            return
        combine = {"sum": "plus_of", "prod": "times_of", "max": "greater_of", "min": "lesser_of",
                   "any": "either_of", "all": "both_of"}[op]  # fmt: skip
        total = (
            f"{lanes}.total()"
            if self._is_blocked_sum(reduction)
            else (f"simd::across({lanes}, simd::{combine}{{}})")
        )
        kind_c = {"float": "float", "int": "int64_t", "bool": "int32_t"}[kind]
        scope.lines += [
            f"{kind_c} {name} = {total};",
            f"if (split) {name} = simd::across_team(team, turn, {name}, simd::{combine}{{}});",
        ]
