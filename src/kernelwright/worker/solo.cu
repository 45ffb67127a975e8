// One CUDA C++ candidate alone, with memory of its own: for sanitizers, profilers and energy.
//
//   SOLO once|profile SECONDS ARTIFACT ENTRY WORD…
//
// WORDs are the arguments before `prepared`, in prototype order: in:FILE:BYTES, static:FILE:BYTES,
// out:BYTES, i:INTEGER, d:NUMBER. Each tensor and the workspace is one allocation of exactly its
// size, so that a sanitizer sees what is beyond it; outputs and workspace are not initialised.
//
// `once` makes one call, between cudaProfilerStart and -Stop. `profile` prints one line of JSON: every
// launch of a call with its grid, what it takes, what the driver says about its occupancy and its
// time on a cold cache; and the energy of a call, from as many in a row as SECONDS hold.
// It answers nobody and decides nothing; exit code 3 is a failure of its own, 4 one of the candidate's.

#include <cuda_profiler_api.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <algorithm>
#include <string>
#include <vector>

#include "invoke.hpp"
#include "quiet.hpp"

namespace kernelwright {
namespace {

constexpr int kMost = 32, kMostDoubles = 8, kTimed = 5;
constexpr uint64_t kHeadStartNs = 500000;

[[noreturn]] void end(int code, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(code);
}

void require(cudaError_t error, const char* what, int code = 3) {
    if (error != cudaSuccess) end(code, "%s: %s", what, cudaGetErrorString(error));
}

double seconds_now() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Launches ----------------------------------------------------------------------------------------

struct Launch {
    const void* function;
    dim3 grid, block;
    size_t dynamic_shared;
    cudaEvent_t before, after;
    std::vector<float> us;
};

bool noting = false;
std::vector<Launch> launches;

template <typename Go>
cudaError_t noted(const void* function, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                  Go go) {
    if (!noting) return go();
    Launch launch{function, grid, block, shared, nullptr, nullptr, {}};
    cudaEventCreate(&launch.before);
    cudaEventCreate(&launch.after);
    cudaEventRecord(launch.before, stream);
    const cudaError_t error = go();
    cudaEventRecord(launch.after, stream);
    launches.push_back(launch);
    return error;
}

template <typename F>
F next(const char* name) {
    static_assert(sizeof(F) == sizeof(void*), "a function");
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// Words -------------------------------------------------------------------------------------------

struct Arguments {
    std::vector<int64_t> tensors, statics, integers;
    std::vector<double> doubles;
};

void* allocate(size_t bytes) {
    void* address = nullptr;
    if (bytes > 0) require(cudaMalloc(&address, bytes), "no memory");
    return address;
}

void* from_file(const char* path, size_t bytes) {
    std::vector<char> data(bytes);
    FILE* file = fopen(path, "rb");
    if (file == nullptr || fread(data.data(), 1, bytes, file) != bytes)
        end(3, "an input cannot be read");
    fclose(file);
    void* address = allocate(bytes);
    require(cudaMemcpy(address, data.data(), bytes, cudaMemcpyHostToDevice), "no copy");
    return address;
}

void take(Arguments& all, const std::string& word) {
    const size_t first = word.find(':'), last = word.rfind(':');
    const std::string kind = word.substr(0, first), rest = word.substr(first + 1);
    if (kind == "i") {
        all.integers.push_back(atoll(rest.c_str()));
    } else if (kind == "d") {
        all.doubles.push_back(strtod(rest.c_str(), nullptr));
    } else if (kind == "out") {
        all.tensors.push_back(reinterpret_cast<int64_t>(allocate(atoll(rest.c_str()))));
    } else if (kind == "in" || kind == "static") {
        const std::string path = word.substr(first + 1, last - first - 1);
        void* address = from_file(path.c_str(), atoll(word.c_str() + last + 1));
        all.tensors.push_back(reinterpret_cast<int64_t>(address));
        if (kind == "static") all.statics.push_back(all.tensors.back());
    } else {
        end(3, "'%s' is no argument", word.c_str());
    }
}

// The candidate -----------------------------------------------------------------------------------

struct Kernel {
    Generic<int> function;
    int64_t integers[kMost] = {};
    double doubles[kMostDoubles] = {};
    cudaStream_t stream;

    void call() {
        const int code = invoke(function, integers, doubles);
        if (code != 0) end(4, "the kernel returned %d", code);
        require(cudaGetLastError(), "a launch failed", 4);
    }
};

template <typename T>
T symbol(void* library, const std::string& name) {
    return reinterpret_cast<T>(dlsym(library, name.c_str()));
}

template <typename Each>
void fill(int64_t* to, const Each& parts) {
    int place = 0;
    for (const auto* part : parts)
        for (int64_t value : *part) {
            if (place == kMost) end(3, "too many arguments");
            to[place++] = value;
        }
}

void* prepared_memory(void* library, const std::string& entry, const Arguments& all,
                      cudaStream_t stream) {
    auto* bytes = symbol<Generic<int64_t>>(library, entry + "_prepared");
    auto* prepare = symbol<Generic<int>>(library, entry + "_prepare");
    if (bytes == nullptr || prepare == nullptr) return nullptr;
    int64_t integers[kMost] = {};
    double doubles[kMostDoubles] = {};
    std::copy(all.doubles.begin(), all.doubles.end(), doubles);
    fill(integers, std::vector<const std::vector<int64_t>*>{&all.integers});
    void* memory = allocate(invoke(bytes, integers, doubles));
    if (memory == nullptr) return nullptr;
    const std::vector<int64_t> last{reinterpret_cast<int64_t>(memory),
                                    reinterpret_cast<int64_t>(stream)};
    fill(integers, std::vector<const std::vector<int64_t>*>{&all.statics, &all.integers, &last});
    if (invoke(prepare, integers, doubles) != 0) end(4, "its preparation failed");
    require(cudaDeviceSynchronize(), "its preparation failed", 4);
    return memory;
}

Kernel load(const char* artifact, const std::string& entry, const Arguments& all) {
    Kernel kernel;
    void* library = dlopen(artifact, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) end(4, "%s", dlerror());
    kernel.function = symbol<Generic<int>>(library, entry);
    if (kernel.function == nullptr) end(4, "there is no function %s", entry.c_str());
    require(cudaStreamCreateWithFlags(&kernel.stream, cudaStreamNonBlocking), "no stream");
    if (all.doubles.size() > kMostDoubles) end(3, "too many arguments");
    std::copy(all.doubles.begin(), all.doubles.end(), kernel.doubles);
    int64_t bytes = 0;
    if (auto* ask = symbol<Generic<int64_t>>(library, entry + "_workspace")) {
        fill(kernel.integers, std::vector<const std::vector<int64_t>*>{&all.integers});
        bytes = invoke(ask, kernel.integers, kernel.doubles);
    }
    const std::vector<int64_t> last{
        reinterpret_cast<int64_t>(prepared_memory(library, entry, all, kernel.stream)),
        reinterpret_cast<int64_t>(allocate(bytes)), bytes,
        reinterpret_cast<int64_t>(kernel.stream)};
    fill(kernel.integers,
         std::vector<const std::vector<int64_t>*>{&all.tensors, &all.integers, &last});
    return kernel;
}

// What is printed ---------------------------------------------------------------------------------

// A call on a cold cache whose enqueuing is over when the device begins with it.
void call_cold(Kernel& kernel, float4* memory, size_t bytes) {
    wait_for<<<1, 1, 0, kernel.stream>>>(kHeadStartNs);
    read_all<<<1024, 256, 0, kernel.stream>>>(memory, bytes / sizeof(float4),
                                              reinterpret_cast<float*>(memory));
    noting = true;
    kernel.call();
    noting = false;
    require(cudaDeviceSynchronize(), "the kernel failed", 4);
}

float milliseconds(cudaEvent_t from, cudaEvent_t to) {
    float ms = 0;
    cudaEventElapsedTime(&ms, from, to);
    return ms;
}

void print_launch(const Launch& launch, std::vector<float> us) {
    cudaFuncAttributes facts{};
    int blocks = -1;
    const char* name = "";
    const int threads = launch.block.x * launch.block.y * launch.block.z;
    if (cudaFuncGetAttributes(&facts, launch.function) != cudaSuccess) facts.numRegs = -1;
    if (cudaFuncGetName(&name, launch.function) != cudaSuccess) name = "";
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, launch.function, threads,
                                                      launch.dynamic_shared) != cudaSuccess)
        blocks = -1;
    cudaGetLastError();
    std::sort(us.begin(), us.end());
    printf("{\"name\": \"%s\", \"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], "
           "\"dynamic_shared\": %zu, \"static_shared\": %zu, \"registers\": %d, \"local\": %zu, "
           "\"blocks_per_multiprocessor\": %d, \"us\": %.3f}",
           name, launch.grid.x, launch.grid.y, launch.grid.z, launch.block.x, launch.block.y,
           launch.block.z, launch.dynamic_shared, facts.sharedSizeBytes, facts.numRegs,
           facts.localSizeBytes, blocks, us.empty() ? 0.0f : us[us.size() / 2]);
}

// Total energy of the GPU since its driver was loaded, in millijoules; 0 where that is not known.
struct EnergyCounter {
    using Total = int (*)(void*, unsigned long long*);
    void* device = nullptr;
    Total total = nullptr;

