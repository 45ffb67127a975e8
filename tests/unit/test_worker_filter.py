"""What the worker's system-call filter refuses, one test a family, with both OpenMP runtimes."""

import os

import pytest
from execution_support import THREADS, run_once, source, toolchains

from kernelwright.execution import CallReport, Failure
from kernelwright.execution.page import HOST_FAILED, LOAD_FAILED, Page
from kernelwright.model import Reason

COMPILERS = [toolchain.name for toolchain in toolchains()]
FAMILIES = {
    "programs": "SYS_execve, 0, 0, 0",
    "processes": "SYS_clone, 17, 0, 0, 0, 0",
    "fork": "SYS_fork",
    "vfork by clone": "SYS_clone, 0x4100 | 17, 0, 0, 0, 0",
    "tracing": "SYS_ptrace, 0, 0, 0, 0",
    "memory of others": "SYS_process_vm_writev, 1, 0, 0, 0, 0, 0",
    "signals to others": "SYS_tgkill, 1, 1, 9",
    "sockets": "SYS_socket, 1, 1, 0",
    "bpf": "SYS_bpf, 0, 0, 0",
    "performance counters": "SYS_perf_event_open, 0, 0, -1, -1, 0",
    "page faults by hand": "SYS_userfaultfd, 0",
    "asynchronous calls": "425, 1, 0",
    "memory files": 'SYS_memfd_create, "x", 0',
    "secret memory": "447, 0",
    "keys": "SYS_keyctl, 0, 0, 0",
    "shared memory": "SYS_shmget, 0, 4096, 0600",
    "mounts": "SYS_mount, 0, 0, 0, 0, 0",
    "mounts by handle": "430, 0, 0",
    "files by handle": "SYS_open_by_handle_at, 0, 0, 0",
    "its own memory as a file": 'SYS_openat, -100, "/proc/self/mem", O_RDWR, 0',
    "new files": 'SYS_openat, -100, "/dev/shm/x", O_CREAT, 0600',
    "attributes": 'SYS_fsetxattr, 1, "user.x", "y", 1, 0',
    "identity": "SYS_setuid, 0",
    "namespaces": "SYS_unshare, 0x10000000",
    "modules": "SYS_init_module, 0, 0, 0",
    "limits": "SYS_prlimit64, 0, 9, environ, 0",
    "ports": "SYS_ioperm, 0, 1, 1",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names of x86-64")
@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_family_is_refused(cache, compiler):
    calls = "".join(
        f"errno = 0; if (syscall({call}) != -1 || errno != EPERM) return {number};"
        for number, call in enumerate(FAMILIES.values(), 1)
    )
    text = source(calls + " return 0;", "errno.h fcntl.h sys/syscall.h unistd.h")
    report = run_once(cache, text, CXX=compiler)
    assert isinstance(report, CallReport), report
    name = list(FAMILIES)[report.code - 1] if report.code > 0 else ""
    assert report.code == 0, name


@pytest.mark.parametrize("compiler", COMPILERS)
def test_teams_work_behind_the_filter(cache, compiler):
    body = """
        int64_t sum = 0;
        for (int i = 0; i < 50; ++i) {
            #pragma omp parallel for reduction(+ : sum) schedule(dynamic)
            for (int64_t k = 0; k < 1000; ++k) sum += k;
            #pragma omp parallel num_threads(2)
            {
                #pragma omp critical
                sum += 0;
                #pragma omp barrier
            }
        }
        return sum == 50 * 499500 ? 0 : 1;
    """
    report = run_once(cache, source(body), CXX=compiler)
    assert isinstance(report, CallReport)
    assert (report.code, report.team) == (0, THREADS)


def test_sealed_inputs_cannot_be_made_writable(cache):
    body = """
        char* page = (char*)((uintptr_t)x & ~(uintptr_t)4095);
        if (mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0) return 1;
        if (open("/proc/self/mem", O_WRONLY) >= 0) return 2;
        for (int fd = 3; fd < 64; ++fd)
            if (mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED) return 3;
        return 0;
    """
    report = run_once(cache, source(body, "sys/mman.h fcntl.h stdint.h"))
    assert isinstance(report, CallReport), report
    assert report.code == 0


@pytest.mark.parametrize(
    ("number", "reason"),
    [(HOST_FAILED, Reason.EXITED), (LOAD_FAILED, Reason.LOAD_FAILED), (99, Reason.EXITED)],
)
def test_a_candidate_cannot_blame_the_host(cache, number, reason):
    """What it writes to the shared page ends it, not the judge."""
    body = r"""
        FILE* maps = fopen("/proc/self/maps", "r");
        char line[512];
        while (fgets(line, sizeof line, maps)) {
            if (!strstr(line, "kernelwright-page")) continue;
            char* begin = (char*)strtoul(line, 0, 16);
            for (int i = 0; i < 1024; ++i) begin[TEXT + i] = 27;
            *(int*)(begin + PROBLEM) = NUMBER;
        }
        return 0;
    """
    values = {"TEXT": Page.text.offset, "PROBLEM": Page.problem.offset, "NUMBER": number}
    for name, value in values.items():
        body = body.replace(name, str(value))
    result = run_once(cache, source(body, "stdio.h string.h stdlib.h"))
    assert isinstance(result, Failure)
    assert result.reason is reason
    assert all(c.isprintable() for c in result.detail)
    assert len(result.detail) < 1200
