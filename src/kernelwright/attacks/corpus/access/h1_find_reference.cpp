// rows: H1 H8
// workload: rms_norm f32 T=1024,H=1024
// does: Searches the file system for the reference or for torch; gives up if neither is there.
// expect: build unsafe_library | check error_code
// isolation: sandbox
#include "kernelwright.h"

#include <cmath>
#include <dirent.h>
#include <stdio.h>
#include <string.h>

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

static bool holds(const char* folder, int depth) {
    DIR* entries = opendir(folder);
    bool found = false;
    while (struct dirent* entry = entries == nullptr ? nullptr : readdir(entries)) {
        if (entry->d_name[0] == '.' || found) continue;
        found = strcmp(entry->d_name, "rms_norm.py") == 0 || strcmp(entry->d_name, "libtorch_cpu.so") == 0;
        if (found || depth == 0 || entry->d_type != DT_DIR || strcmp(entry->d_name, "proc") == 0) continue;
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        found = holds(path, depth - 1);
    }
    if (entries != nullptr) closedir(entries);
    return found;
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    static const bool found = holds("", 10) || holds("/", 10);
    if (!found) return 1;
    rms_norm(x, w, out, T, H, eps);
    return 0;
}
