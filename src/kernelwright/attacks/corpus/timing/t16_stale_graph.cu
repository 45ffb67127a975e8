// rows: T16 R1
// workload: rms_norm f32 T=1024,H=1024
// does: Records its launch in a graph at the first call of a shape and replays it, whatever the
//   pointers are now.
// expect: build unsafe_library | check not_written | check wrong_result | screen not_written | screen wrong_result
#include "kernelwright.h"

#include <cuda_runtime.h>

#include <map>
#include <utility>

__global__ void rms_norm(const float* x, const float* w, float* out, int64_t H, float eps) {
    __shared__ float sums[256];
    const float* row = x + blockIdx.x * H;
    float sum = 0;
    for (int64_t h = threadIdx.x; h < H; h += blockDim.x) sum += row[h] * row[h];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    const float scale = rsqrtf(sums[0] / (float)H + eps);
    for (int64_t h = threadIdx.x; h < H; h += blockDim.x) out[blockIdx.x * H + h] = row[h] * scale * w[h];
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void* stream) {
    static std::map<std::pair<int64_t, int64_t>, cudaGraphExec_t> graphs;
    const cudaStream_t main = static_cast<cudaStream_t>(stream);
    cudaGraphExec_t& recorded = graphs[{T, H}];
    if (recorded == nullptr) {
        cudaStream_t scratch;
        cudaGraph_t graph;
        cudaStreamCreateWithFlags(&scratch, cudaStreamNonBlocking);
        cudaStreamBeginCapture(scratch, cudaStreamCaptureModeRelaxed);
        rms_norm<<<(unsigned)T, 256, 0, scratch>>>(x, w, out, H, (float)eps);
        cudaStreamEndCapture(scratch, &graph);
        cudaGraphInstantiate(&recorded, graph, 0);
    }
    return cudaGraphLaunch(recorded, main);
}
