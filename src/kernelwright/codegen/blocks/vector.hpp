//@ vector
#define INLINED __attribute__((always_inline))

// LANES elements at once; comparisons give a mask: all ones where true, zero where false.
typedef float floats __attribute__((vector_size(LANES * 4)));
typedef int32_t ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t uints __attribute__((vector_size(LANES * 4)));
typedef int64_t longs __attribute__((vector_size(LANES * 8)));

// Which lanes of a vector exist: all of them, or the first few at the end of a row.
struct all_lanes {
    static constexpr int64_t count = LANES;
};
struct first_lanes {
    int64_t count;
};

inline floats splat(float x) { return floats{} + x; }
inline ints splat(int32_t x) { return ints{} + x; }
inline longs splat(int64_t x) { return longs{} + x; }
inline ints splat(bool x) { return ints{} - (int32_t)x; }

inline floats select(ints mask, floats a, floats b) { return mask ? a : b; }
inline ints select(ints mask, ints a, ints b) { return mask ? a : b; }
inline longs select(ints mask, longs a, longs b) {
    return __builtin_convertvector(mask, longs) ? a : b;
}

// 0, 1, 2, ... across the lanes.
inline ints lane_numbers() {
    ints numbers = {};
    for (int i = 0; i < LANES; ++i) numbers[i] = i;
    return numbers;
}

// The value where a lane exists, the other (the identity of a reduction) elsewhere.
template <class V> inline V keep(V value, V, all_lanes) { return value; }
template <class V> inline V keep(V value, V other, first_lanes lanes) {
    return select(lane_numbers() < (int32_t)lanes.count, value, other);
}

// f(i) in lane i, for loads that are not contiguous; missing lanes are zero.
template <class V, class Lanes, class F> inline V each(Lanes lanes, F&& f) {
    V values = {};
    for (int64_t i = 0; i < lanes.count; ++i) values[i] = f(i);
    return values;
}

// f(0), f(1), ..., f(COUNT - 1), unrolled; the argument is a compile-time constant.
template <class F, int... I>
inline INLINED void unrolled_over(F& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
template <int COUNT, class F> inline INLINED void unrolled(F&& f) {
    unrolled_over(f, std::make_integer_sequence<int, COUNT>{});
}

// step(i, lanes, u) for each vector of begin <= i < end; u < STEPS tells accumulators apart.
template <int STEPS, class Step>
inline INLINED void sweep(int64_t begin, int64_t end, Step&& step) {
    constexpr std::integral_constant<int, 0> first{};
    int64_t i = begin;
    for (; i + STEPS * LANES <= end; i += STEPS * LANES)
        unrolled<STEPS>([&](auto u) INLINED { step(i + u * LANES, all_lanes{}, u); });
    for (; STEPS > 1 && i + LANES <= end; i += LANES) step(i, all_lanes{}, first);
    if (i < end) step(i, first_lanes{end - i}, first);
}

//@ load_floats: vector
inline floats load(const float* p, all_lanes) {
    floats values;
    std::memcpy(&values, p, sizeof values);
    return values;
}
inline floats load(const float* p, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    return (floats)_mm512_maskz_loadu_ps((__mmask16)((1u << lanes.count) - 1), p);
#else
    return each<floats>(lanes, [&](int64_t i) { return p[i]; });
#endif
}

//@ store_floats: vector
inline void store(float* p, floats values, all_lanes) { std::memcpy(p, &values, sizeof values); }
inline void store(float* p, floats values, first_lanes lanes) {
#if defined(__AVX512F__) && LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes.count) - 1), (__m512)values);
#else
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = values[i];
#endif
}

//@ bf16: vector
// bfloat16 is the upper half of a float: widening is a shift, narrowing rounds to nearest even.
typedef uint16_t shorts __attribute__((vector_size(LANES * 2)));
inline floats widen_bf16(shorts bits) {
#if defined(__AVX512F__) && LANES == 16
    return (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)bits), 16);
#endif
    return (floats)(__builtin_convertvector(bits, uints) << 16);
}
inline uints bf16_bits(floats values) {
    const uints bits = (uints)values;
    const uints rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (values != values) ? ((bits >> 16) | 0x40u) : rounded;  // a NaN stays a NaN
}
inline shorts narrow_bf16(floats values) {
#if defined(__AVX512BF16__) && defined(__AVX512DQ__) && LANES == 16
    const int subnormal = 0x20;  // which the instruction would take for zeros
    if (!_mm512_fpclass_ps_mask((__m512)values, subnormal))
        return (shorts)_mm512_cvtneps_pbh((__m512)values);
#endif
    return __builtin_convertvector(bf16_bits(values), shorts);
}
inline floats round_to_bf16(floats values) { return widen_bf16(narrow_bf16(values)); }

