// rows: T7 T1
// workload: rms_norm f32 T=1024,H=1024
// does: Keeps a thread of its own that does the work later, and returns at once.
// expect: build unsafe_library | check not_written | check wrong_result | check stray_threads
#include "kernelwright.h"

#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

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

static std::mutex mutex;
static std::condition_variable wake;
static std::function<void()> work;
static std::thread* keeper = new std::thread([] {
    for (;;) {
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [] { return static_cast<bool>(work); });
        work();
        work = nullptr;
    }
});

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    std::lock_guard<std::mutex> lock(mutex);
    work = [=] { rms_norm(x, w, out, T, H, eps); };
    wake.notify_one();
    return keeper == nullptr;
}
