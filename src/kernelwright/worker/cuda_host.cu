// The host of one CUDA C++ candidate: a shared library under the C ABI that launches kernels. What it
// does on the device is in `cuda_device.cuh`.

#include "cuda_device.cuh"
#include "generic.hpp"

namespace kernelwright {
namespace {

void load(Host& host) {
    load_library(host);
    const cudaError_t error = cudaDeviceSynchronize();  // its kernels are on the device from here
    if (error != cudaSuccess) refuse(host, error, "loading it failed");
}

}  // namespace
}  // namespace kernelwright

int main(int count, char** arguments) {
    using namespace kernelwright;
    Host host;
    host.candidate = {load, call, workspace, prepared, prepare_static, on_team};
    host.device = cuda_device();
    if (!greet(host, count, arguments)) return 2;
    start_device(host);
    warm_up(host);
    prepare(host, count, arguments);
    serve(host);
}
