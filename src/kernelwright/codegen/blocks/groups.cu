//@ shuffle
constexpr unsigned ALL_LANES = 0xffffffffu;

template <class T> __device__ inline T from_lane(T value, int mask) {
    return __shfl_xor_sync(ALL_LANES, value, mask);
}

//@ plus_of
struct plus_of {
    template <class T> __device__ T operator()(T a, T b) const { return a + b; }
};

//@ times_of
struct times_of {
    template <class T> __device__ T operator()(T a, T b) const { return a * b; }
};

//@ greater_of: extremes
struct greater_of {
    template <class T> __device__ T operator()(T a, T b) const { return maximum(a, b); }
};

//@ lesser_of: extremes
struct lesser_of {
    template <class T> __device__ T operator()(T a, T b) const { return minimum(a, b); }
};

//@ either_of
struct either_of {
    __device__ int32_t operator()(int32_t a, int32_t b) const { return a | b; }
};

//@ both_of
struct both_of {
    __device__ int32_t operator()(int32_t a, int32_t b) const { return a & b; }
};

//@ winner: shuffle
// The greatest (SIGN 1) or least (-1) value with the least index; NaN wins.
struct Winner {
    float value;
    int64_t index;
};
__device__ inline Winner from_lane(Winner own, int mask) {
    return {from_lane(own.value, mask), from_lane(own.index, mask)};
}
template <int SIGN> struct winner_of {
    __device__ Winner operator()(Winner a, Winner b) const {
        const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
        const bool better = a_nan || b_nan ? a_nan && !b_nan
                                           : (SIGN > 0 ? a.value > b.value : a.value < b.value);
        const bool equal = (a_nan && b_nan) || a.value == b.value;
        return better || (equal && a.index < b.index) ? a : b;
    }
    __device__ static Winner nothing() { return {SIGN > 0 ? -INFINITY : INFINITY, INT64_MAX}; }
};

//@ group: shuffle
// SPAN threads that follow one another share a row. Every thread of a block takes part in each
// exchange; two buffers in turn, so that one barrier separates them.
template <int SPAN, int THREADS_OF_BLOCK> struct Group {
    static constexpr int WARPS = (SPAN + 31) / 32;
    char* exchange;
    int turn;

    __device__ explicit Group(char* memory) : exchange(memory), turn(0) {}
    __device__ static int number() { return (int)threadIdx.x / SPAN; }
    __device__ static int lane() { return (int)threadIdx.x % SPAN; }

    template <class T, class Combine> __device__ T across(T value, Combine combine) {
#pragma unroll
        for (int mask = SPAN < 32 ? SPAN / 2 : 16; mask > 0; mask /= 2)
            value = combine(value, from_lane(value, mask));
        if (WARPS == 1) return value;
        T* shared = (T*)(exchange + turn * (THREADS_OF_BLOCK / 32) * 16);
        turn ^= 1;
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
        __syncthreads();
        value = shared[number() * WARPS + (int)threadIdx.x % WARPS];
#pragma unroll
        for (int mask = WARPS / 2; mask > 0; mask /= 2)
            value = combine(value, from_lane(value, mask));
        return value;
    }
};

//@ mma: shuffle
// c += a b for a of 16 x 16 and b of 16 x 8 elements of 16 bits, in the fragments of `mma.sync`:
// lane 4 g + t has rows g and g + 8 of a and c, and column g of b.
template <class Element> constexpr bool IS_BF16 = false;
template <> constexpr bool IS_BF16<bf16> = true;
__device__ inline float half_of(unsigned pair, int which, bf16*) {
    return to_float(bf16{(uint16_t)(pair >> 16 * which)});
}
__device__ inline float half_of(unsigned pair, int which, f16*) {
    return to_float(f16{(uint16_t)(pair >> 16 * which)});
}
template <class Element>
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if defined(__CUDA_ARCH__)
    if constexpr (IS_BF16<Element>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    for (int other = 0; other < 4; ++other) {
        unsigned row[4], column[2][2];
        for (int n = 0; n < 4; ++n) row[n] = __shfl_sync(ALL_LANES, a[n], g * 4 + other);
        for (int n = 0; n < 2; ++n) {
            column[n][0] = __shfl_sync(ALL_LANES, b0, (2 * t + n) * 4 + other);
            column[n][1] = __shfl_sync(ALL_LANES, b1, (2 * t + n) * 4 + other);
        }
        for (int n = 0; n < 4; ++n)
            for (int k = 0; k < 4; ++k)
                c[n] += half_of(row[n / 2 + k / 2 * 2], k % 2, (Element*)nullptr) *
                        half_of(column[n % 2][k / 2], k % 2, (Element*)nullptr);
    }
#endif
}

//@ copies
// Copies of 16 bytes to shared memory that nobody waits for, in batches; zeros where not `there`.
__device__ __forceinline__ void copy_later(void* shared, const void* from, bool there) {
#if defined(__CUDA_ARCH__)
    const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0) : "memory");
#else
    if (there) memcpy(shared, from, 16);
    else memset(shared, 0, 16);
#endif
}
__device__ __forceinline__ void close_copies() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
__device__ __forceinline__ void await_copies_but_one() {
#if defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}
