"""What a screened candidate and a round of acceptance take on a GPU, part by part.

    python tests/gpu/breakdown.py rms_norm --dtype bf16 --size T=4096,H=4096 --evaluations 60

Runs a campaign in this process with a stopwatch around the judge's steps; a step's time is without
that of the steps inside of it.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from kernelwright import suite
from kernelwright.campaign import Budget, CampaignRequest, optimize
from kernelwright.campaign.ahead import Batch
from kernelwright.campaign.loop import Campaign
from kernelwright.evaluation import session
from kernelwright.evaluation.baselines import BaselineRole
from kernelwright.evaluation.device_pool import DevicePool
from kernelwright.evaluation.judge import Judge
from kernelwright.evaluation.needs import Needs
from kernelwright.evaluation.oracle_client import OracleClient
from kernelwright.evaluation.session import Session
from kernelwright.evaluation.workspace import Workspaces
from kernelwright.execution import RoleProcess, Worker
from kernelwright.execution.process import Child
from kernelwright.search import strategy

STEPS = {
    "waiting for builds": [(Batch, "built")],
    "asking the strategy": [(strategy.SeededStrategy, "ask")],
    "starting workers": [(session, "_process")],
    "ending workers": [(Worker, "close")],
    "workspace sizes": [(Needs, "learn")],
    "poisoning outputs": [(DevicePool, "poison"), (DevicePool, "admit"), (DevicePool, "blank")],
    "poisoning the workspace": [(Workspaces, "poison")],
    "inputs in place": [(DevicePool, "load")],
    "outputs copied": [(DevicePool, "fetch")],
    "inputs looked at": [(DevicePool, "changed_input")],
    "red zones": [(DevicePool, "broken_zone"), (Workspaces, "broken_zone")],
    "comparison": [(OracleClient, "compared"), (OracleClient, "digest")],
    "oracle values": [(OracleClient, "make")],
    "baseline calls": [(OracleClient, "timed")],
    "baseline results": [(OracleClient, "collect")],
    "baselines made ready": [(OracleClient, "prepare"), (OracleClient, "wrong")],
    "flush order": [(Worker, "_order")],
    "wake": [(Worker, "_wake")],
    "call": [(Child, "bracket")],
    "freezing": [(Child, "freeze"), (RoleProcess, "freeze")],
    "thawing": [(Child, "thaw"), (RoleProcess, "thaw")],
    "verdicts stored": [(Campaign, "_judge")],
    "screening, the rest": [(Judge, "screen")],
    "acceptance, the rest": [(Judge, "accept")],
    "sessions, the rest": [(Session, "call"), (Session, "timed"), (BaselineRole, "timed")],
}  # fmt: skip


class Stopwatch:
    """Exclusive seconds and calls of named steps."""

    def __init__(self):
        self.seconds, self.calls = defaultdict(float), defaultdict(int)
        self._inside = []

    def around(self, owner, name, label):
        inner = getattr(owner, name)

        def timed(*arguments, **options):
            self._inside.append(0.0)
            began = time.perf_counter()
            try:
                return inner(*arguments, **options)
            finally:
                whole = time.perf_counter() - began
                self.seconds[label] += whole - self._inside.pop()
                self.calls[label] += 1
                if self._inside:
                    self._inside[-1] += whole

        setattr(owner, name, timed)

    def take(self):
        """What was measured since the last time."""
        found = {
            label: {"seconds": round(seconds, 3), "calls": self.calls[label]}
            for label, seconds in sorted(self.seconds.items(), key=lambda item: -item[1])
        }
        self.seconds.clear()
        self.calls.clear()
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("problem")
    parser.add_argument("--dtype")
    parser.add_argument("--size", default="")
    parser.add_argument("--evaluations", type=int, default=60)
    chosen = parser.parse_args()
    sizes = {k: int(v) for k, v in (part.split("=") for part in chosen.size.split(",") if part)}
    watch, parts = Stopwatch(), {}
    for label, places in STEPS.items():
        for owner, name in places:
            watch.around(owner, name, label)
    search, accept = Campaign.search, Campaign.accept

    def searched(campaign):
        parts["before the search"] = watch.take()
        search(campaign)
        parts["search"] = watch.take()

    def accepted(campaign):
        found = accept(campaign)
        parts["acceptance"] = watch.take()
        return found

    Campaign.search, Campaign.accept = searched, accepted
    with tempfile.TemporaryDirectory() as folder:
        request = CampaignRequest(
            suite.find(chosen.problem),
            Path(folder) / "run",
            chosen.dtype,
            sizes or None,
            Budget(chosen.evaluations, 10),
            target="cuda",
        )
        document = optimize(request)
    bench = document["workloads"][0] if document["workloads"] else {}
    result = {
        "problem": chosen.problem,
        "dtype": document["dtype"],
        "sizes": document["sizes"],
        "machine": document["machine"],
        "evaluations": document["evaluations"],
        "rejected": document["rejected"],
        "search": document["search"],
        "median_us": bench.get("median_us"),
        "rounds": bench.get("rounds"),
        "seconds": document["seconds"],
        "parts": parts,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
