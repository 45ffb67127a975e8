"""How often the rules of acceptance are wrong, and how soon they are right: simulated rounds.

`python docs/results/sequential.py` writes `sequential.json` and `sequential.md` beside itself.
"""

import json
from pathlib import Path

import numpy as np

from kernelwright.numerics import (
    FEWEST,
    AcceptRule,
    ConfirmRule,
    Decision,
    median_estimate,
    sequential_median,
)
from kernelwright.testing.noise import MODELS, quiet, speedups

RULE = AcceptRule(most=150)  # about what the time limit of acceptance leaves
CONFIRM = ConfirmRule()
HERE = Path(__file__).parent


def accept(rng, noise, gain=1.0, process_sd=0.0):
    """One acceptance: found faster at first, in the end, after how many rounds, and the ratios."""
    ratios = speedups(noise, rng, RULE.most, gain, process_sd)
    n = next(n for n in range(FEWEST, RULE.most + 1) if RULE.done(ratios[:n]))
    first = RULE.wins(ratios[:n])
    if not first:
        return first, False, n, ratios[:n]
    again = speedups(noise, rng, CONFIRM.most, gain, process_sd)
    decisions = (CONFIRM.decide(again[:m]) for m in range(FEWEST, CONFIRM.most + 1))
    last = next(d for d in decisions if d is not Decision.CONTINUE)
    if last is Decision.STOP:  # neither confirmed nor refuted: the second race decides
        second = speedups(noise, rng, RULE.most, gain, process_sd)
        m = next(m for m in range(FEWEST, RULE.most + 1) if RULE.done(second[:m]))
        return first, RULE.wins(second[:m]), n + m, second[:m]
    return first, last is Decision.CONFIRMED, n, ratios[:n]


def row(name, noise, gain, trials, process_sd=0.0):
    """Shares over many acceptances."""
    rng = np.random.default_rng([ord(c) for c in name])
    firsts = finals = covered = peeked = 0
    rounds, decided = [], []
    for _ in range(trials):
        first, final, n, ratios = accept(rng, noise, gain, process_sd)
        firsts, finals = firsts + first, finals + final
        rounds.append(n)
        interval = sequential_median(ratios)
        covered += interval.low <= gain <= interval.high
        looks = range(6, RULE.most + 1)
        full = speedups(noise, rng, RULE.most, gain, process_sd)
        decided.append(next((m for m in range(FEWEST, RULE.most) if RULE.wins(full[:m])), np.inf))
        peeked += any(median_estimate(full[:m]).low > 1 for m in looks)
    return {
        "noise": name, "gain": gain, "trials": trials, "found_faster": finals / trials,
        "before_confirming": firsts / trials, "interval_covers": covered / trials,
        "rounds_median": float(np.median(rounds)), "rounds_95": float(np.percentile(rounds, 95)),
        "win_proved_after": None if np.isinf(np.median(decided)) else float(np.median(decided)),
        "fixed_interval_at_every_look": peeked / trials,
    }  # fmt: skip


def selection(candidates, trials):
    """The best of many equal kernels: what the search saw, and what acceptance made of it."""
    rng = np.random.default_rng(candidates)
    searched, accepted, false = [], [], 0
    for _ in range(trials):
        medians = [np.median(speedups(quiet, rng, 30)) for _ in range(candidates)]
        searched.append(max(medians))
        _, final, _, ratios = accept(rng, quiet)
        accepted.append(np.median(ratios))
        false += final
    return {
        "candidates": candidates, "trials": trials, "searched": float(np.mean(searched)),
        "accepted": float(np.mean(accepted)), "found_faster": false / trials,
    }  # fmt: skip


def main():
    """Simulate and write."""
    level = [row(name, noise, 1.0, 1000) for name, noise in MODELS.items()]
    level.append(row("one process, sd 2 %", quiet, 1.0, 1000, process_sd=0.02))
    power = [row(n, MODELS[n], g, 300) for g in (1.02, 1.05, 1.1) for n in MODELS]
    chosen = [selection(n, 200) for n in (1, 20, 200)]
    found = {"rule": str(RULE), "confirm": str(CONFIRM), "level": level, "power": power,
             "selection": chosen}  # fmt: skip
    (HERE / "sequential.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = [
        "| noise | found faster | before confirming | interval covers 1 | rounds (median, 95 %) | "
        "a fixed 95 % interval looked at every round |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {r['noise'].replace('_', ' ')} | {r['found_faster']:.1%} | "
            f"{r['before_confirming']:.1%} | {r['interval_covers']:.1%} | "
            f"{r['rounds_median']:.0f}, {r['rounds_95']:.0f} | "
            f"{r['fixed_interval_at_every_look']:.1%} |"
            for r in level
        ),
        "",
        "| noise | 2 % | 5 % | 10 % |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in MODELS:
        cells = [r for r in power if r["noise"] == name]
        text = [
            f"{r['found_faster']:.0%}"
            + (f", after {r['win_proved_after']:.0f}" if r["win_proved_after"] else "")
            for r in cells
        ]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(text) + " |")
    lines += [
        "",
        "| best of | searched | accepted | found faster |",
        "| ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['candidates']} | {r['searched']:.4f} | {r['accepted']:.4f} | "
        f"{r['found_faster']:.1%} |"
        for r in chosen
    ]
    (HERE / "sequential.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
