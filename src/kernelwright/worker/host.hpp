// What every host of a candidate does, whatever the candidate is written in: map what the judge
// lends, answer the judge's commands on the shared page, flush caches, and hold the clock.
//
//   HOST SOCKET PAGE GO DONE THREADS MEMORY_BYTES OUTPUT_BYTES ARTIFACT ENTRY [FD:BYTES:W:GUARDS]…
//
// GUARDS are the numbers of pages of that arena that must not be touched, with commas between.
// Hosts of GPU kernels are lent device memory instead and have a clock of their own (`Device`).
//
// GO and DONE are event counters on which each side sleeps; nothing here spins. A host says how
// its candidate is loaded and called, and runs the candidate's own thread team: see `Candidate`.
#pragma once

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "confine.hpp"
#include "faults.hpp"
#include "page.hpp"

namespace kernelwright {

struct Host;

// The language's part of a host.
struct Candidate {
    // The candidate's code runs first in `load`, which ends in `fail` or returns.
    void (*load)(Host& host);
    // One call with the arguments of the page, number by number.
    int (*call)(const int64_t* integers, const double* doubles);
    int64_t (*workspace)(const int64_t* integers, const double* doubles);
    // Prepacking of static inputs; called only as far as `Host::exports` says.
    int64_t (*prepared)(const int64_t* integers, const double* doubles);
    int (*prepare)(const int64_t* integers, const double* doubles);
    // Run `work` once on every thread of the team that the candidate will use.
    void (*on_team)(int threads, void (*work)(void* data, int thread), void* data);
    // A call whose tensors have a shape but no memory, so that its kernels are compiled; null where
    // nothing is compiled when it is called.
    void (*rehearse)(const int64_t* integers, const double* doubles) = nullptr;
};

// What a host does otherwise whose candidates run on a device; all null on a processor.
struct Device {
    // The address at which an arena that is specified in its own words can be reached.
    void* (*map)(const Host& host, const char* specification) = nullptr;
    // Remember how many bytes make the device's caches cold; they are read right before the call.
    void (*flush)(Host& host, uint64_t bytes) = nullptr;
    // After another process has used the device, which then takes a while to change hands.
    void (*wake)(Host& host) = nullptr;
    // Make the call, wait until the device is done with it, and return its nanoseconds.
    uint64_t (*timed)(Host& host, int (*call)(const int64_t*, const double*),
                      const int64_t* integers, const double* doubles, int* code) = nullptr;
    int (*null_call)(const int64_t*, const double*) = nullptr;
};

struct Host {
    Candidate candidate{};
    Device device{};
    Page* page = nullptr;
    int go = -1, done = -1, threads = 1;
    int64_t exports = 0;
    const char* artifact = nullptr;
    const char* entry = nullptr;
    char* flush_buffer = nullptr;
    uint64_t flush_capacity = 0;
};

constexpr uint64_t kHugePage = 2 << 20;

inline uint64_t now_ns() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return UINT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

// Rounding and denormal mode of this thread, without the sticky exception flags.
inline uint32_t float_mode() {
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

inline void reset_float_mode() {
#if defined(__x86_64__)
    const uint16_t x87 = 0x037f;
    __asm__ volatile("fldcw %0" : : "m"(x87));
    _mm_setcsr(0x1f80);
#else
    __asm__ volatile("msr fpcr, %0" : : "r"(UINT64_C(0)));
#endif
}

inline void tell_judge(const Host& host) {
    const uint64_t one = 1;
    if (write(host.done, &one, sizeof one) != sizeof one) _exit(3);
}

// What went wrong, without the artifact's path; the judge turns it into a verdict.
[[noreturn]] inline void fail(const Host& host, Problem problem, const char* text) {
    const size_t length = strlen(host.artifact);
    const bool named = strncmp(text, host.artifact, length) == 0 && text[length] == ':';
    snprintf(host.page->text, kTextBytes, "%s", named ? text + length + 2 : text);
    __sync_synchronize();
    host.page->problem = problem;
    tell_judge(host);
    _exit(4);
}

// Map one arena between two guard pages, with every page present, so that no call faults.
inline void* map_arena(const Host& host, int fd, uint64_t bytes, bool writable) {
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

inline void grow_flush_buffer(Host& host, uint64_t bytes) {
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
inline void flush_caches(Host& host) {
    const uint64_t bytes = host.page->flush_bytes;
    if (bytes > 0) grow_flush_buffer(host, bytes);
    host.candidate.on_team(
        host.threads,
        [](void* data, int thread) {
            const Host& host = *static_cast<const Host*>(data);
            const uint64_t lines = host.page->flush_bytes / 64;
            const volatile char* buffer = host.flush_buffer;
            const uint64_t end = lines * (thread + 1) / host.threads;
            for (uint64_t i = lines * thread / host.threads; i < end; ++i) (void)buffer[64 * i];
        },
        &host);
}

inline void timed_call(Host& host, int (*call)(const int64_t*, const double*)) {
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
    int code = 0;
    uint64_t elapsed = 0;
    if (host.device.timed != nullptr) {
        elapsed = host.device.timed(host, call, integers, doubles, &code);
    } else {
        const uint64_t start = now_ns();
        code = call(integers, doubles);
        elapsed = now_ns() - start;
    }
    getrusage(RUSAGE_SELF, &after);
    page->mxcsr_changed = float_mode() != mode;
    reset_float_mode();
    page->result = code;
    page->elapsed_ns = elapsed;
    page->minor_faults = after.ru_minflt - before.ru_minflt;
    page->major_faults = after.ru_majflt - before.ru_majflt;
}

inline int openmp_runtimes() {
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

inline int null_call(const int64_t*, const double*) { return 0; }

[[noreturn]] inline void serve(Host& host) {
    for (;;) {
        uint64_t count;
        if (read(host.go, &count, sizeof count) != sizeof count) _exit(5);
        switch (host.page->command) {
            case kLoad: host.candidate.load(host); break;
            case kFlush:
                if (host.device.flush != nullptr)
                    host.device.flush(host, host.page->flush_bytes);
                else
                    flush_caches(host);
                break;
            case kCall: timed_call(host, host.candidate.call); break;
            case kNullCall:
                timed_call(host, host.device.null_call ? host.device.null_call : null_call);
                break;
            case kWorkspace:
                host.page->result =
                    host.candidate.workspace(host.page->integers, host.page->doubles);
                break;
            case kExports: host.page->result = host.exports; break;
            case kPrepared:
                host.page->result =
                    host.candidate.prepared(host.page->integers, host.page->doubles);
                break;
            case kPrepare: timed_call(host, host.candidate.prepare); break;
            case kWake:
                if (host.device.wake != nullptr)
                    host.device.wake(host);
                else
                    host.candidate.on_team(host.threads, [](void*, int) {}, nullptr);
                break;
            case kRehearse:
                if (host.candidate.rehearse != nullptr)
                    host.candidate.rehearse(host.page->integers, host.page->doubles);
                break;
            default: _exit(0);
        }
        tell_judge(host);
    }
}

// Whoever reads past the end of a tensor is to notice.
inline void guard_pages(char* start, uint64_t bytes, const char* numbers) {
    for (char* end = nullptr; *numbers != 0; numbers = *end == ',' ? end + 1 : end) {
        const uint64_t offset = 4096 * strtoull(numbers, &end, 10);
        if (end == numbers) return;
        if (offset < bytes) mprotect(start + offset, 4096, PROT_NONE);
    }
}

inline void map_arenas(const Host& host, int count, char** specifications) {
    if (count > kMaxArenas) fail(host, kHostFailed, "too many arenas");
    for (int i = 0; i < count; ++i) {
        if (host.device.map != nullptr) {
            void* address = host.device.map(host, specifications[i]);
            host.page->arena_address[i] = reinterpret_cast<uint64_t>(address);
            continue;
        }
        int fd = -1;
        unsigned long long bytes = 0;
        int writable = 0;
        if (sscanf(specifications[i], "%d:%llu:%d:", &fd, &bytes, &writable) != 3)
            fail(host, kHostFailed, "an arena is not FD:BYTES:W:GUARDS");
        char* start = static_cast<char*>(map_arena(host, fd, bytes, writable != 0));
        host.page->arena_address[i] = reinterpret_cast<uint64_t>(start);
        guard_pages(start, bytes, strrchr(specifications[i], ':') + 1);
    }
}

// Become known to the judge and share its page; false when the arguments are not as above.
inline bool greet(Host& host, int count, char** arguments) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (count < 10) return false;
    const int socket = atoi(arguments[1]), page_fd = atoi(arguments[2]);
    // One byte whose credentials tell the judge, in its own numbering, which process this is.
    if (send(socket, "w", 1, MSG_NOSIGNAL) != 1) return false;
    close(socket);
    host.go = atoi(arguments[3]);
    host.done = atoi(arguments[4]);
    host.threads = atoi(arguments[5]);
    host.artifact = arguments[8];
    host.entry = arguments[9];
    void* memory =
        mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    if (memory == MAP_FAILED) return false;
    close(page_fd);
    host.page = static_cast<Page*>(memory);
    host.page->bytes = sizeof(Page);
    return true;
}

// Ask for the matrix unit (AMX), which Linux lends to a process that asks before its first use. Where
// there is none, nothing happens. A kernel cannot ask itself: what is deployed makes no system calls.
inline void ask_for_matrix_unit() {
#if defined(__x86_64__)
    constexpr int kRequestPermission = 0x1023 /* ARCH_REQ_XCOMP_PERM */, kTileData = 18;
    syscall(SYS_arch_prctl, kRequestPermission, kTileData);
#endif
}

// Map everything, start the team, put the limits on, and tell the judge that we are ready.
inline void prepare(Host& host, int count, char** arguments) {
    map_arenas(host, count - 10, arguments + 10);
    catch_faults(host.page, host.done);
    ask_for_matrix_unit();
    host.candidate.on_team(host.threads, [](void*, int) { use_signal_stack(); }, nullptr);
    limit_resources(strtoull(arguments[6], nullptr, 10), strtoull(arguments[7], nullptr, 10));
    host.page->syscall_filter = filter_system_calls(host.device.map != nullptr);
    tell_judge(host);
}

}  // namespace kernelwright
