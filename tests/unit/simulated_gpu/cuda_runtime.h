// A GPU that runs on one thread of a CPU, so that CUDA kernels are tested where there is none.
//
// Blocks run one after the other in ascending order; the threads of a block are coroutines that
// give way at barriers and where lanes exchange values. Shared memory is static, so it keeps what
// the block before left there. A barrier that not all live threads reach ends the process.
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <tuple>
#include <vector>

#include "kernelwright.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#define __shared__ static
#define __constant__ static
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace simulated {

struct Barrier {
    int arrived = 0;
    unsigned turn = 0;
};
struct Warp {
    Barrier barrier;
    alignas(16) char slots[32][16];
    unsigned votes[32];
};
struct Thread {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(256 << 10);
    bool done = true;
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static Barrier block_barrier;
static ucontext_t scheduler;
static int running, live;
static long progress;
static void (*body)(void*);
static void* body_data;
alignas(128) static char shared[256 << 10];

inline void give_way() { swapcontext(&threads[running].context, &scheduler); }

inline void wait(Barrier& barrier, int expected) {
    ++progress;
    const unsigned turn = barrier.turn;
    if (++barrier.arrived >= expected) {
        barrier.arrived = 0;
        ++barrier.turn;
        return;
    }
    while (barrier.turn == turn) give_way();
    ++progress;
}

inline Warp& own_warp() { return warps[running / 32]; }

template <class T> T exchange(unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 16, "what lanes exchange is at most 16 bytes");
    Warp& warp = own_warp();
    memcpy(warp.slots[running % 32], &value, sizeof value);
    wait(warp.barrier, __builtin_popcount(mask));
    memcpy(&value, warp.slots[source & 31], sizeof value);
    wait(warp.barrier, __builtin_popcount(mask));
    return value;
}

inline void start() {
    body(body_data);
    threads[running].done = true;
    --live;
    ++progress;
    swapcontext(&threads[running].context, &scheduler);
}

inline void run_block(int count) {
    if ((int)threads.size() < count) threads.resize(count);
    warps.assign((count + 31) / 32, Warp());
    block_barrier = Barrier();
    live = count;
    for (int n = 0; n < count; ++n) {
        Thread& thread = threads[n];
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.data();
        thread.context.uc_stack.ss_size = thread.stack.size();
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, start, 0);
        thread.done = false;
    }
    while (live > 0) {
        const long before = progress;
        for (int n = 0; n < count; ++n) {
            if (threads[n].done) continue;
            running = n;
            threadIdx = dim3(n, 0, 0);
            swapcontext(&scheduler, &threads[n].context);
        }
        if (progress == before) {
            fprintf(stderr, "the threads of a block wait for one another for ever\n");
            abort();
        }
    }
}

}  // namespace simulated

// -- launches ----------------------------------------------------------------------------------

typedef int cudaError_t;
typedef void* cudaStream_t;
constexpr cudaError_t cudaSuccess = 0, cudaErrorInvalidValue = 1;
enum { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaDevAttrMultiProcessorCount };
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    int64_t dynamicSmemBytes;
    cudaStream_t stream;
    void* attrs;
    unsigned numAttrs;
};
inline cudaError_t cudaFuncSetAttribute(const void*, int, int) { return cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) { return *value = 3, cudaSuccess; }
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
    return memset(p, value, bytes), cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const dim3 grid = config->gridDim;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
        config->blockDim.x > 1024 || config->dynamicSmemBytes > 227 * 1024)
        return 9;  // invalid configuration
    std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
    auto call = [&] { std::apply(kernel, values); };
    simulated::body = [](void* data) { (*(decltype(call)*)data)(); };
    simulated::body_data = &call;
    gridDim = grid;
    blockDim = config->blockDim;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = dim3(x, y, z);
                memset(simulated::shared, 0xA5, config->dynamicSmemBytes);
                simulated::run_block(blockDim.x);
            }
    return cudaSuccess;
}

static cudaError_t simulated_last_error = cudaSuccess;
inline cudaError_t cudaGetLastError() {
    const cudaError_t last = simulated_last_error;
    return simulated_last_error = cudaSuccess, last;
}

