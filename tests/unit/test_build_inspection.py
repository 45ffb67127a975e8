"""Inspecting built libraries: real ones, each with one fault; and those that must pass."""

import os
import subprocess

import pytest
from execution_support import candidate, source, toolchains

from kernelwright.build import Artifact, CppBuilder
from kernelwright.model import Reason, Rejected, Stage

BODY = "for (int64_t i = 0; i < n; ++i) y[i] = 2 * x[i]; return 0;"
GOOD = source("\n#pragma omp parallel for\n" + BODY)
CHAINS = pytest.mark.parametrize("chain", [t.name for t in toolchains()])


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    return CppBuilder(toolchains(), tmp_path_factory.mktemp("cache"))


def faulty(cpp, text: str, chain: str) -> str:
    result = cpp.build(candidate(text, CXX=chain))
    assert isinstance(result, Rejected), text
    assert (result.stage, result.reason) == (Stage.BUILD, Reason.UNSAFE_LIBRARY), result
    return result.diagnostic


AT_LOAD = {
    "constructor": "__attribute__((constructor)) static void f() { sink = 1; }",
    "static object": "struct S { S() { sink = 2; } }; static S s;",
    "static value": "int g(); static int value = sink + 1; int use() { return value; }",
    "init section": 'asm(".section .init,\\"ax\\",@progbits; nop; .text");',
    "ctors": 'void f() { sink = 1; } asm(".section .ctors,\\"aw\\"; .quad 0; .text");',
    "init array": (
        'extern "C" void f_() { sink = 1; }'
        'asm(".section .init_array,\\"aw\\",@init_array; .quad f_; .text");'
    ),
}


@CHAINS
@pytest.mark.parametrize("what", AT_LOAD)
def test_code_that_runs_at_load_is_refused(cpp, what, chain):
    text = f"volatile int sink;\n{AT_LOAD[what]}\n{GOOD}"
    assert "it runs code when it is loaded" in faulty(cpp, text, chain)


@CHAINS
@pytest.mark.parametrize(
    "definition",
    [
        "__attribute__((destructor)) static void f() { sink = 1; }",
        'asm(".section .fini,\\"ax\\",@progbits; nop; .text");',
    ],
)
def test_code_that_runs_at_the_end_is_refused(cpp, definition, chain):
    assert "unloaded" in faulty(cpp, f"volatile int sink;\n{definition}\n{GOOD}", chain)


USES = {
    "dlopen": ('dlopen("x", 1)', "dlfcn.h", "looks up code"),
    "dlsym": ('dlsym(0, "x")', "dlfcn.h", "looks up code"),
    "system": ('system("true")', "stdlib.h", "other processes"),
    "execv": ('execv("/bin/true", 0)', "unistd.h", "other processes"),
    "fork": ("fork()", "unistd.h", "other processes"),
    "clone": ("clone(0, 0, 0, 0)", "sched.h", "other processes"),
    "ptrace": ("ptrace(PTRACE_TRACEME)", "sys/ptrace.h", "other processes"),
    "socket": ("socket(2, 1, 0)", "sys/socket.h", "network"),
    "open": ('open("x", 0)', "fcntl.h", "files"),
    "fopen": ('fopen("x", "r")', "stdio.h", "files"),
    "mmap": ("mmap(0, 4096, 7, 34, -1, 0)", "sys/mman.h", "memory map"),
    "mprotect": ("mprotect(y, 4096, 7)", "sys/mman.h", "memory map"),
    "usleep": ("usleep(9)", "unistd.h", "sleeps"),
    "nanosleep": ("nanosleep(0, 0)", "time.h", "sleeps"),
    "clock_gettime": ("clock_gettime(1, 0)", "time.h", "clock"),
    "pthread_create": ("pthread_create(0, 0, 0, 0)", "pthread.h", "threads"),
    "syscall": ("syscall(39)", "unistd.h", "not among"),
    "setenv": ('setenv("a", "b", 1)', "stdlib.h", "environment"),
    "getenv": ('getenv("a")', "stdlib.h", "environment"),
    "atexit": ("atexit(0)", "stdlib.h", "ends"),
    "_exit": ("_exit(0)", "unistd.h", "ends the process"),
}


