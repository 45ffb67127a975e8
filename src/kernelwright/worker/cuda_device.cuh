// The clock, memory and cache flush of hosts whose candidates run on an NVIDIA GPU.
//
//   an arena is lent as    ipc:HANDLE:BYTES    with the 64 bytes of a CUDA IPC handle in hexadecimal
//
// Context, stream, events and the kernel that flushes the cache are there before the candidate is
// loaded. A call is timed by two events on the stream that the candidate is given. Before them a wait
// and the flush keep the device busy while the call is being enqueued, so that no gap of the
// processor's is in the time.
//
// Work on another stream could begin during the wait. Outputs are therefore filled in the order of
// the stream before the flush, and a secret part of each once more right before the first event: what
// was written earlier is lost. What goes on later on
// streams that wait for the default one is joined before the second event, and anything else that
// the device is still doing after it is added by the processor's clock.
#pragma once

#include <cuda_runtime.h>

#include "host.hpp"
#include "quiet.hpp"

namespace kernelwright {
namespace {

cudaStream_t stream = nullptr;
cudaEvent_t started = nullptr, stopped = nullptr, joined = nullptr;
int multiprocessors = 1;
float4* flush_memory = nullptr;
uint64_t flush_capacity = 0, flush_wanted = 0;

// What a process needs to enqueue a few launches when it has just been woken, many times over.
constexpr uint64_t kHeadStartNs = 500000;
// What waiting for an idle device takes.
constexpr uint64_t kIdleNs = 20000;

Problem problem_of(cudaError_t error) {
    if (error == cudaErrorMemoryAllocation) return kDeviceMemory;
    const int number = static_cast<int>(error);
    return (number >= 700 && number < 720) || number == 214 || number == 226 ? kDeviceFault
                                                                               : kLaunchFailed;
}

[[noreturn]] void refuse(const Host& host, cudaError_t error, const char* what) {
    char text[kTextBytes];
    snprintf(text, sizeof text, "%s: %s (%s)", what, cudaGetErrorString(error),
             cudaGetErrorName(error));
    fail(host, problem_of(error), text);
}

// Of our own calls before the candidate is loaded.
void require(const Host& host, cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    char text[kTextBytes];
    snprintf(text, sizeof text, "%s: %s", what, cudaGetErrorString(error));
    fail(host, kHostFailed, text);
}

void start_device(Host& host) {
    require(host, cudaSetDevice(0), "the GPU cannot be used");
    require(host, cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "no stream");
    require(host, cudaEventCreate(&started), "no event");
    require(host, cudaEventCreate(&stopped), "no event");
    require(host, cudaEventCreateWithFlags(&joined, cudaEventDisableTiming), "no event");
    require(host,
            cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0),
            "the GPU does not answer");
    host.page->stream = reinterpret_cast<uint64_t>(stream);
    host.page->team = host.threads;
}

int hexadecimal(char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; }

void* map(const Host& host, const char* specification) {
    cudaIpcMemHandle_t handle;
    const char* digits = specification + 4;
    if (strncmp(specification, "ipc:", 4) != 0 || strlen(digits) < 2 * sizeof handle)
        fail(host, kHostFailed, "an arena is not ipc:HANDLE:BYTES");
    char* bytes = reinterpret_cast<char*>(&handle);
    for (size_t i = 0; i < sizeof handle; ++i)
        bytes[i] = static_cast<char>(16 * hexadecimal(digits[2 * i]) + hexadecimal(digits[2 * i + 1]));
    void* address = nullptr;
    require(host, cudaIpcOpenMemHandle(&address, handle, cudaIpcMemLazyEnablePeerAccess),
            "memory that is lent cannot be opened");
    return address;
}

void flush(Host& host, uint64_t bytes) {
    if (bytes > flush_capacity) {
        cudaFree(flush_memory);
        const cudaError_t error = cudaMalloc(&flush_memory, bytes);
        if (error != cudaSuccess) refuse(host, error, "no memory for the cache flush");
        cudaMemset(flush_memory, 0, bytes);
        flush_capacity = bytes;
    }
    flush_wanted = bytes;
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) refuse(host, error, "before the call");
}

// A device that served another process takes 0.2 ms until it serves this one: not in a call.
void wake(Host& host) {
    nothing<<<1, 1, 0, stream>>>();
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) refuse(host, error, "before the call");
}

void fill_outputs(const Page* page, uint64_t first, uint64_t count) {
    for (uint64_t i = first; i < first + count && i < kMaxPoison; ++i)
        cudaMemsetAsync(reinterpret_cast<void*>(page->poison_address[i]),
                        static_cast<int>(page->poison_byte[i]), page->poison_bytes[i], stream);
}

// Make our stream wait for what the default streams, and those that wait for them, still do.
void join_others() {
    for (cudaStream_t other : {cudaStreamLegacy, cudaStreamPerThread}) {
        if (cudaStreamQuery(other) != cudaErrorNotReady) continue;
        cudaEventRecord(joined, other);
        cudaStreamWaitEvent(stream, joined, 0);
    }
    cudaGetLastError();  // a stream that is not ready is no error
}

void report_failure(const Host& host, int code, cudaError_t launch) {
    if (launch != cudaSuccess) refuse(host, launch, "a launch failed");
    if (code == 0) return;
    char text[kTextBytes];
    snprintf(text, sizeof text, "the kernel returned %d (as a CUDA error: %s)", code,
             cudaGetErrorString(static_cast<cudaError_t>(code)));
    fail(host, code == cudaErrorMemoryAllocation ? kDeviceMemory : kLaunchFailed, text);
}

uint64_t timed(Host& host, int (*call)(const int64_t*, const double*), const int64_t* integers,
               const double* doubles, int* code) {
    cudaCtxResetPersistingL2Cache();
    wait_for<<<1, 1, 0, stream>>>(kHeadStartNs);
    fill_outputs(host.page, 0, host.page->poison_before);
    if (flush_wanted > 0)
        read_all<<<8 * multiprocessors, 256, 0, stream>>>(
            flush_memory, flush_wanted / sizeof(float4), reinterpret_cast<float*>(flush_memory));
    fill_outputs(host.page, host.page->poison_before, host.page->poison_after);
    cudaEventRecord(started, stream);
    *code = call(integers, doubles);
    const cudaError_t launch = cudaGetLastError();
    join_others();
    cudaEventRecord(stopped, stream);
    flush_wanted = 0;
    cudaEventSynchronize(stopped);
    const uint64_t answered = now_ns();
    const cudaError_t error = cudaDeviceSynchronize();
    const uint64_t late = now_ns() - answered;
    if (error != cudaSuccess) refuse(host, error, "the kernel failed");
    report_failure(host, *code, launch);
    float ms = 0;
    cudaEventElapsedTime(&ms, started, stopped);
    return static_cast<uint64_t>(1e6 * ms) + (late > kIdleNs ? late : 0);
}

int null_kernel(const int64_t*, const double*) {
    nothing<<<1, 1, 0, stream>>>();
    return cudaGetLastError();
}

// The processor's team is this thread alone.
void on_team(int, void (*work)(void*, int), void* data) { work(data, 0); }

// Whatever the driver does once only is done before limits and filter are on.
void warm_up(Host& host) {
    flush(host, 1 << 20);
    int64_t integers[kMaxIntegers] = {};
    double doubles[kMaxDoubles] = {};
    int code = 0;
    timed(host, null_kernel, integers, doubles, &code);
}

Device cuda_device() { return {map, flush, wake, timed, null_kernel}; }

}  // namespace
}  // namespace kernelwright
