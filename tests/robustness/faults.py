"""A family whose tunable `FAULT` picks, at compile time, one way in which a kernel can fail.

`SALT` makes binaries differ that fail alike. Nothing here is optimised: the size is tiny.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelwright.evaluation import Judge
from kernelwright.model import Family, FrozenMap, Lineage, Measured, Rejected, Verdict

SIZES = FrozenMap({"T": 64, "H": 48})
GOOD = "good"
KILLED = "killed from outside"

_SOURCE = r"""
#include "kernelwright.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cmath>
#include <stdexcept>
// @tune FAULT = @FAULTS@
// @tune SALT = @SALTS@
// @require SALT < @FEW@ or FAULT == 0
// @tune FLAGS = "-O1 -march=native"
extern "C" const int kernel_salt = SALT;

// System calls without the C library, which the inspection of libraries cannot see.
static long raw(long number, long a = 0, long b = 0, long c = 0) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}
enum { SYS_read = 0, SYS_open = 2, SYS_close = 3, SYS_munmap = 11, SYS_getpid = 39, SYS_fork = 57,
       SYS_gettid = 186, SYS_exit_group = 231, SYS_tgkill = 234 };
static char maps[1 << 18];
static char* shared_page() {
    const long fd = raw(SYS_open, (long)"/proc/self/maps", 0);
    long held = 0, got;
    while (fd >= 0 && (got = raw(SYS_read, fd, (long)(maps + held), sizeof maps - 1 - held)) > 0)
        held += got;
    maps[held] = 0;
    char* at = strstr(maps, "kernelwright-page");
    if (at == nullptr) return nullptr;
    while (at > maps && at[-1] != '\n') --at;
    unsigned long first = 0;
    for (; *at != '-'; ++at) first = 16 * first + (*at <= '9' ? *at - '0' : *at - 'a' + 10);
    return (char*)first;
}
static void raise_here(int number) {
    raw(SYS_tgkill, raw(SYS_getpid), raw(SYS_gettid), number);
}
// Where the half of the page begins that workers write after the load: see worker/page.hpp.
enum { PROBLEM = 8 + 8 + 8 + 32 * 8 + 8 * 8 + 256 * 8 + 4,
       END = PROBLEM + 4 * 3 + 8 * 4 + 4 * 2 + 8 * 3 + 4 * 2 + 1024 };
