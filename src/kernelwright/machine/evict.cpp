// Evicts memory from every cache of the machine, line by line. CLFLUSH works on physical lines in
// the whole coherence domain, so the judge can evict what a worker has mapped, before the worker
// is called and whatever the size of the last cache level.

#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {
constexpr uintptr_t kLine = 64;

#if defined(__x86_64__)
bool has_clflushopt() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 23)) != 0;
}
#endif
}  // namespace

// 0 where this processor cannot do it.
extern "C" int evict(const void* start, size_t bytes) {
#if defined(__x86_64__)
    static const bool weakly_ordered = has_clflushopt();
    const uintptr_t first = reinterpret_cast<uintptr_t>(start) & ~(kLine - 1);
    const uintptr_t end = reinterpret_cast<uintptr_t>(start) + bytes;
    __asm__ volatile("mfence" ::: "memory");
    if (weakly_ordered)
        for (uintptr_t line = first; line < end; line += kLine)
            __asm__ volatile("clflushopt (%0)" : : "r"(line) : "memory");
    else
        for (uintptr_t line = first; line < end; line += kLine)
            __asm__ volatile("clflush (%0)" : : "r"(line) : "memory");
    __asm__ volatile("mfence" ::: "memory");
    return 1;
#else
    (void)start, (void)bytes;
    return 0;
#endif
}
