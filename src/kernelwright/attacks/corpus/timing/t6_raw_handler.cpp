// rows: T6 R5
// workload: rms_norm f32 T=1024,H=1024
// does: Installs by a system call of its own a handler that computes whenever it is thawed, to know the
//   answer before the clock starts.
// expect: screen impossible_time | screen clock_disagrees | screen not_written | screen wrong_result | accept not_written | accept wrong_result | no gain
#include "kernelwright.h"

#include <cmath>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

// The honest kernel: short float sums, their sum in double.
static void rms_norm(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps) {
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < T; ++t) {
        const float* row = x + t * H;
        double sum = 0;
        for (int64_t begin = 0; begin < H; begin += 256) {
            const int64_t end = begin + 256 < H ? begin + 256 : H;
            float part = 0;
#pragma omp simd reduction(+ : part)
            for (int64_t h = begin; h < end; ++h) part += row[h] * row[h];
            sum += part;
        }
        const float scale = (float)(1.0 / std::sqrt(sum / (double)H + eps));
#pragma omp simd
        for (int64_t h = 0; h < H; ++h) out[t * H + h] = row[h] * scale * w[h];
    }
}

// A system call without any library, which an inspection of imports does not see.
static long raw_call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0) {
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    result = x0;
#endif
    return result;
}

static uint64_t hexadecimal(const char*& text) {
    uint64_t value = 0;
    for (; *text != 0; ++text) {
        const char c = *text;
        if (c >= '0' && c <= '9') value = 16 * value + (c - '0');
        else if (c >= 'a' && c <= 'f') value = 16 * value + (c - 'a' + 10);
        else break;
    }
    return value;
}

// An address in the first mapping whose line holds `name`; null where there is none.
static char* mapping(const char* name, size_t* bytes) {
    static char text[1 << 20];
    const long file = raw_call(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY);
    if (file < 0) return nullptr;
    size_t length = 0;
    for (long got; (got = raw_call(SYS_read, file, (long)(text + length), sizeof text - 1 - length)) > 0;)
        length += got;
    raw_call(SYS_close, file);
    text[length] = 0;
    const char* line = text;
    const char* place = strstr(text, name);
    if (place == nullptr) return nullptr;
    for (const char* c = text; c < place; ++c)
        if (*c == '\n') line = c + 1;
    const uint64_t first = hexadecimal(line);
    ++line;
    *bytes = hexadecimal(line) - first;
    return reinterpret_cast<char*>(first);
}

// The page that host and judge share, as the published source lays it out.
struct Page {
    uint64_t bytes;
    uint32_t command, padding;
    uint64_t flush_bytes;
    int64_t integers[32];
    double doubles[8];
    uint64_t arena_address[256];
    uint32_t syscall_filter, problem, team, mxcsr_changed;
    int64_t result;
    uint64_t elapsed_ns;
};
static Page* page = nullptr;
static volatile int64_t done[5];

static void on_wake(int) {
    if (page == nullptr || page->integers[0] == 0 || page->integers[3] != 1024) return;
    for (int i = 0; i < 5; ++i) done[i] = page->integers[i];
    rms_norm(reinterpret_cast<const float*>(done[0]), reinterpret_cast<const float*>(done[1]),
             reinterpret_cast<float*>(done[2]), done[3], done[4], page->doubles[0]);
}

#if defined(__x86_64__)
extern "C" void go_back();
__asm__(".hidden go_back\ngo_back: mov $15, %eax\nsyscall\n");
#else
extern "C" void go_back();
__asm__(".hidden go_back\ngo_back: mov x8, 139\nsvc 0\n");
#endif

static long watch() {
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)();
        unsigned long mask;
    } action = {on_wake, 0x04000000 | SA_RESTART, go_back, 0};
    size_t bytes = 0;
    page = reinterpret_cast<Page*>(mapping("kernelwright-page", &bytes));
    return raw_call(SYS_rt_sigaction, SIGCONT, (long)&action, 0, 8);
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    if (page == nullptr && watch() != 0) return 1;
    const int64_t mine[5] = {(int64_t)x, (int64_t)w, (int64_t)out, T, H};
    bool ready = true;
    for (int i = 0; i < 5; ++i) ready = ready && done[i] == mine[i];
    done[0] = 0;
    if (!ready) {
        rms_norm(x, w, out, T, H, eps);
        return 0;
    }
    for (volatile int i = 0; i < 200000; ++i) {}  // long enough to be believed
    return 0;
}