@pytest.mark.parametrize("name", USES)
def test_reaching_for_the_system_is_refused_by_name(cpp, name):
    call, header, why = USES[name]
    if name == "atexit":  # it is static in libc, and calls this
        name = "__cxa_atexit"
    found = faulty(cpp, source(f"(void){call}; {BODY}", header), toolchains()[0].name)
    assert f"it uses '{name}'" in found
    assert why in found


@pytest.mark.parametrize(
    ("statement", "header"),
    [
        ("std::thread([] {}).detach();", "thread"),
        ('std::ifstream("x").get();', "fstream"),
        ("y[0] = std::random_device()();", "random"),
        ("y[0] = std::chrono::steady_clock::now().time_since_epoch().count();", "chrono"),
    ],
)
def test_the_same_through_the_c_plus_plus_library(cpp, statement, header):
    found = faulty(cpp, source(f"{statement} {BODY}", header), toolchains()[0].name)
    assert "it uses '_ZNS" in found


def test_a_weak_reference_hides_nothing(cpp):
    text = 'extern "C" __attribute__((weak)) int system(const char*);\n'
    found = faulty(cpp, text + source('if (system) system("x"); return 0;'), toolchains()[0].name)
    assert "'system'" in found


STAND_INS = {
    "memcpy": "void* memcpy(void* a, const void*, size_t) noexcept { return a; }",
    "clock_gettime": "int clock_gettime(int, void*) { return 0; }",
    "omp_get_wtime": "double omp_get_wtime() { return 0; }",
    "GOMP_parallel": "void GOMP_parallel(void (*)(void*), void*, unsigned, unsigned) {}",
    "malloc": "void* malloc(size_t) { return 0; }",
}


@CHAINS
@pytest.mark.parametrize("hidden", ["", '__attribute__((visibility("hidden")))'])
@pytest.mark.parametrize("name", STAND_INS)
def test_standing_in_for_system_functions_is_refused(cpp, name, hidden, chain):
    text = f'#include <string.h>\nextern "C" {{ {hidden} {STAND_INS[name]} }}\n'
    assert f"it defines '{name}'" in faulty(cpp, text + GOOD, chain)


def test_replacing_operator_new_is_refused(cpp):
    text = "#include <new>\nvoid* operator new(std::size_t) { return 0; }\n" + GOOD
    assert "it defines '_Znwm'" in faulty(cpp, text, toolchains()[0].name)


def test_an_ifunc_is_refused(cpp):
    text = (
        'extern "C" int one() { return 1; }\n'
        'extern "C" void* resolve() { return (void*)one; }\n'
        'extern "C" __attribute__((ifunc("resolve"))) int chosen();\n'
    )
    found = faulty(cpp, text + source("return chosen();"), toolchains()[0].name)
    assert "chooses a function when it is loaded" in found


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ('.rela.dyn,\\"a\\",@progbits; .quad 0x4000, 37, 0x1100', "chooses a function"),
        ('.more,\\"a\\",@0x6ffffffe; .quad 0, 0', "not those that the loader reads"),
    ],
)
def test_forged_tables_of_the_loader_are_refused(cpp, section, said):
    text = f'asm(".section {section}; .text");\n' + GOOD
    result = cpp.build(candidate(text))
    assert isinstance(result, Rejected)
    assert said in result.diagnostic


def test_an_executable_stack_is_refused(cpp):
    text = 'asm(".section .note.GNU-stack,\\"x\\",@progbits; .text");\n' + GOOD
    assert "executable stack" in faulty(cpp, text, toolchains()[0].name)


