// The native half of the host of a Python candidate: a shared library that `python_host.py` loads
// into the interpreter. Clock, flush, handshake and limits are these, bound before any code of the
// candidate is imported; Python is entered for loading it and for each call.
//
// It links no OpenMP runtime: its team is that of the runtime which torch has loaded.
//
// Compiled as CUDA (`python_host.cu`) it is the host of kernels that Python launches on a GPU: device
// memory is lent to it, the clock is the device's, and the team is one thread.

#include <dlfcn.h>

#include "host.hpp"
#include "separate.hpp"
#ifdef __CUDACC__
#include "cuda_device.cuh"
#endif

namespace kernelwright {
namespace {

#ifdef __CUDACC__
void find_team(Host& host) { host.candidate.on_team = on_team; }

void settle(Host& host) {
    const cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess) refuse(host, error, "loading it failed");
}
#else
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

Parallel gomp_parallel = nullptr;  // also in LLVM's and Intel's runtimes
int (*thread_number)() = nullptr;
int runtimes = 0;  // torch's, and numba's where it is installed

struct Work {
    void (*work)(void*, int);
    void* data;
};

void on_team(int threads, void (*work)(void*, int), void* data) {
    Work all{work, data};
    gomp_parallel(
        [](void* given) {
            const Work& all = *static_cast<Work*>(given);
            all.work(all.data, thread_number());
        },
        &all, threads, 0);
}

bool find_openmp() {
    return dl_iterate_phdr(
        [](struct dl_phdr_info* info, size_t, void*) {
            for (const char* name : {"libgomp", "libomp", "libiomp"}) {
                if (strstr(info->dlpi_name, name) == nullptr) continue;
                void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
                if (library == nullptr) continue;
                gomp_parallel = reinterpret_cast<Parallel>(dlsym(library, "GOMP_parallel"));
                thread_number =
                    reinterpret_cast<int (*)()>(dlsym(library, "omp_get_thread_num"));
                if (gomp_parallel != nullptr && thread_number != nullptr) return 1;
            }
            return 0;
        },
        nullptr) != 0;
}

// Use torch's own team, and count it.
void find_team(Host& host) {
    if (!find_openmp()) fail(host, kHostFailed, "torch has loaded no OpenMP runtime");
    host.candidate.on_team = on_team;
    int team = 0;
    on_team(host.threads, [](void* n, int) { __sync_fetch_and_add(static_cast<int*>(n), 1); },
            &team);
    host.page->team = team;
    if (team != host.threads) fail(host, kHostFailed, "torch's OpenMP team is limited");
    runtimes = openmp_runtimes();
}

void settle(Host& host) {
    if (openmp_runtimes() > runtimes)
        fail(host, kTwoRuntimes, "a module that it imports brings a second OpenMP runtime");
}
#endif

Host host;
int (*python_load)() = nullptr;

void load(Host&) {
    reset_float_mode();
    const uint32_t mode = float_mode();
    if (python_load() != 0) _exit(6);  // it has reported already
    if (float_mode() != mode)
        fail(host, kLoadFailed, "importing it changes the process's rounding or denormal mode");
    settle(host);
}

int64_t no_workspace(const int64_t*, const double*) { return 0; }

}  // namespace
}  // namespace kernelwright

using namespace kernelwright;

// Before torch is imported: become known to the judge. 0, or the exit status.
extern "C" int kernelwright_greet(int count, char** arguments) {
    return greet(host, count, arguments) ? 0 : 2;
}

#ifdef __CUDACC__
// Before torch uses the device: context, stream and events. The stream's number.
extern "C" uint64_t kernelwright_start_device() {
    host.device = cuda_device();
    start_device(host);
    warm_up(host);
    return host.page->stream;
}
#endif

// After torch has been imported: map everything, start the team and put the limits on.
extern "C" void kernelwright_prepare(int count, char** arguments) {
    find_team(host);
    prepare(host, count, arguments);
}

// Obey the judge; never returns. `load` imports the candidate, `call` calls it with the arguments
// of the page; both return 0, or report with `kernelwright_fail`. `rehearse` may be null.
extern "C" void kernelwright_serve(int (*load_candidate)(),
                                   int (*call)(const int64_t*, const double*),
                                   void (*rehearse)(const int64_t*, const double*)) {
    python_load = load_candidate;
    host.candidate.rehearse = rehearse;
    host.candidate.load = load;
    host.candidate.call = call;
    host.candidate.workspace = no_workspace;
    serve(host);
}

extern "C" void kernelwright_fail(int problem, const char* text) {
    fail(host, static_cast<Problem>(problem), text);
}

// A fork server's part; see `separate.hpp`.
extern "C" long kernelwright_separate() { return separate(); }

extern "C" void kernelwright_watch(int connection, int worker) { watch(connection, worker); }

extern "C" void kernelwright_own_memory() { own_memory(); }