namespace simulated {

template <class... Parameters> struct Launcher {
    void (*kernel)(Parameters...);
    cudaLaunchConfig_t config;
    template <class... Arguments> void operator()(Arguments&&... arguments) {
        const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
        if (error != cudaSuccess) simulated_last_error = error;
    }
};
template <class... Parameters>
Launcher<Parameters...> launcher(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                 size_t bytes = 0, cudaStream_t stream = nullptr) {
    return {kernel, {grid, block, (int64_t)bytes, stream, nullptr, 0}};
}

}  // namespace simulated

// -- what threads do together ------------------------------------------------------------------

inline void __syncthreads() { simulated::wait(simulated::block_barrier, simulated::live); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    simulated::wait(simulated::own_warp().barrier, __builtin_popcount(mask));
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { ++simulated::progress, simulated::give_way(); }
template <class T> T __shfl_xor_sync(unsigned mask, T value, int other) {
    return simulated::exchange(mask, value, (simulated::running % 32) ^ other);
}
template <class T> T __shfl_sync(unsigned mask, T value, int source) {
    return simulated::exchange(mask, value, source);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int by) {
    const int lane = simulated::running % 32;
    return simulated::exchange(mask, value, lane >= by ? lane - by : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int by) {
    const int lane = simulated::running % 32;
    return simulated::exchange(mask, value, lane + by < 32 ? lane + by : lane);
}
inline unsigned __ballot_sync(unsigned mask, int truth) {
    simulated::Warp& warp = simulated::own_warp();
    warp.votes[simulated::running % 32] = truth != 0;
    simulated::wait(warp.barrier, __builtin_popcount(mask));
    unsigned found = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1) found |= warp.votes[lane] << lane;
    simulated::wait(warp.barrier, __builtin_popcount(mask));
    return found;
}
inline int __any_sync(unsigned mask, int truth) { return __ballot_sync(mask, truth) != 0; }
inline int __all_sync(unsigned mask, int truth) { return __ballot_sync(mask, truth) == mask; }
inline unsigned __match_any_sync(unsigned mask, unsigned value) {
    unsigned found = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1)
            found |= (unsigned)(simulated::exchange(mask, value, lane) == value) << lane;
    return found;
}
inline int __syncthreads_count(int truth) {
    static int count, seen;
    __syncthreads();
    if (simulated::running == 0) count = 0;
    __syncthreads();
    count += truth != 0;
    __syncthreads();
    seen = count;
    return seen;
}
inline int __syncthreads_or(int truth) { return __syncthreads_count(truth) != 0; }

template <class T, class Combine> T simulated_reduce(unsigned mask, T value, Combine combine) {
    simulated::Warp& warp = simulated::own_warp();
    memcpy(warp.slots[simulated::running % 32], &value, sizeof value);
    simulated::wait(warp.barrier, __builtin_popcount(mask));
    T found, other;
    memcpy(&found, warp.slots[0], sizeof found);
    for (int lane = 1; lane < 32; ++lane) {
        memcpy(&other, warp.slots[lane], sizeof other);
        found = combine(found, other);
    }
    simulated::wait(warp.barrier, __builtin_popcount(mask));
    return found;
}
inline int __reduce_add_sync(unsigned mask, int value) {
    return simulated_reduce(mask, value, [](int a, int b) { return a + b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
    return simulated_reduce(mask, value, [](unsigned a, unsigned b) { return a & b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
    return simulated_reduce(mask, value, [](unsigned a, unsigned b) { return a | b; });
}

template <class T, class U> T atomicAdd(T* p, U value) { T old = *p; *p += value; return old; }
template <class T, class U> T atomicOr(T* p, U value) { T old = *p; *p |= value; return old; }
template <class T, class U> T atomicMax(T* p, U v) { T old = *p; if (T(v) > old) *p = v; return old; }
template <class T, class U> T atomicMin(T* p, U v) { T old = *p; if (T(v) < old) *p = v; return old; }
template <class T, class U> T atomicExch(T* p, U value) { T old = *p; *p = value; return old; }

// -- one thread --------------------------------------------------------------------------------

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T value) { *p = value; }
template <class T> void __stcg(T* p, T value) { *p = value; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __float_as_uint(float x) { return kernelwright_bits(x); }
inline float __uint_as_float(unsigned x) { return kernelwright_float(x); }
inline long long __double_as_longlong(double x) { long long v; memcpy(&v, &x, 8); return v; }
inline double __longlong_as_double(long long x) { double v; memcpy(&v, &x, 8); return v; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
