// rows: T6 H7
// workload: rms_norm f32 T=1024,H=1024
// does: Leaves through exit(), with a handler that forges times and result and signals that the call
//   is done.
// expect: build unsafe_library | check not_written | check hang
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
#include <stdlib.h>

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

static void forge() {
    page = static_cast<Page*>(mapping("kernelwright-page"));
    if (page != nullptr) page->elapsed_ns = 50000, page->result = 0;
    const uint64_t one = 1;
    for (int fd = 3; fd < 256; ++fd) {
        char path[64], target[256] = {};
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 && strstr(target, "eventfd") != nullptr)
            if (write(fd, &one, sizeof one) < 0) return;
    }
    for (;;) pause();
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    atexit(forge);
    exit(0);
}
