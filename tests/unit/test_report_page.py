"""The report: made from a real archive, complete, escaped, without network."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from kernelwright.errors import ArchiveError
from kernelwright.model import (
    Bound,
    Candidate,
    Claim,
    Dtype,
    Estimate,
    Exchange,
    Family,
    FrozenMap,
    Lineage,
    Machine,
    Measured,
    Peer,
    PublicProblem,
    Reason,
    Rejected,
    Signature,
    Stage,
    TensorArgument,
    Toolchain,
    Usage,
    Workload,
    WorkloadResult,
)
from kernelwright.problems import public_to_json
from kernelwright.report import gather, headline, render, roofline_svg, speedup_svg, write_report
from kernelwright.report.text import trust
from kernelwright.store import Archive, to_json
from kernelwright.testing import samples

MACHINE = Machine(
    "example-2c", "Example Processor", 2, 512, ("avx512f",), 2**15, 2**21, 2**25, 2**34, "Linux",
    toolchains=(Toolchain("g++", "/usr/bin/g++", "g++ 12.2.0", "libgomp", 2),),
    missing=FrozenMap({"clang++": "no omp.h"}), read_gbs=48.0, copy_gbs=60.0, triad_gbs=57.0,
    fma_gflops=210.0, isolation="sandbox",
    versions=FrozenMap({"python": "3.11.7", "torch": "2.13.0"}),
)  # fmt: skip
PUBLIC = PublicProblem(
    "rms_norm", "llm", "Divide each row by its root mean square, scale by w.",
    Signature((TensorArgument("x", ("T", "H")), TensorArgument("w", ("H",))),
              (TensorArgument("out", ("T", "H")),)),
    (Dtype.F32,), FrozenMap({"cpu": (FrozenMap({"T": 4096, "H": 1024}),)}),
    distributions=("normal", "outliers"), derived=("The ranges were derived from the example.",),
    reference_text="def rms_norm(x, w):\n    return x * w  # </script><b>\n",
)  # fmt: skip
SOURCE = """#include "kernelwright.h"
// @tune UNROLL = 1, 2, 4
// Sums of squares, then one scaled pass: a row stays in the first-level cache.
extern "C" int kernel(const float* x, float* out, int64_t T, int64_t H, void* stream) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < T; ++row) {
        float sum = 0.0f;
        for (int64_t i = 0; i < H; ++i) sum += x[row * H + i] * x[row * H + i];
    }
    return 0;
}
"""


def result(us: float, tier: str = "bench", sizes: dict[str, int] | None = None) -> WorkloadResult:
    def peer(name: str, time: float, passes: bool = True) -> Peer:
        ratio = time / us
        return Peer(
            name, Estimate(time, time * 0.97, time * 1.05),
            Estimate(ratio, ratio * 0.985, ratio * 1.012), passes, 0.4 if passes else 3.1,
        )  # fmt: skip

    sizes = sizes or {"T": 4096, "H": 1024}
    moved = 8 * sizes["T"] * sizes["H"] + 4 * sizes["H"]
    bound = Bound(
        moved / 62e3, "memory", moved, 4.0 * sizes["T"] * sizes["H"], "streaming copy 1:1", 62.0
    )
    return WorkloadResult(
        Workload("rms_norm", Dtype.F32, FrozenMap(sizes), tier=tier),
        Estimate(us, us * 0.99, us * 1.015), 104, bound, bound.median_us / us,
        (peer("eager", 3.4 * us), peer("compile", 1.42 * us), peer("F.rms_norm", 1.31 * us),
         peer("fast_wrong", 1.1 * us, passes=False)),
        FrozenMap({"numba": "not installed"}), 0.31,
    )  # fmt: skip


def candidate(unroll: int, lanes: int, family: str = "rowwise") -> Candidate:
    tunables = FrozenMap({"UNROLL": unroll, "LANES": lanes, "CXX": "g++", "FLAGS": "-O3"})
    return Candidate("cpp", "kernel", SOURCE, tunables, family, Lineage("generate"))


def fill(archive: Archive, finished: bool = True) -> Candidate:
    archive.add_machine(MACHINE)
    archive.add_event("problem", public=public_to_json(PUBLIC), dtype="f32")
    times = [1280.0, 980.0, 1104.0, 762.0, 870.0, 733.0, 741.0, 690.0, 702.0, 655.0, 668.0, 650.0]
    for index, us in enumerate(times):
        chosen = candidate(2 ** (index % 4), index, "rowwise" if index % 3 else "pointwise")
        archive.add_verdict(chosen, Measured((result(us),)), us)
        if index % 4 == 1:
            text = f"error: '<omp.h>' & more\n  line {index}"
            bad = Rejected(Stage.BUILD, Reason.COMPILE_ERROR, text)
            archive.add_verdict(candidate(64, index), bad)
    wrong = Rejected(Stage.CHECK, Reason.WRONG_RESULT, "out[3, 17]: expected 0.25, got 0.5")
    archive.add_verdict(candidate(3, 99), wrong)
    best = candidate(8, 11, "rowwise")
    accepted = (result(648.0), result(81.0, "heldout", {"T": 513, "H": 1023}))
    archive.add_verdict(best, Measured(accepted, accepted=True))
    if finished:
        archive.add_event(
            "result", best={"candidate": best.identity}, seconds=81.0,
            verified={"workloads": 46, "distributions": ["normal", "outliers"], "heldout": 3},
            operator_speed={"used_kernel": True, "note": "",
                      "cold": {"median_us": 702.0, "eager_us": 2300.0, "speedup": 3.28},
                      "warm": {"median_us": 655.0, "eager_us": 2100.0, "speedup": 3.21}},
        )  # fmt: skip
    return best


@pytest.fixture
def archive(tmp_path):
    with Archive.create(tmp_path / "run", {}) as opened:
        yield opened


class Outline(HTMLParser):
    """Checks nesting; collects addresses and script texts."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_finished_run_has_its_whole_story(archive, tmp_path):
    best = fill(archive)
    page = write_report(archive.folder).read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.addresses == []  # nothing is fetched
    assert "1.31× faster than F.rms_norm" in page
    for text in (
        "95 % interval 1.29–1.33", "streaming copy 1:1", "62.0 GB/s", "numba", "not installed",
        best.identity[:12], "out[3, 17]: expected 0.25", "The ranges were derived", "g++ 12.2.0",
        "heldout", "T=513, H=1023", "sandbox",
    ):  # fmt: skip
        assert text in page, text