static bool bench(int64_t T, int64_t H) { return T == 64 && H == 48; }
static long calls = 0;
static volatile char sink;
static int overflow(volatile char* above, int64_t n) {
    volatile char frame[4096];
    frame[0] = (char)n;
    sink = *above;
    return overflow(frame, n + 1) + frame[0];
}
@OUTSIDE@
extern "C" int ENTRY(const float* x, const float* w, float* out, int64_t T, int64_t H,
                     const void*, void* workspace, int64_t workspace_bytes, void*) {
    ++calls;
    float factor = 1;
    int64_t last = H;
    (void)raise_here; (void)shared_page; (void)overflow; (void)bench;
    @BEFORE@
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        double sum = 0;
        for (int64_t h = 0; h < H; ++h) sum += double(x[t * H + h]) * x[t * H + h];
        for (int64_t h = 0; h < last; ++h)
            out[t * H + h] = float(double(x[t * H + h]) / (1 + std::exp(-double(w[h]))) * sum / H)
                             * factor;
    }
    @AFTER@
    return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail, and the verdict that it must get."""

    name: str
    ending: tuple[str, str] | None
    """Stage and reason; None: the kernel is right."""
    before: str = ""
    after: str = ""
    outside: str = ""


_FOREVER = "for (volatile int i = 0;;) {}"
FAULTS = (
    Fault(GOOD, None),
    Fault("null pointer", ("check", "crash"), "*(volatile int*)8 = 1;"),
    Fault("abort", ("check", "crash"), "abort();"),
    Fault("exception", ("check", "crash"), 'throw std::runtime_error("thrown");'),
    Fault("stack overflow", ("check", "crash"), "char c = 0; return overflow(&c, 0);"),
    Fault("division", ("check", "crash"), "volatile int zero = 0; return 5 / zero;"),
    Fault("illegal instruction", ("check", "crash"), "__builtin_trap();"),
    Fault("crash in the team", ("check", "crash"),
          "\n#pragma omp parallel\n{ *(volatile int*)16 = 1; }"),
    Fault("hang", ("check", "hang"), _FOREVER),
    Fault("stops itself", ("check", "hang"), "raise_here(19);" + _FOREVER),
    Fault("fork", ("build", "unsafe_library"), "if (fork() < 0) return 3;",
          outside="#include <unistd.h>"),
    Fault("fork bomb without the library", ("check", "hang"), "for (;;) raw(SYS_fork);"),
    Fault("leak", ("check", "out_of_memory"),
          "memset(malloc(64 << 20), 1, 64 << 20); __asm__ volatile(\"\" ::: \"memory\");"),
    Fault("exhausted memory", ("check", "out_of_memory"),
          "for (;;) *(volatile char*)malloc(1 << 24) = 1;"),
    Fault("flood", ("check", "endless_output"), 'for (;;) puts("flood flood flood flood");'),
    Fault("prints, then crashes", ("check", "crash"),
          'puts("{\\"verdict\\": \\"measured\\"}"); fflush(stdout); abort();'),
    Fault("a problem on the page", ("check", "exited"),
          "char* p = shared_page(); if (!p) return 9; *(uint32_t*)(p + PROBLEM) = 77 + SALT;"),
    Fault("scribbled page", ("check", "crash"),
          "char* p = shared_page(); if (!p) return 9; memset(p + PROBLEM, 0xff, END - PROBLEM);"),
    Fault("no page", ("check", "crash"),
          "char* p = shared_page(); if (!p) return 9; raw(SYS_munmap, (long)p, 4096);"),
    Fault("closes everything", ("check", "exited"),
          "for (int i = 0; i < 1024; ++i) raw(SYS_close, i);"),
    Fault(KILLED, ("check", "killed"), "++calls;" + _FOREVER),
    Fault("kills itself", ("check", "killed"), "raise_here(9);"),
    Fault("leaves", ("check", "exited"), "raw(SYS_exit_group, 0);"),
    Fault("wrong", ("check", "wrong_result"), "factor = 1.01f;"),
    Fault("wrong at the bench size", ("screen", "wrong_result"),
          "if (bench(T, H)) factor = 1.01f;"),
    Fault("crash at the bench size", ("screen", "crash"), "if (bench(T, H)) abort();"),
    Fault("hang at the bench size", ("screen", "hang"), f"if (bench(T, H)) {_FOREVER}"),
    Fault("nothing written", ("check", "not_written"), "return 0;"),
    Fault("past the end", ("check", "red_zone"), after="out[T * H] = 1;"),
    Fault("writes an input", ("check", "wrote_input"), "const_cast<float*>(x)[0] = 1;"),
    Fault("error code", ("check", "error_code"), "return 7;"),
    Fault("denormal mode", ("check", "floating_point_state"),
          "__builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040);"),
    Fault("missing symbol", ("load", "missing_symbol"), outside="#define ENTRY other"),
    Fault("compile error", ("build", "compile_error"), "this is not C++;"),
    Fault("constructor", ("build", "unsafe_library"),
          outside="__attribute__((constructor)) static void arrive() { calls = 1; }"),
    Fault("absurd workspace", ("check", "out_of_memory"),
          outside='extern "C" int64_t kernel_workspace(int64_t, int64_t) { return 1LL << 50; }'),
    Fault("hang in its workspace", ("check", "hang"),
          outside=f'extern "C" int64_t kernel_workspace(int64_t, int64_t) {{ {_FOREVER} }}'),
)  # fmt: skip
NUMBER = {fault.name: number for number, fault in enumerate(FAULTS)}


def family(salts: int, good: int) -> Family:
    """Every fault with so many salts, and so many good kernels, which are more."""

    def chosen(part: str) -> str:
        texts = [(number, getattr(fault, part)) for number, fault in enumerate(FAULTS)]
        return "\n".join(f"#if FAULT == {n}\n{text}\n#endif" for n, text in texts if text)

    outside = chosen("outside") + "\n#ifndef ENTRY\n#define ENTRY kernel\n#endif"
    source = (
        _SOURCE.replace("@FAULTS@", ", ".join(map(str, range(len(FAULTS)))))
        .replace("@SALTS@", ", ".join(map(str, range(good))))
        .replace("@FEW@", str(salts))
        .replace("@OUTSIDE@", outside)
        .replace("@BEFORE@", chosen("before"))
        .replace("@AFTER@", chosen("after"))
    )
    return Family("faults", "cpp", "kernel", source, Lineage("scripted"))


def ending(verdict: Verdict) -> tuple[str, str] | None:
    """What came of a candidate, as `Fault.ending` says it."""
    if isinstance(verdict, Measured):
        return None
    assert isinstance(verdict, Rejected)
    return str(verdict.stage), str(verdict.reason)


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            found[int(name)] = int(stat.rpartition(") ")[2].split()[1])
    return found


def descendants(of: int | None = None) -> set[int]:
    """Processes below this one, zombies included."""
    parents, root = _parents(), of or os.getpid()
    found: set[int] = set()
    for pid in parents:
        above = pid
        while above in parents and above != root:
            above = parents[above]
        if above == root and pid != root:
            found.add(pid)
    return found


def _spins_in(pid: int, library: str) -> bool:
    """Whether a process is the innermost one that runs this library, and busy at that."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return library.encode() in words and b"/runtimes/" in words[0] and state == "R"


@contextmanager
def assassin(patch: Any) -> Iterator[None]:
    """Kills, from outside, the workers of candidates whose fault is `KILLED`."""
    victims, over = set[str](), threading.Event()
    screen = Judge.screen

    def watched(self: Judge, candidate: Any, artifact: Any, *rest: Any) -> Any:
        if candidate.tunables["FAULT"] == NUMBER[KILLED]:
            victims.add(str(artifact.path))
        return screen(self, candidate, artifact, *rest)

    def strike() -> None:
        while not over.wait(0.2):
            for pid in descendants() if victims else ():
                if any(_spins_in(pid, library) for library in list(victims)):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    patch.setattr(Judge, "screen", watched)
    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
