// Moving lanes, with compile-time distances.
namespace shuffle {

typedef simd::floats floats;
typedef std::make_integer_sequence<int, LANES> every_lane;

// Lane i takes lane `which` of a and b laid side by side.
#if defined(__clang__) || __GNUC__ >= 12
#define KW_SHUFFLE(a, b, which) __builtin_shufflevector(a, b, (which)...)
#else
#define KW_SHUFFLE(a, b, which) __builtin_shuffle(a, b, simd::ints{(which)...})
#endif

// Lanes move up by S, zeros come in.
template <int S, int... I> inline floats up(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, floats{}, I < S ? LANES + I : I - S);
}
// Lanes rotate down by S.
template <int S, int... I> inline floats around(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, v, (I + S) % LANES);
}
// The last lane everywhere.
template <int... I> inline floats last(floats v, std::integer_sequence<int, I...>) {
    return KW_SHUFFLE(v, v, I * 0 + LANES - 1);
}

// Inclusive sums across the lanes in log2(LANES) steps (Hillis and Steele, 1986).
template <int S = 1> inline floats running_sum(floats v) {
    if constexpr (S < LANES) return running_sum<2 * S>(v + up<S>(v, every_lane{}));
    else return v;
}

// All lanes combined, in every lane.
template <int S = LANES / 2> inline floats sum(floats v) {
    if constexpr (S > 0) return sum<S / 2>(v + around<S>(v, every_lane{}));
    else return v;
}
template <int S = LANES / 2> inline floats least(floats v) {
    if constexpr (S > 0) {
        const floats other = around<S>(v, every_lane{});
        return least<S / 2>(v < other ? v : other);
    } else return v;
}

// One step of a transposition: rows S apart exchange their off-diagonal blocks of S lanes.
template <int S, int... I>
inline void exchange(floats& a, floats& b, std::integer_sequence<int, I...>) {
    const floats upper = KW_SHUFFLE(a, b, (I & S) ? LANES + I - S : I);
    b = KW_SHUFFLE(a, b, (I & S) ? LANES + I : I + S);
    a = upper;
}
// A square of LANES x LANES, transposed in log2(LANES) steps.
template <int S = LANES / 2> inline INLINED void transpose(floats (&rows)[LANES]) {
    if constexpr (S > 0) {
        simd::unrolled<LANES>([&](auto i) INLINED {
            constexpr int row = decltype(i)::value;
            if constexpr ((row & S) == 0) exchange<S>(rows[row], rows[row + S], every_lane{});
        });
        transpose<S / 2>(rows);
    }
}

}  // namespace shuffle
