//@ parallel
// A thread's own part of 0 <= i < count, in units of `grain`.
struct Range {
    int64_t begin, end;
};
inline Range share(int64_t count, int64_t grain) {
    const int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const int64_t blocks = (count + grain - 1) / grain;
    return {std::min(count, blocks * me / team * grain),
            std::min(count, blocks * (me + 1) / team * grain)};
}

//@ team: parallel
// Partial results of the threads that share one row. Two sets of slots take turns, so that one
// barrier for each exchange is enough.
constexpr int MAX_TEAM = 256;
struct Team {
    struct alignas(64) Slot {
        char bytes[64];
    };
    Slot slots[2][MAX_TEAM];
};
template <class T, class F> inline T across_team(Team& team, int& turn, T mine, F&& combine) {
    Team::Slot* slots = team.slots[turn ^= 1];
    std::memcpy(slots[omp_get_thread_num()].bytes, &mine, sizeof(T));
#pragma omp barrier
    T total, part;
    std::memcpy(&total, slots[0].bytes, sizeof(T));
    for (int i = 1; i < omp_get_num_threads(); ++i) {
        std::memcpy(&part, slots[i].bytes, sizeof(T));
        total = combine(total, part);
    }
    return total;
}