    EnergyCounter() {
        void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
        if (library == nullptr) return;
        auto* begin = symbol<int (*)()>(library, "nvmlInit_v2");
        auto* find = symbol<int (*)(const char*, void**)>(library,
                                                          "nvmlDeviceGetHandleByPciBusId_v2");
        total = symbol<Total>(library, "nvmlDeviceGetTotalEnergyConsumption");
        char bus[64];
        if (begin == nullptr || find == nullptr || total == nullptr || begin() != 0 ||
            cudaDeviceGetPCIBusId(bus, sizeof bus, 0) != cudaSuccess || find(bus, &device) != 0)
            total = nullptr;
    }

    unsigned long long read() const {
        unsigned long long millijoules = 0;
        return total != nullptr && total(device, &millijoules) == 0 ? millijoules : 0;
    }
};

void print_energy(Kernel& kernel, double seconds, double call_us) {
    const EnergyCounter counter;
    if (seconds <= 0 || counter.read() == 0) return;
    const int batch = static_cast<int>(std::min(1000.0, std::max(1.0, 2e4 / std::max(1.0, call_us))));
    for (int i = 0; i < batch; ++i) kernel.call();
    require(cudaDeviceSynchronize(), "the kernel failed", 4);
    const double began = seconds_now();
    const unsigned long long before = counter.read();
    long calls = 0;
    double took = 0;
    while (took < seconds) {
        for (int i = 0; i < batch; ++i) kernel.call();
        require(cudaDeviceSynchronize(), "the kernel failed", 4);
        calls += batch;
        took = seconds_now() - began;
    }
    printf(", \"energy\": {\"millijoules\": %llu, \"calls\": %ld, \"seconds\": %.4f}",
           counter.read() - before, calls, took);
}

void profile(Kernel& kernel, double seconds) {
    int cache = 0;
    require(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0), "the GPU does not answer");
    const size_t bytes = 2 * static_cast<size_t>(cache);
    auto* memory = static_cast<float4*>(allocate(bytes));
    cudaMemset(memory, 0, bytes);
    kernel.call();
    require(cudaDeviceSynchronize(), "the kernel failed", 4);
    std::vector<Launch> shown;
    std::vector<float> whole;
    for (int i = 0; i < kTimed; ++i) {
        launches.clear();
        call_cold(kernel, memory, bytes);
        if (shown.empty()) shown = launches;
        if (shown.size() != launches.size()) end(4, "calls differ in their launches");
        for (size_t k = 0; k < launches.size(); ++k)
            shown[k].us.push_back(1e3f * milliseconds(launches[k].before, launches[k].after));
        if (!launches.empty())
            whole.push_back(1e3f * milliseconds(launches[0].before, launches.back().after));
    }
    std::sort(whole.begin(), whole.end());
    const double call_us = whole.empty() ? 0 : whole[whole.size() / 2];
    printf("\nKERNELWRIGHT {\"call_us\": %.3f, \"launches\": [", call_us);
    for (size_t k = 0; k < shown.size(); ++k) {
        if (k > 0) printf(", ");
        print_launch(shown[k], shown[k].us);
    }
    printf("]");
    print_energy(kernel, seconds, call_us);
    printf("}\n");
}

}  // namespace
}  // namespace kernelwright

