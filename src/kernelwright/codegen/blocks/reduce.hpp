//@ extremes: vector
// The greater and the lesser of two; NaN if either is, as in the reference.
inline floats maximum(floats a, floats b) { return ((a > b) | (a != a)) ? a : b; }
inline floats minimum(floats a, floats b) { return ((a < b) | (a != a)) ? a : b; }
inline ints maximum(ints a, ints b) { return a > b ? a : b; }
inline ints minimum(ints a, ints b) { return a < b ? a : b; }
inline longs maximum(longs a, longs b) { return a > b ? a : b; }
inline longs minimum(longs a, longs b) { return a < b ? a : b; }
template <class T> inline T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> inline T minimum(T a, T b) { return a < b || a != a ? a : b; }

//@ across: vector
// Combine the lanes of one vector, as a balanced tree.
template <class V, class F> inline auto across(V value, F&& combine) {
    auto element = value[0];
    decltype(element) tree[LANES];
    std::memcpy(tree, &value, sizeof tree);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; ++i) tree[i] = combine(tree[i], tree[i + width]);
    return tree[0];
}
// Combine several accumulators, then their lanes.
template <int COUNT, class V, class F> inline auto across(const V (&values)[COUNT], F&& combine) {
    V total = values[0];
    for (int u = 1; u < COUNT; ++u) total = combine(total, values[u]);
    return across(total, combine);
}
// The operations, for lanes, accumulators and threads alike.
struct plus_of {
    template <class T> T operator()(T a, T b) const { return a + b; }
};
struct times_of {
    template <class T> T operator()(T a, T b) const { return a * b; }
};
struct either_of {
    template <class T> T operator()(T a, T b) const { return a | b; }
};
struct both_of {
    template <class T> T operator()(T a, T b) const { return a & b; }
};

//@ across_extremes: across, extremes
struct greater_of {
    template <class T> T operator()(T a, T b) const { return maximum(a, b); }
};
struct lesser_of {
    template <class T> T operator()(T a, T b) const { return minimum(a, b); }
};

//@ blocked_sum: across
// A sum in two levels: short partial sums (settled every SETTLE elements) keep rounding small.
constexpr int64_t SETTLE = 16384;
template <int COUNT> struct blocked_sum {
    floats part[COUNT] = {};
    floats whole = {};
    inline void add(int u, floats value) { part[u] += value; }
    inline void settle() {
        for (int u = 0; u < COUNT; ++u) {
            whole += part[u];
            part[u] = floats{};
        }
    }
    inline float total() {
        settle();
        return across(whole, plus_of{});
    }
};
// A sweep that calls settle() every SETTLE elements.
template <int STEPS, class Step, class Settle>
inline INLINED void sweep(int64_t begin, int64_t end, Step&& step, Settle&& settle) {
    for (; begin < end; begin += SETTLE) {
        sweep<STEPS>(begin, std::min(end, begin + SETTLE), step);
        settle();
    }
}

//@ best: vector
// The best value so far and its index, lane by lane; NaN is better than any number, and the
// least index wins a tie. SIGN is 1 for the greatest and -1 for the least.
struct winner {
    float value;
    int64_t index;
};
template <int SIGN> inline bool better(float a, float b) {
    return (SIGN > 0 ? a > b : a < b) || (a != a && b == b);
}
template <int SIGN> struct best_of {
    winner operator()(winner a, winner b) const {
        const bool tie = a.value == b.value || (a.value != a.value && b.value != b.value);
        if (tie) return a.index < b.index ? a : b;
        return better<SIGN>(a.value, b.value) ? a : b;
    }
};
template <int SIGN> struct best {
    floats value = splat(SIGN > 0 ? -INFINITY : INFINITY);
    ints index = splat((int32_t)0x7fffffff);
    template <class Lanes> inline void offer(floats candidate, int64_t first, Lanes lanes) {
        const ints ahead = SIGN > 0 ? candidate > value : candidate < value;
        const ints nan = (candidate != candidate) & (value == value);
        const ints unset = index == 0x7fffffff;
        const ints take = keep(ahead | nan | unset, ints{}, lanes);
        value = take ? candidate : value;
        index = take ? lane_numbers() + (int32_t)first : index;
    }
    inline winner lane(int i) const { return {value[i], index[i]}; }
    template <int COUNT> static winner across(const best (&all)[COUNT]) {
        winner result = all[0].lane(0);
        for (int u = 0; u < COUNT; ++u)
            for (int i = 0; i < LANES; ++i) result = best_of<SIGN>{}(result, all[u].lane(i));
        return result;
    }
};
