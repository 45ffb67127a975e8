"""Building: the cache key is complete, failures are values with the compiler's words."""

import ctypes
import dataclasses
import os

import numpy as np
import pytest
from execution_support import built, candidate, source, toolchains

from kernelwright.build import Artifact, CppBuilder, build_runtime, builder, include_folder
from kernelwright.model import Candidate, FrozenMap, Reason, Rejected, Stage, Toolchain
from kernelwright.sandbox import isolation

TEXT = source("for (int64_t i = 0; i < n; ++i) y[i] = FACTOR * x[i]; return 0;")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cpp(cache):
    return CppBuilder(toolchains(), cache)


def rejected(result) -> Rejected:
    assert isinstance(result, Rejected), result
    return result


def test_a_build_is_cached_and_says_so(cpp):
    first = cpp.build(candidate(TEXT, FACTOR=2))
    again = cpp.build(candidate(TEXT, FACTOR=2))
    assert isinstance(first, Artifact)
    assert (first.cached, again.cached) == (False, True)
    assert dataclasses.replace(first, cached=True) == again
    assert first.candidate == candidate(TEXT, FACTOR=2).identity
    assert first.path.is_file()


def test_a_tunable_that_changes_nothing_is_seen_in_the_binary(cpp):
    same = [cpp.build(candidate(TEXT, FACTOR=2, UNUSED=i)) for i in (1, 2)]
    other = cpp.build(candidate(TEXT, FACTOR=3))
    assert same[0].key != same[1].key
    assert same[0].binary_hash == same[1].binary_hash != other.binary_hash


def test_everything_that_decides_the_binary_is_in_the_key(cache, monkeypatch, tmp_path):
    base = toolchains()[0]
    reference = CppBuilder([base], cache).key(candidate(TEXT, FACTOR=2))
    keys = {"reference": reference}
    keys["macro value"] = CppBuilder([base], cache).key(candidate(TEXT, FACTOR=3))
    keys["macro name"] = CppBuilder([base], cache).key(candidate(TEXT, FACTO=2))
    keys["source"] = CppBuilder([base], cache).key(candidate(TEXT + "\n", FACTOR=2))
    keys["flags"] = CppBuilder([base], cache).key(candidate(TEXT, FACTOR=2, FLAGS="-O2"))
    version = dataclasses.replace(base, version=base.version + ".1")
    keys["version"] = CppBuilder([version], cache).key(candidate(TEXT, FACTOR=2))
    link = tmp_path / "g++"
    link.symlink_to(base.path)
    path = dataclasses.replace(base, path=str(link))
    keys["path"] = CppBuilder([path], cache).key(candidate(TEXT, FACTOR=2))
    with monkeypatch.context() as patch:
        patch.setattr(builder, "_isa", lambda: "another processor")
        keys["isa"] = CppBuilder([base], cache).key(candidate(TEXT, FACTOR=2))
    with monkeypatch.context() as patch:
        folder = tmp_path / "include"
        folder.mkdir()
        (folder / "kernelwright.h").write_text("// another header\n")
        patch.setattr(builder, "include_folder", lambda: folder)
        keys["header"] = CppBuilder([base], cache).key(candidate(TEXT, FACTOR=2))
    assert len(set(keys.values())) == len(keys), keys
    assert CppBuilder([base], cache).key(candidate(TEXT, FACTOR=2)) == reference


def test_moving_text_between_flags_and_macros_changes_the_key(cpp):
    one = cpp.key(candidate(TEXT, FACTOR=2, FLAGS="-O2 -DA=1"))
    two = cpp.key(candidate(TEXT, FACTOR=2, FLAGS="-O2", A=1))
    assert one != two


def test_the_isa_names_this_processor():
    with open("/proc/cpuinfo") as lines:
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    assert flags.strip() in builder._isa()


def test_a_damaged_artifact_is_built_again(cpp):
    first = cpp.build(candidate(TEXT, FACTOR=5))
    with open(first.path, "ab") as file:
        file.write(b"more")
    again = cpp.build(candidate(TEXT, FACTOR=5))
    assert not again.cached
    assert again.binary_hash == first.binary_hash
    assert cpp.build(candidate(TEXT, FACTOR=5)).cached


def test_compile_errors_show_the_line_without_paths(cpp, cache):
    result = rejected(cpp.build(candidate(source("return undeclared;"))))
    assert (result.stage, result.reason) == (Stage.BUILD, Reason.COMPILE_ERROR)
    assert "kernel.cpp:3" in result.diagnostic
    assert "undeclared" in result.diagnostic
    assert str(cache) not in result.diagnostic


def test_undefined_symbols_fail_the_build(cpp):
    text = 'extern "C" int elsewhere();\n' + source("return elsewhere();")
    result = rejected(cpp.build(candidate(text)))
    assert result.reason is Reason.COMPILE_ERROR
    assert "elsewhere" in result.diagnostic