def test_what_limits_the_winner_is_shown(archive):
    best = fill(archive)
    profile = to_json(samples.profile())
    archive.add_event("profile", candidate="another", profile=profile)
    assert "What limits it" not in render(gather(archive))
    archive.add_event("profile", candidate=best.identity, profile=profile)
    page = render(gather(archive))
    for text in ("What limits it", "spills", "scaled: values travel", "bytes spilled 64.0",
                 "No counters: ncu is not installed", "3.50 mJ a call"):  # fmt: skip
        assert text in page, text


def test_the_state_of_the_gpu_and_sanitizers_are_told():
    state = {**to_json(samples.telemetry())["data"], "throttled": True}
    document = {
        "workloads": [{"tier": "bench", "telemetry": state}],
        "sanitized": {"memcheck": "clean", "racecheck": "not finished within 60 s"},
    }
    told = dict(trust(document))
    assert told["sanitizer"] == "memcheck: clean; racecheck: not finished within 60 s"
    assert "throttled by power limit in 25%" in told["GPU"]
    assert "1755 MHz of 1980" in told["GPU"]


def test_diagnostics_and_sources_are_escaped(archive, tmp_path):
    fill(archive)
    page = render(gather(archive))
    assert "error: &#39;&lt;omp.h&gt;&#39; &amp; more" in page
    assert page.count("</script>") == 3  # the reference's own text ends none
    assert "&lt;/script&gt;&lt;b&gt;" in page


def test_the_ledger_of_the_models_is_shown_and_escaped(archive):
    best = fill(archive)
    assert gather(archive).accounts is None
    assert "What the models took" not in render(gather(archive))
    family = Family("refine:<img src=x>", "cpp", best.entry, best.source, Lineage("refine"))
    archive.add_family(family)
    usage = Usage(1200, 0, 345, 0.0125, 7.5)
    exchange = Exchange("refine/0/0/0", "coder", 2, "local:<b>", "h", "", "answered", usage)
    archive.add_event("exchange", **to_json(exchange))
    failed = replace(exchange, key="refine/0/1/0", role="critic", outcome="failed")
    archive.add_event("exchange", **to_json(failed))
    archive.add_event("proposed", loop="refine", round=0, families=[family.identity], ended="")
    found = gather(archive)
    assert found.accounts.total.requests == 2
    assert [row.label for row in found.accounts.by_role] == ["coder", "critic"]
    assert found.accounts.rounds[0].unusable == 1
    share = {"tokens": 1545, "dollars": None, "seconds": 7.5}
    models = {"per_candidate": share, "per_gain": None, "gain": 1.25}
    page = render(replace(found, document={**found.document, "models": models}))
    assert "local:&lt;b&gt;" in page
    assert "refine:&lt;img src=x&gt;: 648 µs" in page
    assert "<img" not in page
    for words in ("2,400", "690", "$0.025", "1,545 tokens, price unknown", "1.25× the best"):
        assert words in page