def test_writable_code_is_refused(cpp):
    text = 'asm(".section .odd,\\"awx\\",@progbits; ret; .text");\n' + GOOD
    assert "code is writable" in faulty(cpp, text, toolchains()[0].name)


def test_a_cached_library_is_inspected_too(cpp):
    text = source("return getpid();", "unistd.h")
    trusting = CppBuilder(toolchains(), cpp.cache, inspects=False)
    assert isinstance(trusting.build(candidate(text)), Artifact)
    assert "'getpid'" in faulty(cpp, text, toolchains()[0].name)


def test_a_damaged_library_is_refused(cpp, tmp_path):
    from kernelwright.build.inspection import LoadCode, inspect

    good = cpp.build(candidate(GOOD)).path.read_bytes()
    path = tmp_path / "kernel.so"
    for data in (b"", good[:100], good[:-400], good[:4] + b"\1" + good[5:]):
        path.write_bytes(data)
        assert "cannot be read" in inspect(path, LoadCode(0, 0, 0, 0, 0))


HONEST = {
    "plain": GOOD,
    "mathematics": source("y[0] = expf(x[0]) + std::erf(x[1]) + tgamma(x[2]); return 0;", "cmath"),
    "scratch in a vector": source(
        "std::vector<float> a(n); for (auto& v : a) v = x[0]; y[0] = a[n - 1]; return 0;", "vector"
    ),
    "sorting": source("std::sort(y, y + n); return 0;", "algorithm"),
    "exceptions": source("try { if (n < 0) throw n; } catch (...) { return 3; } return 0;"),
    "thread-local": "static thread_local float held[64];\n" + source("held[n % 64] = 1; return 0;"),
    "tables": "static const float table[] = {1, 2, 3};\n"
    + source("y[0] = table[n % 3]; return 0;"),
    "locks": source("omp_lock_t l; omp_init_lock(&l); omp_set_lock(&l); return 0;", "omp.h"),
    "debugging": source('fprintf(stderr, "%f\\n", x[0]); assert(n); return 0;', "stdio.h assert.h"),
}


@CHAINS
@pytest.mark.parametrize("what", HONEST)
@pytest.mark.parametrize("flags", ["-O3 -march=native", "-O0", "-O2 -fno-math-errno -fno-plt"])
def test_honest_kernels_pass(cpp, what, flags, chain):
    result = cpp.build(candidate(HONEST[what], CXX=chain, FLAGS=flags))
    assert isinstance(result, Artifact), result


def test_the_parser_agrees_with_readelf(cpp):
    from kernelwright.build.elf import DT_NEEDED, SharedLibrary

    text = source("y[0] = expf(x[0]); std::sort(y, y + n); return 0;", "cmath algorithm")
    path = cpp.build(candidate(text)).path
    library = SharedLibrary(path.read_bytes())
    run = {
        "capture_output": True,
        "text": True,
        "check": True,
        "env": {**os.environ, "LC_ALL": "C"},
    }
    for option, symbols in (("--dyn-syms", library.dynamic_symbols), ("--syms", library.symbols)):
        lines = subprocess.run(["readelf", "-W", option, str(path)], **run).stdout
        tables = lines.split("Symbol table")[1:]
        wanted = tables[0] if option == "--dyn-syms" else tables[-1]
        rows = [line.split() for line in wanted.splitlines() if line.strip()[:1].isdigit()]
        names = [row[7].split("@")[0] if len(row) > 7 else "" for row in rows[1:]]
        ours = [s.name.split("@")[0] for s in symbols]
        assert [n for n in ours if n] == [n for n, s in zip(names, symbols, strict=True) if s.name]
    dynamic = subprocess.run(["readelf", "-dW", str(path)], **run).stdout
    for name in library.texts(DT_NEEDED):
        assert f"[{name}]" in dynamic
    assert len(library.dynamic) == len([x for x in dynamic.splitlines() if " 0x0" in x]) - 1