def test_floods_of_errors_are_clipped(cpp):
    text = "\n".join(f"int f{i}() {{ return missing_{i}_{'x' * 400}; }}" for i in range(60))
    result = rejected(cpp.build(candidate(text)))
    assert len(result.diagnostic) < 4200


def test_endless_compilation_is_stopped(cache):
    text = """
    template <int depth, long path> struct Tree : Tree<depth - 1, 2 * path>,
        Tree<depth - 1, 2 * path + 1> {};
    template <long path> struct Tree<0, path> {};
    extern "C" int kernel() { return sizeof(Tree<40, 0>); }
    """
    slow = CppBuilder(toolchains(), cache, timeout_s=1.0)
    result = rejected(slow.build(candidate(text)))
    assert result.reason is Reason.COMPILE_TIMEOUT
    assert "1 s" in result.diagnostic
    assert list((cache / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "flags", ["-fplugin=x.so", "-o /tmp/x", "-wrapper sh", "@file", "-Wl,-rpath,/", "'", "x.cpp"]
)
def test_flags_that_do_more_than_tune_are_refused(cpp, flags):
    result = rejected(cpp.build(candidate(TEXT, FLAGS=flags)))
    assert (result.stage, result.reason) == (Stage.DECLARE, Reason.BAD_DECLARATION)
    assert "FLAGS" in result.diagnostic
    assert cpp.supports(candidate(TEXT, FLAGS=flags)) == result.diagnostic


def test_flags_that_the_compiler_does_not_know_are_named(cpp):
    result = rejected(cpp.build(candidate(TEXT, FACTOR=1, FLAGS="-O2 -fno-such-thing")))
    assert result.reason is Reason.COMPILE_ERROR
    assert "-fno-such-thing" in result.diagnostic


def test_an_unknown_compiler_names_those_that_are_here(cpp):
    result = rejected(cpp.build(candidate(TEXT, FACTOR=1, CXX="icpx")))
    assert result.reason is Reason.TOOLCHAIN_MISSING
    assert toolchains()[0].name in result.diagnostic


def test_a_strange_macro_name_is_refused(cpp):
    strange = Candidate("cpp", "kernel", TEXT, FrozenMap({"A B": 1}))
    assert rejected(cpp.build(strange)).reason is Reason.BAD_DECLARATION


def test_without_a_compiler_the_mend_is_named(tmp_path):
    empty = CppBuilder((), tmp_path)
    assert "install g++" in (empty.available() or "")
    assert rejected(empty.build(candidate(TEXT))).reason is Reason.TOOLCHAIN_MISSING


def test_other_languages_are_left_to_others(cpp):
    assert "cuda" in (cpp.supports(Candidate("cuda", "kernel", TEXT)) or "")
    assert cpp.supports(candidate(TEXT, FACTOR=2)) is None


def test_many_are_built_at_once_by_identity(cpp):
    wanted = [candidate(TEXT, FACTOR=10 + i) for i in range(4)] + [candidate("nonsense")]
    results = cpp.build_many([*wanted, wanted[0]])
    assert list(results) == [c.identity for c in wanted]
    assert all(results[c.identity].candidate == c.identity for c in wanted[:4])
    assert rejected(results[wanted[4].identity]).reason is Reason.COMPILE_ERROR


def test_hostile_source_cannot_read_the_home(cpp, tmp_path_factory):
    secret = tmp_path_factory.mktemp("home") / "secret"
    secret.write_text("int leaked;\n")
    result = cpp.build(candidate(f'#include "{secret}"\n' + source("return 0;")))
    if isinstance(result, Artifact):
        assert isolation() == "process"
    else:
        assert "No such file" in result.diagnostic or "not found" in result.diagnostic


@pytest.mark.parametrize("mode", ["sandbox", "process"])
@pytest.mark.parametrize("chain", [t.name for t in toolchains()])
@pytest.mark.parametrize(
    "how",
    [
        '#include "{}"', "int x =\n#include <{}>\n;", 'asm(".include \\"{}\\"");',
        '#line 1 "kernel.cpp"\n#include "{}"',
    ],
)  # fmt: skip
def test_diagnostics_do_not_quote_files_of_the_host(
    cpp, tmp_path_factory, monkeypatch, how, chain, mode
):
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text("root:hunter2:0:0\n  hunter2 again\n#error hunter2\n")
    monkeypatch.setenv("KERNELWRIGHT_ISOLATION", mode)
    text = how.format(secret) + "\n" + source("return undeclared;")
    result = rejected(cpp.build(candidate(text, CXX=chain)))
    assert "hunter2" not in result.diagnostic
    if mode == "process" and "asm" not in how:
        assert "is not shown" in result.diagnostic


@pytest.mark.parametrize("chain", [t.name for t in toolchains()])
def test_no_way_of_including_bytes_finds_files_of_the_host(cpp, tmp_path, chain):
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    if isolation() == "process":
        pytest.skip("bubblewrap does not work here")
    tricks = [
        f'asm(".data; .incbin \\"{secret}\\"; .text");',
        f'const char held[] = {{\n#embed "{secret}"\n}};',
        'asm(".data; .incbin \\"/etc/passwd\\"; .text");',
        '#if !__has_include("/etc/passwd")\n#error it is not here\n#endif',
    ]
    for trick in tricks:
        result = rejected(cpp.build(candidate(f"{trick}\n{source('return 0;')}", CXX=chain)))
        assert result.reason is Reason.COMPILE_ERROR
        assert "hunter2" not in result.diagnostic


def test_errors_in_the_compilers_own_headers_are_shown(cpp):
    body = "std::vector<const float> a(n); return a.size();"
    result = rejected(cpp.build(candidate(source(body, "vector"))))
    assert "static assertion failed" in result.diagnostic
    assert "is not shown" not in result.diagnostic


def test_every_toolchain_ran_its_probe_on_several_threads():
    assert toolchains()
    for toolchain in toolchains():
        assert toolchain.threads == max(2, len(os.sched_getaffinity(0)))
        assert toolchain.openmp == ("libomp" if "clang" in toolchain.name else "libgomp")


def test_a_compiler_without_openmp_is_missing_with_a_reason(tmp_path, monkeypatch):
    from kernelwright.build import discover_toolchains

    fake = tmp_path / "bin" / "g++-99"
    fake.parent.mkdir()
    real = toolchains()[0].path
    script = f'#!/bin/sh\nexec {real} "$@" -fno-openmp\n'
    fake.write_text(script)
    fake.chmod(0o755)
    (fake.parent / "clang++").write_text("#!/bin/sh\nexit 1\n")
    (fake.parent / "clang++").chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    usable, missing = discover_toolchains()
    assert usable == ()
    assert "1 of" in missing["g++-99"]
    assert "--version" in missing["clang++"]


@pytest.mark.parametrize("toolchain", toolchains(), ids=lambda t: t.name)
def test_the_worker_host_is_built_once_per_toolchain(toolchain: Toolchain, tmp_path):
    path = build_runtime(toolchain, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert build_runtime(toolchain, tmp_path) == path
    assert path.stat().st_mtime_ns == stamp


CONVERT = """#include "kernelwright.h"
extern "C" void widen(const T* in, float* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = to_float(in[i]);
}
extern "C" void narrow(const float* in, T* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = from_float<T>(in[i]);
}
"""


@pytest.mark.parametrize(
    ("name", "torch_name", "bits"),
    [("bf16", "bfloat16", 16), ("f16", "float16", 16), ("f8e4m3", "float8_e4m3fn", 8),
     ("f8e5m2", "float8_e5m2", 8)],
)  # fmt: skip
def test_narrow_types_convert_as_torch_does(cache, name, torch_name, bits):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, torch_name)
    library = ctypes.CDLL(str(built(cache, CONVERT, T=name).path))
    codes = np.arange(1 << bits, dtype=f"uint{bits}")
    wide = np.empty(codes.size, np.float32)
    library.widen(codes.ctypes, wide.ctypes, codes.size)
    expected = torch.from_numpy(codes).view(dtype).float().numpy()
    assert np.array_equal(wide, expected, equal_nan=True)
    generator = np.random.default_rng(1)
    patterns = generator.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    values = patterns.view(np.float32)
    finite = wide[np.isfinite(wide)]
    with np.errstate(invalid="ignore"):
        middle = (finite[:-1].astype(np.float64) + finite[1:]) / 2  # ties
        scales = np.exp2(generator.uniform(-30, 20, 100_000)) * generator.normal(size=100_000)
        values = np.concatenate([values, middle, finite, scales]).astype(np.float32)
    narrow = np.empty(values.size, codes.dtype)
    library.narrow(values.ctypes, narrow.ctypes, values.size)
    if name == "f8e4m3":  # torch before 2.13 makes NaN of what is too large
        assert (narrow[values > 1e3] == 0x7E).all()
        keep = ~(np.abs(values) > 448)
        values, narrow = values[keep], narrow[keep]
    wanted = torch.from_numpy(values).to(dtype)
    got = torch.from_numpy(narrow).view(dtype).float().numpy()
    assert np.array_equal(got, wanted.float().numpy(), equal_nan=True)
    signs = np.signbit(got) == np.signbit(wanted.float().numpy())
    assert signs[~np.isnan(got)].all()


def test_the_header_is_where_it_is_said_to_be():
    assert (include_folder() / "kernelwright.h").is_file()
