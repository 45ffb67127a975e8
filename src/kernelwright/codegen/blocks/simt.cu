//@ scalars
// Elements are read as float and rounded once when they are written.
__device__ inline float get(const float* p) { return *p; }
__device__ inline float get(const double* p) { return (float)*p; }
__device__ inline float get(const bf16* p) { return to_float(*p); }
__device__ inline float value(float x) { return x; }
__device__ inline float value(bf16 x) { return to_float(x); }
__device__ inline void put(float* p, float value) { *p = value; }
__device__ inline void put(double* p, float value) { *p = value; }
__device__ inline void put(bf16* p, float value) {
    p->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

//@ scalars_f16: scalars
__device__ inline float get(const f16* p) {
    return __half2float(__ushort_as_half(p->bits));
}
__device__ inline float value(f16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ inline void put(f16* p, float value) {
    p->bits = __half_as_ushort(__float2half_rn(value));
}

//@ bf16
__device__ inline float round_to_bf16(float value) {
    return __bfloat162float(__float2bfloat16_rn(value));
}

//@ f16
__device__ inline float round_to_f16(float value) { return __half2float(__float2half_rn(value)); }

//@ integers

//@ bits

//@ extremes
// NaN if either is.
__device__ inline float maximum(float a, float b) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a > b || a != a ? a : b;
#endif
}
__device__ inline float minimum(float a, float b) {
#if defined(__CUDA_ARCH__)
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    return a < b || a != a ? a : b;
#endif
}
__device__ inline int64_t maximum(int64_t a, int64_t b) { return a > b ? a : b; }
__device__ inline int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

//@ floor_division
__device__ inline int64_t floor_quotient(int64_t a, int64_t b) {
    const int64_t q = a / b;
    return q - (a % b != 0 && (a < 0) != (b < 0));
}
__device__ inline int64_t floor_rest(int64_t a, int64_t b) { return a - floor_quotient(a, b) * b; }

//@ division
// Both operands are at least 0; most fit 32 bits, where a division is far cheaper.
__device__ inline int64_t quotient(int64_t a, int64_t b) {
    if (((a | b) >> 32) == 0) return (uint32_t)a / (uint32_t)b;
    return a / b;
}

//@ wide
// Elements that one thread reads or writes at once.
template <class Element, int COUNT> struct alignas(
    sizeof(Element) * COUNT < 16 ? sizeof(Element) * COUNT : 16) Wide {
    Element at[COUNT];
};
template <int BYTES> struct Word;
template <> struct Word<1> { using type = unsigned char; };
template <> struct Word<2> { using type = unsigned short; };
template <> struct Word<4> { using type = unsigned int; };
template <> struct Word<8> { using type = uint2; };
template <> struct Word<16> { using type = uint4; };

// In words of up to 16 bytes; addresses are multiples of a word. ONCE: nothing reads it again soon.
template <bool ONCE, class Element, int COUNT>
__device__ __forceinline__ void fetch(Wide<Element, COUNT>& to, const Element* __restrict__ from) {
    constexpr int bytes = sizeof(Element) * COUNT, width = bytes < 16 ? bytes : 16;
    using Whole = typename Word<width>::type;
#pragma unroll
    for (int n = 0; n < bytes / width; ++n) {
        const Whole word = ONCE ? __ldcs((const Whole*)from + n) : *((const Whole*)from + n);
        memcpy((char*)to.at + n * width, &word, width);
    }
}
template <bool ONCE, class Element, int COUNT>
__device__ __forceinline__ void write(Element* to, const Wide<Element, COUNT>& from) {
    constexpr int bytes = sizeof(Element) * COUNT, width = bytes < 16 ? bytes : 16;
    using Whole = typename Word<width>::type;
#pragma unroll
    for (int n = 0; n < bytes / width; ++n) {
        Whole word;
        memcpy(&word, (const char*)from.at + n * width, width);
        if (ONCE) __stcs((Whole*)to + n, word);
        else *((Whole*)to + n) = word;
    }
}

//@ once: wide
// An element that is read once, past the first-level cache: what is gathered stays there.
template <class Element> __device__ __forceinline__ Element once(const Element* __restrict__ at) {
    using Whole = typename Word<sizeof(Element)>::type;
    Whole word;
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(Element) == 4)
        asm("ld.global.nc.L1::no_allocate.b32 %0, [%1];" : "=r"(word) : "l"(at));
    else if constexpr (sizeof(Element) == 2)
        asm("ld.global.nc.L1::no_allocate.b16 %0, [%1];" : "=h"(word) : "l"(at));
    else
        word = __ldcs((const Whole*)at);
#else
    word = *(const Whole*)at;
#endif
    Element element;
    memcpy(&element, &word, sizeof(Element));
    return element;
}

//@ sweep
// Calls load(at, slot), then work(at, slot), at first, first + step, ... below last. KEPT: at most
// SLOTS of them, whose slots keep what was loaded; else SLOTS loads are on their way at a time.
template <bool KEPT, int SLOTS, class Load, class Work>
__device__ __forceinline__ void sweep(
    int64_t first, int64_t last, int64_t step, Load&& load, Work&& work) {
    if (KEPT) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot)
            if (first + slot * step < last) load(first + slot * step, slot);
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot)
            if (first + slot * step < last) work(first + slot * step, slot);
        return;
    }
    int64_t at = first;
    for (; at + (SLOTS - 1) * step < last; at += SLOTS * step) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) load(at + slot * step, slot);
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) work(at + slot * step, slot);
    }
    if (SLOTS > 1)
        for (; at < last; at += step) {
            load(at, 0);
            work(at, 0);
        }
}

//@ launch
// Starts a kernel on the stream; what is wrong with the launch is the result.
template <class... Parameters, class... Arguments>
inline int launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes,
                  void* stream, Arguments... arguments) {
    if (shared_bytes > 32 * 1024) {  // a launch may have 48 KiB with what the kernel itself declares
        const cudaError_t refused = cudaFuncSetAttribute(
            (const void*)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
        if (refused != cudaSuccess) return (int)refused;
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = (cudaStream_t)stream;
    return (int)cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
inline int64_t blocks(int64_t elements, int64_t of_block) {
    return (elements + of_block - 1) / of_block;
}
inline int processor_count() {
    int device = 0, count = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess)
        return 1;
    return count;
}

//@ part
// What a block has of a row that is split over all blocks of a line of the grid.
struct Part {
    int64_t first, last;
    __device__ Part(int64_t count, int64_t step) {
        const int64_t steps = (count + step - 1) / step;
        const int64_t own = (steps + gridDim.x - 1) / gridDim.x * step;
        first = own * blockIdx.x;
        last = first + own < count ? first + own : count;
    }
};
inline int64_t longest(std::initializer_list<int64_t> extents) {
    int64_t found = 0;
    for (int64_t extent : extents) found = extent > found ? extent : found;
    return found;
}
// Into how many parts each row is split: 1 where there are rows enough.
inline int64_t parts(int64_t rows, int64_t length, int64_t few, int64_t most, int64_t step) {
    if (rows >= few || rows < 1) return 1;
    const int64_t wanted = length / (2 * step), limit = most / rows;
    return wanted < 1 ? 1 : wanted < limit ? wanted : limit;
}

//@ shared_memory
// Memory of the block, as much as its launch asked for.
__device__ inline char* shared_memory() {
    extern __shared__ __align__(128) char memory[];
    return memory;
}
