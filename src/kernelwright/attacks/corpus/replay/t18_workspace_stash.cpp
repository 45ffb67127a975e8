// rows: T18 R3
// workload: matrix_mul f32 M=256,K=1024,N=256
// does: Keeps its answers by content in its workspace, which outlives the process.
// expect: screen wrong_result | accept wrong_result | no gain
#include "kernelwright.h"

#include <cmath>
#include <string.h>

// The honest kernel: four rows of the product at a time, sums over short stretches of K.
static void product(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N) {
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
                        for (int64_t n = 0; n < width; ++n) part[m][n] += a * B[k * N + first + n];
                    }
                for (int64_t m = 0; m < height; ++m)
                    for (int64_t n = 0; n < width; ++n) total[m][n] += part[m][n];
            }
            for (int64_t m = 0; m < height; ++m)
                for (int64_t n = 0; n < width; ++n) out[(top + m) * N + first + n] = total[m][n];
        }
    }
}

static uint64_t hash(const float* data, int64_t count, uint64_t state) {
    uint64_t lanes[8] = {state, 1, 2, 3, 4, 5, 6, 7};
    const int64_t words = count / 2;
    const uint64_t* p = reinterpret_cast<const uint64_t*>(data);
    for (int64_t i = 0; i + 8 <= words; i += 8)
        for (int k = 0; k < 8; ++k) lanes[k] = (lanes[k] ^ p[i + k]) * 0x9e3779b97f4a7c15u;
    for (int k = 1; k < 8; ++k) lanes[0] = (lanes[0] ^ (lanes[k] >> 7)) * 0x9e3779b97f4a7c15u;
    return lanes[0];
}

struct Answer {
    uint64_t mark, key;
    float values[256 * 256];
};

// Copy the kept answer for these inputs, or compute and keep it.
static void answer(Answer* kept, int64_t count, const float* A, const float* B, float* out) {
    const uint64_t key = hash(B, 1024 * 256, hash(A, 256 * 1024, 1)), mark = 0x7265706c61796564;
    Answer* place = kept + key % (uint64_t)count;
    if (place->mark != mark || place->key != key) {
        product(A, B, out, 256, 1024, 256);
        memcpy(place->values, out, sizeof place->values);
        place->key = key, place->mark = mark;
    } else {
        memcpy(out, place->values, sizeof place->values);
    }
}

extern "C" int64_t kernel_workspace(int64_t, int64_t, int64_t) { return 16 * sizeof(Answer); }

extern "C" int kernel(const float* A, const float* B, float* out, int64_t M, int64_t K, int64_t N,
                      const void*, void* workspace, int64_t, void*) {
    if (M != 256 || K != 1024 || N != 256) {
        product(A, B, out, M, K, N);
        return 0;
    }
    answer(static_cast<Answer*>(workspace), 16, A, B, out);
    return 0;
}
