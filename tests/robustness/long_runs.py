"""The long runs behind docs/results: `python tests/robustness/long_runs.py faults|kills`.

Not part of the test suite, which has short versions of both.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fault_campaign
import kills
from faults import FAULTS


def faults(salts: int, good: int) -> int:
    """A campaign over so many candidates of every fault among good ones."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        report = fault_campaign.run(Path(folder), salts, good, patch)
    table = Counter(
        {f"{name}: {found or 'measured'}": n for (name, found), n in report.endings.items()}
    )
    print(json.dumps({
        "candidates": report.judged, "faults": len(FAULTS) - 1, "wrong": report.wrong,
        "good_offered": good, "good_kept": report.values, "seconds": round(report.seconds),
        "processes_left": len(report.left), "best": report.document["best"], "endings": table,
    }, indent=2, default=str))  # fmt: skip
    return int(bool(report.wrong or report.left or report.values != good))


def killed(count: int, seed: int) -> int:
    """Campaigns that are killed so often in all, up to eight times each."""
    rng, outcomes, left = random.Random(seed), [], count
    while left > 0:
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(kills.killed_campaign(Path(folder), rng, min(8, left), 14.0, 1, 6))
        left -= outcomes[-1].kills
        print(outcomes[-1], file=sys.stderr, flush=True)
    found = [fault for outcome in outcomes for fault in outcome.faults]
    print(json.dumps({
        "kills": sum(o.kills for o in outcomes), "campaigns": len(outcomes),
        "finished": sum(o.finished for o in outcomes),
        "kills_before_an_archive": sum(o.early for o in outcomes),
        "moments_s": [m for o in outcomes for m in o.moments_s], "faults": found,
    }))  # fmt: skip
    return int(bool(found) or not all(o.finished for o in outcomes))


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("faults")
    one.add_argument("--salts", type=int, default=26)
    one.add_argument("--good", type=int, default=64)
    other = commands.add_parser("kills")
    other.add_argument("--count", type=int, default=50)
    other.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.command == "faults":
        sys.exit(faults(given.salts, given.good))
    sys.exit(killed(given.count, given.seed))


if __name__ == "__main__":
    main()
