"""The machine record and the live roof."""

import os
import re
import time

import pytest
from execution_support import descendants, open_descriptors, toolchains

from kernelwright.errors import MachineError
from kernelwright.machine import RoofProbe, facts, probe
from kernelwright.machine import probe as probe_function


@pytest.fixture(scope="module")
def roof(tmp_path_factory):
    with RoofProbe(toolchains(), 2, 8 << 20, tmp_path_factory.mktemp("cache")) as opened:
        yield opened


def test_rates_are_those_of_a_machine(roof):
    rates = roof.rates(("read", "copy", "triad", "write"))
    assert all(0.5 < rate < 5000 for rate in rates.values()), rates
    assert 2 < roof.gflops() < 100_000
    if "amx_bf16" in facts.isa_flags():
        products = roof.gflops("bf16 products")
        assert products > 0.5 * roof.gflops()
        # one after the other on a shared machine
        assert any(
            0.5 * products < 6 * roof.gflops("6 bf16 products") < 2 * products for _ in range(20)
        )


def test_probes_of_the_workloads_mix_are_the_roof(roof):
    assert roof.measure(1 << 20, 0).roof == "read"
    assert roof.measure(0, 1 << 20).roof == "write"
    mixed = roof.measure(2 << 20, 1 << 20)
    assert mixed.roof in {"triad", "read and copy", "read and write"}
    assert 0.5 < mixed.gbs < 5000


def test_a_round_takes_little_longer_than_its_probes(roof, monkeypatch):
    spent, run = [], roof._run

    def measured(*arguments):
        us = run(*arguments)
        spent.append(us / 1e6)
        return us

    monkeypatch.setattr(roof, "_run", measured)

    def overhead():
        spent.clear()
        begin = time.perf_counter()
        roof.measure(1, 1)
        return (time.perf_counter() - begin) / sum(spent)

    # whatever else this machine does, one of many rounds finds it quiet
    assert any(overhead() < 6 for _ in range(200))


def test_it_is_stopped_between_rounds(roof):
    roof.measure(1, 1)
    with open(f"/proc/{roof._worker.pid}/stat") as file:
        assert file.read().rpartition(") ")[2][0] == "T"


def test_nothing_is_left_of_a_roof(tmp_path):
    before = descendants(), open_descriptors()
    RoofProbe(toolchains(), 1, 1 << 20, tmp_path).close()
    assert descendants() <= before[0]
    assert open_descriptors() <= before[1]


def test_the_record_is_complete(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = probe()
    assert machine.cores == facts.usable_cores()
    assert re.fullmatch(r"[a-z0-9.-]+", machine.name)
    assert machine.name.endswith(f"-{machine.cores}c")
    assert machine.vector_bits in (128, 256, 512)
    assert 8 << 10 <= machine.l1_bytes <= machine.l2_bytes <= machine.l3_bytes
    assert machine.l3_bytes < machine.memory_bytes
    assert machine.toolchains == toolchains()
    assert min(machine.read_gbs, machine.copy_gbs, machine.triad_gbs, machine.write_gbs) > 0.5
    assert machine.fma_gflops > 2
    assert machine.isolation in ("sandbox", "process")
    assert {"python", "numpy"} <= set(machine.versions)
    begin = time.perf_counter()
    assert probe() == machine
    assert time.perf_counter() - begin < 1.0


def test_more_threads_than_cores_are_refused():
    with pytest.raises(MachineError, match=r"100000 threads .* cores"):
        probe(threads=100_000)


def test_without_a_compiler_the_mend_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match=r"install g\+\+ 11 or newer") as caught:
        probe_function()
    assert "\n" not in str(caught.value)
    with pytest.raises(MachineError, match="install g"):
        RoofProbe((), 1, 1 << 20, tmp_path)


@pytest.mark.parametrize(
    ("cpu", "name"),
    [
        ("Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz", "xeon-platinum-8259cl-2c"),
        ("AMD EPYC 9554 64-Core Processor", "epyc-9554-2c"),
        ("13th Gen Intel(R) Core(TM) i7-1360P", "13th-gen-i7-1360p-2c"),
    ],
)
def test_names_are_short_and_safe(monkeypatch, cpu, name):
    monkeypatch.setattr(facts, "cpu_name", lambda: cpu)
    assert facts.machine_name(2) == name


def test_cores_are_those_of_the_affinity():
    assert 1 <= facts.usable_cores() <= len(os.sched_getaffinity(0))