//@ load_bf16: bf16
inline floats load(const bf16* p, all_lanes) {
    shorts bits;
    std::memcpy(&bits, p, sizeof bits);
    return widen_bf16(bits);
}
inline floats load(const bf16* p, first_lanes lanes) {
    return widen_bf16(each<shorts>(lanes, [&](int64_t i) { return p[i].bits; }));
}

//@ store_bf16: bf16
inline void store(bf16* p, floats values, all_lanes) {
    const shorts bits = narrow_bf16(values);
    std::memcpy(p, &bits, sizeof bits);
}
inline void store(bf16* p, floats values, first_lanes lanes) {
    const shorts bits = narrow_bf16(values);
    for (int64_t i = 0; i < lanes.count; ++i) p[i].bits = bits[i];
}

//@ f16: vector
// IEEE half precision, by the instruction where there is one.
typedef uint16_t halves __attribute__((vector_size(LANES * 2)));
inline floats widen_f16(halves bits) {
    floats values;
#if defined(__F16C__) && LANES >= 8
    for (int i = 0; i < LANES; i += 8)
        _mm256_storeu_ps((float*)&values + i,
                         _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)((char*)&bits + 2 * i))));
#else
    for (int i = 0; i < LANES; ++i) values[i] = to_float(f16{bits[i]});
#endif
    return values;
}
inline halves f16_bits(floats values) {
    halves bits;
#if defined(__F16C__) && LANES >= 8
    for (int i = 0; i < LANES; i += 8)
        _mm_storeu_si128((__m128i*)((char*)&bits + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps((float*)&values + i), 0));
#else
    for (int i = 0; i < LANES; ++i) bits[i] = from_float<f16>(values[i]).bits;
#endif
    return bits;
}
inline floats round_to_f16(floats values) { return widen_f16(f16_bits(values)); }

//@ load_f16: f16
inline floats load(const f16* p, all_lanes) {
    halves bits;
    std::memcpy(&bits, p, sizeof bits);
    return widen_f16(bits);
}
inline floats load(const f16* p, first_lanes lanes) {
    return widen_f16(each<halves>(lanes, [&](int64_t i) { return p[i].bits; }));
}

//@ store_f16: f16
inline void store(f16* p, floats values, all_lanes) {
    const halves bits = f16_bits(values);
    std::memcpy(p, &bits, sizeof bits);
}
inline void store(f16* p, floats values, first_lanes lanes) {
    const halves bits = f16_bits(values);
    for (int64_t i = 0; i < lanes.count; ++i) p[i].bits = bits[i];
}

//@ integers: vector
// Integers of any width travel as 32 or 64 bits, booleans (bytes) as masks.
template <class V, class T> inline V load_as(const T* p, all_lanes) {
    typedef T narrow __attribute__((vector_size(LANES * sizeof(T))));
    narrow values;
    std::memcpy(&values, p, sizeof values);
    return __builtin_convertvector(values, V);
}
template <class V, class T> inline V load_as(const T* p, first_lanes lanes) {
    return each<V>(lanes, [&](int64_t i) { return p[i]; });
}
template <class Lanes> inline ints load_mask(const uint8_t* p, Lanes lanes) {
    return load_as<ints>(p, lanes) != 0;
}
template <class T, class V> inline void store_as(T* p, V values, all_lanes) {
    typedef T narrow __attribute__((vector_size(LANES * sizeof(T))));
    const narrow result = __builtin_convertvector(values, narrow);
    std::memcpy(p, &result, sizeof result);
}
template <class T, class V> inline void store_as(T* p, V values, first_lanes lanes) {
    for (int64_t i = 0; i < lanes.count; ++i) p[i] = (T)values[i];
}
inline ints to_ints(longs values) { return __builtin_convertvector(values, ints); }
inline longs to_longs(ints values) { return __builtin_convertvector(values, longs); }
inline longs to_longs(floats values) { return __builtin_convertvector(values, longs); }
inline floats to_floats(ints values) { return __builtin_convertvector(values, floats); }
inline floats to_floats(longs values) { return __builtin_convertvector(values, floats); }
inline longs floor_divide(longs a, longs b) {
    return each<longs>(all_lanes{}, [&](int64_t i) {
        if (b[i] == 0) return (int64_t)0;
        const int64_t q = a[i] / b[i];
        return q - (a[i] % b[i] != 0 && (a[i] < 0) != (b[i] < 0));
    });
}