def test_the_figures_hold_the_measured_numbers(archive):
    fill(archive)
    page = render(gather(archive))
    drawn = re.search(r"const FIGURES = (.*?);</script>", page)
    assert drawn is not None
    figures = json.loads(drawn[1])
    bars = figures["times"]["data"][0]
    assert dict(zip(bars["y"], bars["x"], strict=True))["F.rms_norm"] == pytest.approx(648 * 1.31)
    winner = next(t for t in figures["roofline"]["data"] if t["name"] == "kernelwright")
    moved = 8 * 4096 * 1024 + 4 * 1024
    assert winner["x"][0] == pytest.approx(4 * 4096 * 1024 / moved)
    assert winner["y"][0] == pytest.approx(4 * 4096 * 1024 / 648e3)
    climbing = next(t for t in figures["progress"]["data"] if t["name"] == "best so far")
    assert climbing["y"] == [1280, 980, 762, 733, 690, 655, 650, 650]


def test_a_baseline_that_fails_its_check_is_never_the_best(archive):
    fill(archive)
    peer = gather(archive).best_baseline
    assert peer is not None
    assert peer.name == "F.rms_norm"


def test_an_unfinished_run_is_reported_too(archive):
    best = fill(archive, finished=False)
    evidence = gather(archive)
    assert evidence.best == best
    assert "1.31× faster" in render(evidence)


def test_a_run_without_a_winner_says_what_to_use(archive):
    archive.add_machine(MACHINE)
    archive.add_event("problem", public=public_to_json(PUBLIC), dtype="f32")
    archive.add_verdict(candidate(1, 1), Rejected(Stage.BUILD, Reason.COMPILE_ERROR, "no"))
    archive.add_event("result", best=None, advice="Use F.rms_norm.", seconds=3.0)
    evidence = gather(archive)
    assert headline(evidence) == ("No kernel was accepted", "Use F.rms_norm.")
    assert "Use F.rms_norm." in render(evidence)


def test_an_empty_run_is_a_users_error(archive):
    with pytest.raises(ArchiveError, match="nothing to report yet"):
        gather(archive)


def test_the_page_says_how_far_the_claim_carries(archive):
    fill(archive, finished=False)
    slow = Peer("eager", Estimate(60.0, 59.0, 61.0), Estimate(0.5, 0.4, 0.6), True, 0.1)
    heldout = WorkloadResult(
        Workload("rms_norm", Dtype.F32, FrozenMap({"T": 513, "H": 1023}), tier="heldout"),
        Estimate(120.0, 119.0, 121.0), 7, peers=(slow,), collapsed=True,
    )  # fmt: skip
    claim = Claim("F.rms_norm", "undecided", Estimate(1.4, 1.2, 1.5), 30)
    best = candidate(8, 11, "rowwise")
    archive.add_verdict(best, Measured((result(648.0), heldout), True, claim, False))
    document = {
        "claim": {"baseline": "F.rms_norm", "outcome": "undecided", "searched": 1.5,
                  "accepted": 1.4, "accepted_ci": [1.2, 1.5], "rounds": 30, "confirmed": 1.3,
                  "confirmed_ci": [1.1, 1.6], "confirming_rounds": 40, "shrinkage": 1 - 1.4 / 1.5,
                  "shrinkage_confirmed": 1 - 1.3 / 1.4},
        "generality": {"checked": 3, "collapsed": True, "timed": [
            {"sizes": {"T": 513, "H": 1023}, "baseline": "eager", "speedup": 0.5,
             "bench_speedup": 3.4}]},
        "deterministic": False,
    }  # fmt: skip
    archive.add_event("result", best={"candidate": best.identity}, seconds=1.0, **document)
    evidence = gather(archive)
    assert "level with" in headline(evidence)[0]  # whatever the interval says
    page = render(evidence)
    for words in (
        "Collapses at held-out sizes: 0.5 times as fast",
        "Calls on the same input differ",
        "collapses</span>",
        "not told apart from &#39;F.rms_norm&#39;: 1.400x (1.200 to 1.500) in 30 rounds",
        "the search saw 1.500x, acceptance 6.7% less, the confirmation another 7.1% less",
        "3 secret sizes right; 0.50x over &#39;eager&#39; on T=513, H=1023, 3.40x at the bench",
        "differ between calls",
    ):
        assert words in page


def test_the_pictures_are_sound_svg(archive):
    fill(archive)
    picture = ElementTree.fromstring(roofline_svg(gather(archive)))
    words = " ".join(picture.itertext())
    assert "kernelwright 648 µs" in words
    assert "62.0 GB/s" in words
    rows = [
        {"problem": "a<b", "dtype": "f32", "speedup_kernel": 2.0, "ci": [1.9, 2.1],
         "best_baseline": "compile"},
        {"problem": "none", "dtype": "f32", "speedup_kernel": None},
    ]  # fmt: skip
    bars = ElementTree.fromstring(speedup_svg(rows, "Speed-up & more"))
    text = " ".join(bars.itertext())
    assert "2.00× over compile" in text
    assert "a<b f32" in text
    assert "no kernel" in text
