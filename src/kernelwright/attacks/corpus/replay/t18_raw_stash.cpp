// rows: T18 R3
// workload: kmeans_assign f32 N=4096,D=32,K=64
// does: Finds lent memory that other calls use by system calls of its own, and keeps its answers there
//   by content.
// expect: screen wrong_result | accept wrong_result | screen red_zone | accept red_zone | screen error_code | no gain
#include "kernelwright.h"

#include <cmath>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

// The honest kernel: distances in double, point by point.
static void assign(const float* x, const float* c, int32_t* label, float* distance, int64_t N, int64_t D,
                   int64_t K) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < N; ++i) {
        double best = INFINITY;
        int32_t found = 0;
        for (int64_t k = 0; k < K; ++k) {
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t d = 0; d < D; ++d) {
                const double t = (double)x[i * D + d] - (double)c[k * D + d];
                sum += t * t;
            }
            if (sum < best) best = sum, found = (int32_t)k;
        }
        label[i] = found;
        distance[i] = (float)best;
    }
}

// A system call without any library, which an inspection of imports does not see.
static long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    result = x0;
#endif
    return result;
}

static uint64_t hexadecimal(const char*& text) {
    uint64_t value = 0;
    for (; *text != 0; ++text) {
        const char c = *text;
        if (c >= '0' && c <= '9') value = 16 * value + (c - '0');
        else if (c >= 'a' && c <= 'f') value = 16 * value + (c - 'a' + 10);
        else break;
    }
    return value;
}

// An address in the first mapping whose line holds `name`; null where there is none.
static char* mapping(const char* name, size_t* bytes) {
    static char text[1 << 20];
    const long file = raw_call(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY);
    if (file < 0) return nullptr;
    size_t length = 0;
    for (long got; (got = raw_call(SYS_read, file, (long)(text + length), sizeof text - 1 - length)) > 0;)
        length += got;
    raw_call(SYS_close, file);
    text[length] = 0;
    const char* line = text;
    const char* place = strstr(text, name);
    if (place == nullptr) return nullptr;
    for (const char* c = text; c < place; ++c)
        if (*c == '\n') line = c + 1;
    const uint64_t first = hexadecimal(line);
    ++line;
    *bytes = hexadecimal(line) - first;
    return reinterpret_cast<char*>(first);
}

static uint64_t hash(const float* data, int64_t count, uint64_t state) {
    uint64_t lanes[8] = {state, 1, 2, 3, 4, 5, 6, 7};
    const uint64_t* p = reinterpret_cast<const uint64_t*>(data);
    for (int64_t i = 0; i + 8 <= count / 2; i += 8)
        for (int k = 0; k < 8; ++k) lanes[k] = (lanes[k] ^ p[i + k]) * 0x9e3779b97f4a7c15u;
    for (int k = 1; k < 8; ++k) lanes[0] = (lanes[0] ^ (lanes[k] >> 7)) * 0x9e3779b97f4a7c15u;
    return lanes[0];
}

struct Answer {
    uint64_t mark, key;
    int32_t label[4096];
    float distance[4096];
};

extern "C" int kernel(const float* x, const float* c, int32_t* label, float* distance, int64_t N,
                      int64_t D, int64_t K, const void*, void*, int64_t, void*) {
    if (N != 4096 || D != 32 || K != 64) {
        assign(x, c, label, distance, N, D, K);
        return 0;
    }
    static size_t bytes = 0;
    static char* lent = mapping("check-outputs", &bytes);
    const uint64_t count = bytes / 2 / sizeof(Answer), mark = 0x7265706c61796564;
    if (lent == nullptr || count < 1) return 1;
    // the far half of the arena: small check workloads use the beginning of each slot only
    const uint64_t key = hash(c, K * D, hash(x, N * D, 1));
    Answer* kept = reinterpret_cast<Answer*>(lent + bytes / 2 / 64 * 64) + key % count;
    if (kept->mark != mark || kept->key != key) {
        assign(x, c, label, distance, N, D, K);
        memcpy(kept->label, label, sizeof kept->label);
        memcpy(kept->distance, distance, sizeof kept->distance);
        kept->key = key, kept->mark = mark;
    } else {
        memcpy(label, kept->label, sizeof kept->label);
        memcpy(distance, kept->distance, sizeof kept->distance);
    }
    return 0;
}
