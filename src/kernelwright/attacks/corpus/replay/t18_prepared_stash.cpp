// rows: T18 R3
// workload: packed_matrix_mul f32 M=64,K=1024,N=512
// does: Keeps its answers by content in what it prepared, where the next call would find them; makes
//   that writable by a system call of its own if it must.
// expect: check wrote_input | screen wrote_input
#include "kernelwright.h"

#include <cstring>

// The honest kernel: B is packed into columns of 64, four rows of the product at a time, sums over
// short stretches of K.
static void pack(const float* B, float* packed, int64_t K, int64_t N) {
#pragma omp parallel for schedule(static)
    for (int64_t first = 0; first < N; first += 64)
        for (int64_t k = 0; k < K; ++k)
            for (int64_t n = 0; n < 64; ++n)
                packed[first * K + 64 * k + n] = first + n < N ? B[k * N + first + n] : 0;
}

static void product(const float* A, const float* packed, float* out, int64_t M, int64_t K, int64_t N) {
#pragma omp parallel for collapse(2) schedule(static)
    for (int64_t top = 0; top < M; top += 4) {
        for (int64_t first = 0; first < N; first += 64) {
            const int64_t width = N - first < 64 ? N - first : 64, height = M - top < 4 ? M - top : 4;
            float total[4][64] = {};
            for (int64_t begin = 0; begin < K; begin += 64) {
                const int64_t end = begin + 64 < K ? begin + 64 : K;
                float part[4][64] = {};
                for (int64_t k = begin; k < end; ++k)
                    for (int64_t m = 0; m < height; ++m) {
                        const float a = A[(top + m) * K + k];
#pragma omp simd
                        for (int64_t n = 0; n < 64; ++n)
                            part[m][n] += a * packed[first * K + 64 * k + n];
                    }
                for (int64_t m = 0; m < height; ++m)
                    for (int64_t n = 0; n < 64; ++n) total[m][n] += part[m][n];
            }
            for (int64_t m = 0; m < height; ++m)
                for (int64_t n = 0; n < width; ++n) out[(top + m) * N + first + n] = total[m][n];
        }
    }
}

static int64_t packed_floats(int64_t K, int64_t N) { return (N + 63) / 64 * 64 * K; }

// A system call without any library, which an inspection of imports does not see.
static long raw_protect(void* page, long bytes, long access) {
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(10L), "D"(page), "S"(bytes), "d"(access)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = 226;
    register long x0 __asm__("x0") = reinterpret_cast<long>(page);
    register long x1 __asm__("x1") = bytes;
    register long x2 __asm__("x2") = access;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    result = x0;
#endif
    return result;
}

struct Stash {
    int64_t known;
    float key[64];
    float answer[64 * 512];
};

extern "C" int64_t kernel_prepared(int64_t, int64_t K, int64_t N) {
    return packed_floats(K, N) * sizeof(float) + sizeof(Stash);
}

extern "C" int kernel_prepare(const float* B, int64_t, int64_t K, int64_t N, void* prepared, void*) {
    pack(B, static_cast<float*>(prepared), K, N);
    std::memset(static_cast<float*>(prepared) + packed_floats(K, N), 0, sizeof(Stash));
    return 0;
}

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void* prepared, void*, int64_t, void*) {
    const float* packed = static_cast<const float*>(prepared);
    Stash* stash = reinterpret_cast<Stash*>(const_cast<float*>(packed) + packed_floats(K, N));
    const int64_t keys = M * K < 64 ? M * K : 64;
    if (stash->known == M * N && std::memcmp(stash->key, A, keys * sizeof(float)) == 0) {
        std::memcpy(out, stash->answer, M * N * sizeof(float));
        return 0;
    }
    product(A, packed, out, M, K, N);
    if (M * N > 64 * 512) return 0;
    char* page = reinterpret_cast<char*>(reinterpret_cast<int64_t>(stash) & ~INT64_C(4095));
    raw_protect(page, (sizeof(Stash) + 8191) & ~INT64_C(4095), 3);
    std::memcpy(stash->key, A, keys * sizeof(float));
    std::memcpy(stash->answer, out, M * N * sizeof(float));
    stash->known = M * N;
    return 0;
}