using kernelwright::next;
using kernelwright::noted;

using Launcher = cudaError_t (*)(const void*, dim3, dim3, void**, size_t, cudaStream_t);

// What artifacts launch with; the runtime's own functions come next in the order of symbols.
extern "C" {

cudaError_t cudaLaunchKernel(const void* f, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
    static auto go = next<Launcher>("cudaLaunchKernel");
    return noted(f, grid, block, shared, stream,
                 [&] { return go(f, grid, block, arguments, shared, stream); });
}

cudaError_t __cudaLaunchKernel(cudaKernel_t f, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
    using Function = cudaError_t (*)(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t);
    static auto go = next<Function>("__cudaLaunchKernel");
    return noted(reinterpret_cast<const void*>(f), grid, block, shared, stream,
                 [&] { return go(f, grid, block, arguments, shared, stream); });
}

cudaError_t cudaLaunchCooperativeKernel(const void* f, dim3 grid, dim3 block, void** arguments,
                                        size_t shared, cudaStream_t stream) {
    static auto go = next<Launcher>("cudaLaunchCooperativeKernel");
    return noted(f, grid, block, shared, stream,
                 [&] { return go(f, grid, block, arguments, shared, stream); });
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* f, void** arguments) {
    using Function = cudaError_t (*)(const cudaLaunchConfig_t*, const void*, void**);
    static auto go = next<Function>("cudaLaunchKernelExC");
    return noted(f, how->gridDim, how->blockDim, how->dynamicSmemBytes, how->stream,
                 [&] { return go(how, f, arguments); });
}

}  // extern "C"

int main(int count, char** words) {
    using namespace kernelwright;
    if (count < 5) end(3, "SOLO once|profile SECONDS ARTIFACT ENTRY WORD…");
    require(cudaSetDevice(0), "the GPU cannot be used");
    Arguments all;
    for (int i = 5; i < count; ++i) take(all, words[i]);
    Kernel kernel = load(words[3], words[4], all);
    if (strcmp(words[1], "profile") == 0) {
        profile(kernel, atof(words[2]));
        return 0;
    }
    require(cudaDeviceSynchronize(), "the GPU does not answer");
    cudaProfilerStart();
    kernel.call();
    const cudaError_t error = cudaDeviceSynchronize();
    cudaProfilerStop();
    require(error, "the kernel failed", 4);
    return 0;
}
