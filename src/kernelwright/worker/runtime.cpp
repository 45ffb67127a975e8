// The host of one candidate: maps what the judge lends, loads one shared library, and answers
// the judge's calls until it is told to quit or the candidate ends it.
//
//   runtime SOCKET PAGE GO DONE THREADS MEMORY_BYTES OUTPUT_BYTES ARTIFACT ENTRY [FD:BYTES:W]…
//
// GO and DONE are event counters on which each side sleeps; nothing here spins. The host is built
// with the artifact's compiler, so that both share one OpenMP runtime and one thread team.

#include <dlfcn.h>
#include <errno.h>
#include <omp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "confine.hpp"
#include "faults.hpp"
#include "page.hpp"

namespace kernelwright {
namespace {

// One type serves every prototype: the C ABIs of x86-64 and AArch64 number integer arguments
// (registers, then 8-byte stack slots) and floating arguments (8 registers) apart.
using I = int64_t;
using D = double;
#define KERNELWRIGHT_I8 I, I, I, I, I, I, I, I
#define KERNELWRIGHT_D8 D, D, D, D, D, D, D, D
template <typename R>
using Generic = R (*)(KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8,
                      KERNELWRIGHT_D8);

int null_kernel(KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8, KERNELWRIGHT_I8,
                KERNELWRIGHT_D8) {
    return 0;
}

template <typename R>
__attribute__((noinline)) R invoke(Generic<R> f, const int64_t* i, const double* d) {
    return f(i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11], i[12],
             i[13], i[14], i[15], i[16], i[17], i[18], i[19], i[20], i[21], i[22], i[23], i[24],
             i[25], i[26], i[27], i[28], i[29], i[30], i[31], d[0], d[1], d[2], d[3], d[4], d[5],
             d[6], d[7]);
}

constexpr uint64_t kHugePage = 2 << 20;

struct Host {
    Page* page = nullptr;
    int go = -1, done = -1, threads = 1;
    const char* artifact = nullptr;
    const char* entry = nullptr;
    Generic<int> kernel = nullptr;
    Generic<int64_t> workspace = nullptr;
    char* flush_buffer = nullptr;
    uint64_t flush_capacity = 0;
};

uint64_t now_ns() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return UINT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

// Rounding and denormal mode of this thread, without the sticky exception flags.
uint32_t float_mode() {
#if defined(__x86_64__)
    uint16_t x87 = 0;
    __asm__ volatile("fnstcw %0" : "=m"(x87));
    return (_mm_getcsr() & 0xffc0u) | (static_cast<uint32_t>(x87) << 16);
#else
    uint64_t control = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    return static_cast<uint32_t>(control);
#endif
}

void reset_float_mode() {
#if defined(__x86_64__)
    const uint16_t x87 = 0x037f;
    __asm__ volatile("fldcw %0" : : "m"(x87));
    _mm_setcsr(0x1f80);
#else
    __asm__ volatile("msr fpcr, %0" : : "r"(UINT64_C(0)));
#endif
}

void tell_judge(const Host& host) {
    const uint64_t one = 1;
    if (write(host.done, &one, sizeof one) != sizeof one) _exit(3);
}

// What went wrong, without the artifact's path; the judge turns it into a verdict.
[[noreturn]] void fail(const Host& host, Problem problem, const char* text) {
    const size_t length = strlen(host.artifact);
    const bool named = strncmp(text, host.artifact, length) == 0 && text[length] == ':';
    snprintf(host.page->text, kTextBytes, "%s", named ? text + length + 2 : text);
    __sync_synchronize();
    host.page->problem = problem;
    tell_judge(host);
    _exit(4);
}

// Map one arena between two guard pages, with every page present, so that no call faults.
void* map_arena(const Host& host, int fd, uint64_t bytes, bool writable) {
    const uint64_t page = 4096;
    const uint64_t reserve = bytes + 2 * kHugePage + 2 * page;
    char* base = static_cast<char*>(
        mmap(nullptr, reserve, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base == MAP_FAILED) fail(host, kHostFailed, "no address space for an arena");
    const uint64_t first = reinterpret_cast<uint64_t>(base) + page + kHugePage - 1;
    char* start = reinterpret_cast<char*>(first / kHugePage * kHugePage);
    const int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (mmap(start, bytes, access, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        fail(host, kHostFailed, strerror(errno));
    madvise(start, bytes, MADV_HUGEPAGE);
    const int populate = writable ? 23 /* MADV_POPULATE_WRITE */ : 22 /* MADV_POPULATE_READ */;
    if (madvise(start, bytes, populate) != 0) {
        for (uint64_t i = 0; i < bytes; i += page) {
            volatile char* byte = start + i;
            const char value = *byte;
            if (writable) *byte = value;
        }
    }
    close(fd);
    return start;
}

void grow_flush_buffer(Host& host, uint64_t bytes) {
    if (bytes <= host.flush_capacity) return;
    if (host.flush_buffer != nullptr) munmap(host.flush_buffer, host.flush_capacity);
    void* memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail(host, kFlushFailed, "no memory is left for the cache flush");
    madvise(memory, bytes, MADV_HUGEPAGE);
    memset(memory, 1, bytes);  // pages of its own: unwritten ones would all be the zero page
    host.flush_buffer = static_cast<char*>(memory);
    host.flush_capacity = bytes;
}

// Read so many other bytes that nothing of the kernel's data stays in any cache, with the very
// team that the kernel will use: afterwards all its threads are parked, none is cold. Reading only:
// modified lines would have to be written back during the timed call, at the kernel's expense.
void flush_caches(Host& host) {
    const uint64_t bytes = host.page->flush_bytes;
    if (bytes > 0) grow_flush_buffer(host, bytes);
    const volatile char* buffer = host.flush_buffer;
#pragma omp parallel for schedule(static) num_threads(host.threads)
    for (uint64_t i = 0; i < bytes; i += 64) (void)buffer[i];
}

void timed_call(Host& host, Generic<int> kernel) {
    Page* page = host.page;
    int64_t integers[kMaxIntegers];
    double doubles[kMaxDoubles];
    memcpy(integers, page->integers, sizeof integers);
    memcpy(doubles, page->doubles, sizeof doubles);
    reset_float_mode();
    const uint32_t mode = float_mode();
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    errno = 0;
    const uint64_t start = now_ns();
    const int code = invoke<int>(kernel, integers, doubles);
    const uint64_t end = now_ns();
    getrusage(RUSAGE_SELF, &after);
    page->mxcsr_changed = float_mode() != mode;
    reset_float_mode();
    page->result = code;
    page->elapsed_ns = end - start;
    page->minor_faults = after.ru_minflt - before.ru_minflt;
    page->major_faults = after.ru_majflt - before.ru_majflt;
}

int openmp_runtimes() {
    int count = 0;
    dl_iterate_phdr(
        [](struct dl_phdr_info* info, size_t, void* data) {
            for (const char* name : {"libgomp", "libomp", "libiomp"})
                if (strstr(info->dlpi_name, name) != nullptr) ++*static_cast<int*>(data);
            return 0;
        },
        &count);
    return count;
}

// From here on the candidate's code runs: its constructors first.
void load(Host& host) {
    reset_float_mode();
    const uint32_t mode = float_mode();
    void* library = dlopen(host.artifact, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) fail(host, kLoadFailed, dlerror());
    // the deployed operator would do the same to the process that imports it
    if (float_mode() != mode)
        fail(host, kLoadFailed,
             "loading it changes the process's denormal mode, as -ffast-math does for libraries: "
             "build with -fassociative-math and the like instead");
    void* kernel = dlsym(library, host.entry);
    if (kernel == nullptr) fail(host, kMissingSymbol, dlerror());
    note_library(kernel);
    host.kernel = reinterpret_cast<Generic<int>>(kernel);
    char name[512];
    snprintf(name, sizeof name, "%s_workspace", host.entry);
    host.workspace = reinterpret_cast<Generic<int64_t>>(dlsym(library, name));
    void* probe = dlsym(library, "kernelwright_probe_threads");
    if (probe == nullptr) fail(host, kMissingSymbol, "the builder's thread probe is not in it");
    host.page->team = reinterpret_cast<int (*)()>(probe)();
    char text[96];
    snprintf(text, sizeof text, "a parallel region ran on %u of %d threads", host.page->team,
             host.threads);
    if (static_cast<int>(host.page->team) != host.threads) fail(host, kNotParallel, text);
    if (openmp_runtimes() > 1) fail(host, kTwoRuntimes, "two OpenMP runtimes are loaded");
}

void serve(Host& host) {
    for (;;) {
        uint64_t count;
        if (read(host.go, &count, sizeof count) != sizeof count) _exit(5);
        switch (host.page->command) {
            case kLoad: load(host); break;
            case kFlush: flush_caches(host); break;
            case kCall: timed_call(host, host.kernel); break;
            case kNullCall: timed_call(host, null_kernel); break;
            case kWorkspace:
                host.page->result = host.workspace == nullptr
                                        ? 0
                                        : invoke<int64_t>(host.workspace, host.page->integers,
                                                          host.page->doubles);
                break;
            default: _exit(0);
        }
        tell_judge(host);
    }
}

void map_arenas(const Host& host, int count, char** specifications) {
    if (count > kMaxArenas) fail(host, kHostFailed, "too many arenas");
    for (int i = 0; i < count; ++i) {
        int fd = -1;
        unsigned long long bytes = 0;
        int writable = 0;
        if (sscanf(specifications[i], "%d:%llu:%d", &fd, &bytes, &writable) != 3)
            fail(host, kHostFailed, "an arena is not FD:BYTES:W");
        host.page->arena_address[i] =
            reinterpret_cast<uint64_t>(map_arena(host, fd, bytes, writable != 0));
    }
}

}  // namespace
}  // namespace kernelwright

int main(int count, char** arguments) {
    using namespace kernelwright;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count < 10) return 2;
    const int socket = atoi(arguments[1]), page_fd = atoi(arguments[2]);
    // One byte whose credentials tell the judge, in its own numbering, which process this is.
    if (send(socket, "w", 1, MSG_NOSIGNAL) != 1) return 2;
    close(socket);
    Host host;
    host.go = atoi(arguments[3]);
    host.done = atoi(arguments[4]);
    host.threads = atoi(arguments[5]);
    host.artifact = arguments[8];
    host.entry = arguments[9];
    void* memory =
        mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (memory == MAP_FAILED) return 2;
    close(page_fd);
    host.page = static_cast<Page*>(memory);
    host.page->bytes = sizeof(Page);
    map_arenas(host, count - 10, arguments + 10);
    catch_faults(host.page, host.done);
#pragma omp parallel num_threads(host.threads)
    use_signal_stack();
    limit_resources(strtoull(arguments[6], nullptr, 10), strtoull(arguments[7], nullptr, 10));
    host.page->syscall_filter = filter_system_calls();
    tell_judge(host);
    serve(host);
}
