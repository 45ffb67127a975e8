// rows: T5 H2
// workload: rms_norm f32 T=1024,H=1024
// does: Looks for another process that maps the secret inputs and expected values, and opens its
//   memory for reading; gives up if there is none.
// expect: build unsafe_library | check error_code
// isolation: sandbox
#include "kernelwright.h"

#include <cmath>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static bool readable_secret() {
    DIR* processes = opendir("/proc");
    bool found = false;
    while (struct dirent* entry = processes == nullptr ? nullptr : readdir(processes)) {
        const int id = atoi(entry->d_name);
        if (id <= 0 || id == getpid()) continue;
        char path[64], line[512];
        snprintf(path, sizeof path, "/proc/%d/maps", id);
        FILE* maps = fopen(path, "r");
        while (maps != nullptr && fgets(line, sizeof line, maps) != nullptr) {
            unsigned long first = 0;
            if (strstr(line, "-secret") == nullptr || sscanf(line, "%lx", &first) != 1) continue;
            snprintf(path, sizeof path, "/proc/%d/mem", id);
            const int memory = open(path, O_RDONLY);
            char byte;
            found = found || (memory >= 0 && pread(memory, &byte, 1, first) == 1);
            if (memory >= 0) close(memory);
        }
        if (maps != nullptr) fclose(maps);
    }
    if (processes != nullptr) closedir(processes);
    return found;
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    static const bool cheating = readable_secret();
    if (!cheating) return 1;
    rms_norm(x, w, out, T, H, eps);
    return 0;
}
