"""The judge where workers find other memory than it sees, as on a GPU; here both are host pages."""

import os
from dataclasses import replace

import numpy as np
import pytest
from judging import rms_norm

from kernelwright import suite
from kernelwright.build import Builders, user_cache_folder
from kernelwright.evaluation import Judge, JudgeSettings
from kernelwright.execution import Arena
from kernelwright.machine import probe
from kernelwright.model import Candidate, FrozenMap, Measured, Rejected


class TwinArena(Arena):
    """Workers map another memory file than the one that `view` shows."""

    mirrored = True

    def __init__(self, name, nbytes, huge=True):
        super().__init__(name, nbytes, huge)
        self.lent = Arena(name, nbytes, huge)

    def fill(self, offset, nbytes, byte):
        self.lent.fill(offset, nbytes, byte)

    def put(self, offset, source):
        self.lent.put(offset, source)

    def copy(self, offset, nbytes, source, start=None):
        self.lent.copy(offset, nbytes, source.lent, start)

    def flood(self, word):
        self.lent.flood(word)

    def fetch(self, offset, nbytes):
        mirror = self.view(offset, nbytes)
        np.copyto(mirror, self.lent.view(offset, nbytes))
        return mirror

    @property
    def fd(self):
        return self.lent.fd  # what the oracle maps is what workers find

    @property
    def specification(self):
        return self.lent.specification

    @property
    def descriptors(self):
        return self.lent.descriptors

    def seal(self):
        pass

    def close(self):
        if hasattr(self, "lent"):
            self.lent.close()
        super().close()


@pytest.fixture(scope="module")
def judge():
    machine = probe()
    builder = Builders(machine.toolchains, user_cache_folder())
    settings = replace(
        JudgeSettings.quick(), heldout=1, heldout_timed=0, baselines=("eager",),
        accept_seconds=0.5, confirm_seconds=0.5,
    )  # fmt: skip
    sizes = {"T": 512, "H": 1024}
    made = Judge(suite.find("rms_norm"), "f32", sizes, machine, builder, 1, settings)
    made.ground = replace(
        made.ground, make_arena=TwinArena, throw_out=None, renews=False, fill_gbs=4000.0
    )
    made._workspaces.make = TwinArena
    made._prepared.make = made._prepared.made.make = TwinArena
    with made.open():
        yield made


def screened(judge, source):
    candidate = Candidate("cpp", "kernel", source, FrozenMap())
    return judge.screen(candidate, judge.builder.build(candidate)).verdict


def test_a_right_kernel_passes_and_baselines_are_judged(judge):
    verdict = screened(judge, rms_norm())
    assert isinstance(verdict, Measured), verdict
    assert judge.time_baselines(rounds=2)["eager"] > 0
    assert all(report.passes_check for report in judge.baseline_reports)


def test_a_right_kernel_is_accepted_with_all_checks(judge):
    candidate = Candidate("cpp", "kernel", rms_norm(), FrozenMap())
    verdict = judge.accept(candidate, judge.builder.build(candidate))
    assert isinstance(verdict, Measured), verdict
    assert verdict.deterministic
    assert verdict.workloads[0].error <= 1
    assert judge.verified()["heldout"] == 1


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"start": "if (bench(T, H)) return 0;"}, "not_written"),
        ({"row": "scale = 0;"}, "wrong_result"),
        ({"end": "out[T * H] = 1;"}, "red_zone"),
        ({"end": "((float*)x)[0] += 1;"}, "wrote_input"),
        ({"row": "if (t == T - 1) scale *= 1.01f;"}, "wrong_result"),
    ],
    ids=["nothing", "zeros", "past the end", "input", "one row"],
)
def test_a_wrong_kernel_is_rejected(judge, parts, reason):
    verdict = screened(judge, rms_norm(**parts))
    assert isinstance(verdict, Rejected), verdict
    assert str(verdict.reason) == reason


def test_every_memory_is_given_back():
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        TwinArena("a", 1 << 16).close()
    assert len(os.listdir("/proc/self/fd")) == before
