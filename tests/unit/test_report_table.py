"""The Markdown table of a suite."""

from kernelwright.campaign.suite_run import summary
from kernelwright.report import suite_markdown

FACTS = {
    "cpu": "a CPU", "cores": 2, "os": "Linux", "read_gbs": 20.0, "copy_gbs": 19.0,
    "triad_gbs": 21.0, "fma_gflops": 300.0, "toolchains": {"g++": "g++ 12"},
    "versions": {"torch": "2.13"}, "isolation": "sandbox",
}  # fmt: skip


def _row(problem, speedup, **more):
    row = {
        "problem": problem, "dtype": "f32", "ours_us": 1000.0, "baseline_us": 1000.0 * speedup,
        "best_baseline": "compile", "baselines_run": ["compile", "eager"],
        "speedup_kernel": speedup,
        "ci": [speedup - 0.01, speedup + 0.01], "speedup_eager": 3.0, "speedup_compile": speedup,
        "fraction_of_bound": 0.8, "contested": True, "baselines_pass": {"eager": False},
    }  # fmt: skip
    return row | more


def test_every_row_names_its_baselines_and_those_that_fail_the_check():
    rows = [_row("gain", 2.0), _row("loss", 0.5)]
    missing = {"problem": "none", "dtype": "f32", "speedup_kernel": None, "reason": "no kernel"}
    rows.append(missing)
    table = {"machine_facts": FACTS, "command": "kernelwright suite", "problems": rows}
    text = suite_markdown(table | {"summary": summary(rows)})
    lines = text.splitlines()
    assert "**2.00x** (1.99 to 2.01)" in lines[2]
    assert "compile, eager*" in lines[2]
    assert "no kernel" in lines[4]
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert "Geometric mean over the best baseline 1.00x" in text
    assert "losses below 0.97x: loss f32, none f32" in text


def test_a_table_of_a_gpu_names_it_and_the_sizes():
    gpu = {
        "name": "a GPU", "driver": "1.2", "read_gbs": 4000.0, "write_gbs": 4100.0,
        "copy_gbs": 3900.0, "fma_gflops": 60000.0, "bf16_gflops": 700000.0,
    }  # fmt: skip
    rows = [_row("sum", 2.0, sizes={"N": n}) for n in (3, 4)]
    rows.append({"problem": "no", "dtype": "f32", "sizes": {"N": 5}, "speedup_kernel": None,
                 "reason": "failed: no memory"})  # fmt: skip
    table = {"machine_facts": FACTS | {"gpu": gpu}, "command": "kernelwright suite",
             "problems": rows, "target": "cuda", "summary": summary(rows)}  # fmt: skip
    text = suite_markdown(table)
    assert "Machine: a GPU, driver 1.2; read 4000, write 4100, copy 3900 GB/s" in text
    assert "| `sum` N=3 | f32 |" in text
    assert "| no N=5 | f32 | failed: no memory |" in text
    assert len({line.count("|") for line in text.splitlines()[:5]}) == 1