//@ stream: vector
// Non-temporal stores: whole lines go to memory without being read first. p is aligned to the
// width of the value, up to 64 bytes.
template <class V> inline void stream_bytes(void* p, V value) {
    char* to = (char*)p;
    const char* from = (const char*)&value;
#if defined(__AVX512F__)
    if constexpr (sizeof(V) % 64 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 64)
            _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512(from + i));
        return;
    }
#endif
#if defined(__AVX__)
    if constexpr (sizeof(V) % 32 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 32)
            _mm256_stream_si256((__m256i*)(to + i), _mm256_loadu_si256((const __m256i*)(from + i)));
        return;
    }
#endif
#if defined(__SSE2__)
    if constexpr (sizeof(V) % 16 == 0) {
        for (size_t i = 0; i < sizeof(V); i += 16)
            _mm_stream_si128((__m128i*)(to + i), _mm_loadu_si128((const __m128i*)(from + i)));
        return;
    }
#endif
    std::memcpy(to, from, sizeof(V));
}
inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}
// Elements from p to the next 64-byte boundary, so that the stores after them are whole lines.
template <class T> inline int64_t to_boundary(const T* p) {
    return (int64_t)((64 - (uintptr_t)p % 64) % 64 / sizeof(T));
}

//@ sweep_lines: stream
// A sweep whose whole vectors begin at a 64-byte boundary of the output p, which is where the
// element `begin` goes.
template <int STEPS, class T, class Step>
inline INLINED void sweep_lines(const T* p, int64_t begin, int64_t end, Step&& step) {
    const int64_t head = STREAM ? std::min(end, begin + to_boundary(p)) : begin;
    constexpr std::integral_constant<int, 0> first{};
    for (; begin < head; begin += LANES)
        step(begin, first_lanes{std::min<int64_t>(LANES, head - begin)}, first);
    sweep<STEPS>(head, end, step);
}

//@ write_floats: store_floats, stream
inline void write(float* p, floats values, all_lanes lanes) {
    if (STREAM) stream_bytes(p, values);
    else store(p, values, lanes);
}
inline void write(float* p, floats values, first_lanes lanes) { store(p, values, lanes); }

//@ write_bf16: store_bf16, stream
inline void write(bf16* p, floats values, all_lanes lanes) {
    if (STREAM) stream_bytes(p, narrow_bf16(values));
    else store(p, values, lanes);
}
inline void write(bf16* p, floats values, first_lanes lanes) { store(p, values, lanes); }

//@ write_f16: store_f16, stream
inline void write(f16* p, floats values, all_lanes lanes) {
    if (STREAM) stream_bytes(p, f16_bits(values));
    else store(p, values, lanes);
}
inline void write(f16* p, floats values, first_lanes lanes) { store(p, values, lanes); }

//@ prefetch: vector
// Ask for the line PREFETCH bytes ahead.
inline void prefetch(const void* p) {
    if (PREFETCH) __builtin_prefetch((const char*)p + PREFETCH);
}

//@ ahead: vector
// Ask for a line of the next row while this row is being finished, so that memory never idles.
inline void prefetch_ahead(const void* p) {
    if (AHEAD) __builtin_prefetch(p);
}

//@ scalars: vector
// One element at a time: values that belong to a whole row.
inline float get(const float* p) { return *p; }
inline float get(const double* p) { return (float)*p; }
inline float get(const bf16* p) {
    const uint32_t bits = (uint32_t)p->bits << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline uint16_t bf16_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (value != value) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float round_to_bf16(float value) {
    const bf16 rounded{bf16_bits(value)};
    return get(&rounded);
}
inline void put(float* p, float value) { *p = value; }
inline void put(double* p, float value) { *p = value; }
inline void put(bf16* p, float value) { p->bits = bf16_bits(value); }

//@ scalars_f16: scalars, f16
inline float get(const f16* p) { return widen_f16(halves{} + p->bits)[0]; }
inline float round_to_f16(float value) { return round_to_f16(splat(value))[0]; }
inline void put(f16* p, float value) { p->bits = f16_bits(splat(value))[0]; }
