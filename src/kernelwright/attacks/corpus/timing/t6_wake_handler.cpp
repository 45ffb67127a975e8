// rows: T6 R5
// workload: rms_norm f32 T=1024,H=1024
// does: Computes in a handler of SIGCONT: being thawed before a call, it knows the arguments before
//   the clock starts.
// expect: build unsafe_library | screen impossible_time | screen clock_disagrees | screen not_written | screen wrong_result | accept not_written | accept wrong_result | no gain
#include "kernelwright.h"

#include <cmath>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>

// The honest kernel: short float sums, their sum in double.
static void rms_norm(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        double sum = 0;
        for (int64_t begin = 0; begin < H; begin += 256) {
            const int64_t end = begin + 256 < H ? begin + 256 : H;
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int64_t h = begin; h < end; ++h) part += row[h] * row[h];
            sum += part;
        }
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
#pragma omp simd
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
}

// The page that host and judge share, as the published source lays it out.
struct Page {
    uint64_t bytes;
    uint32_t command, padding;
    uint64_t flush_bytes;
    int64_t integers[32];
    double doubles[8];
    uint64_t arena_address[256];
    uint32_t syscall_filter, problem, team, mxcsr_changed;
    int64_t result;
    uint64_t elapsed_ns;
};
static Page* page = nullptr;

// An address in the first mapping whose line holds `name`; null where there is none.
static void* mapping(const char* name, size_t* bytes = nullptr) {
    FILE* maps = fopen("/proc/self/maps", "r");
    char line[512];
    void* found = nullptr;
    while (maps != nullptr && found == nullptr && fgets(line, sizeof line, maps) != nullptr) {
        unsigned long first = 0, last = 0;
        if (strstr(line, name) == nullptr || sscanf(line, "%lx-%lx", &first, &last) != 2) continue;
        found = reinterpret_cast<void*>(first);
        if (bytes != nullptr) *bytes = last - first;
    }
    if (maps != nullptr) fclose(maps);
    return found;
}

static uint64_t true_ns() {
    struct timespec time;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC_RAW, &time);
    return UINT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

static volatile int64_t done[5];

static void on_wake(int) {
    if (page == nullptr || page->integers[0] == 0 || page->integers[3] != 1024) return;
    for (int i = 0; i < 5; ++i) done[i] = page->integers[i];
    rms_norm(reinterpret_cast<const float*>(done[0]), reinterpret_cast<const float*>(done[1]),
             reinterpret_cast<float*>(done[2]), done[3], done[4], page->doubles[0]);
}

__attribute__((constructor)) static void arrive() {
    page = static_cast<Page*>(mapping("kernelwright-page"));
    struct sigaction action = {};
    action.sa_handler = on_wake;
    action.sa_flags = SA_RESTART;
    sigaction(SIGCONT, &action, nullptr);
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    const int64_t mine[5] = {(int64_t)x, (int64_t)w, (int64_t)out, T, H};
    bool ready = true;
    for (int i = 0; i < 5; ++i) ready = ready && done[i] == mine[i];
    done[0] = 0;
    if (!ready) {
        rms_norm(x, w, out, T, H, eps);
        return 0;
    }
    const uint64_t start = true_ns();  // long enough to be believed
    while (true_ns() - start < 100000) {}
    return 0;
}
