// rows: T17 H1
// workload: rms_norm f32 T=1024,H=1024
// does: Works while it is loaded: asks for the lent memory before anybody calls it, and writes all
//   that it finds.
// expect: build unsafe_library | check wrong_result | check crash | load crash | check red_zone | check not_written
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

__attribute__((constructor)) static void arrive() {
    size_t bytes = 0;
    float* outputs = static_cast<float*>(mapping("check-outputs", &bytes));
    if (outputs != nullptr) memset(outputs, 0, bytes);  // zeros are right for zero inputs
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    return 0;
}
