// The judge's clock around one call, in native code: an interpreter that wakes with cold caches
// would add up to 100 us to every call, by chance. Loaded by the judge, not by the worker.

#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

namespace {
int64_t now_ns() {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return INT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

// How long this thread has been ready to run while others ran, by the second number of its
// schedstat; 0 where that cannot be read.
int64_t waited_ns(int schedstat) {
    char text[96];
    const ssize_t length = schedstat < 0 ? 0 : pread(schedstat, text, sizeof text - 1, 0);
    if (length <= 0) return 0;
    text[length] = 0;
    char* rest = nullptr;
    strtoll(text, &rest, 10);
    return strtoll(rest, nullptr, 10);
}

// How often others took the processor from this thread while it could have gone on.
long interruptions() {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

// The order that the other side obeys first, so that its team is awake when the clock starts: waking
// a thread that sleeps on another processor takes 0.1 ms in a virtual machine.
struct Wake {
    volatile uint32_t* command;  // on the shared page
    uint32_t wake, then;
    int32_t timeout_ms, clock;
    int64_t threads;
    const int* thread;
    uint64_t* arguments;       // on the shared page
    const uint64_t* secret;    // what stands there from right before the clock starts
    uint64_t bytes;
    int64_t used_ns;           // out: its processor time from the order to the clock's start
};

// Processor time of the other side so far; 0 when it is gone. The account of a thread lags behind
// while it runs on another processor; when its policy changes it is brought up to date.
int64_t used_ns(const Wake& order) {
    const struct sched_param none = {};
    for (int i = 0; i < order.threads; ++i) {
        sched_setscheduler(order.thread[i], SCHED_BATCH, &none);
        sched_setscheduler(order.thread[i], SCHED_OTHER, &none);
    }
    struct timespec time = {};
    clock_gettime(order.clock, &time);
    return INT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

int woken(int go, int done, int pidfd, Wake& order) {
    struct pollfd sources[2] = {{done, POLLIN, 0}, {pidfd, POLLIN, 0}};
    uint64_t raise = 1;
    *order.command = order.wake;
    if (write(go, &raise, sizeof raise) != sizeof raise) return -1;
    const int ready = poll(sources, 2, order.timeout_ms);
    if (ready <= 0) return ready;
    if (sources[0].revents == 0) return 2;
    return read(done, &raise, sizeof raise) == sizeof raise ? 1 : -1;
}
}  // namespace

// Have the other side wake its team, raise `go`, sleep until `done` or the end of the process.
// Meanwhile this thread is bound to `cpu`, on which the other side's first thread wakes: waking
// it there takes 4 us, waking another processor between 20 and 90.
// `schedstat` is this thread's file of that name, or -1. Raising `go` often hands the processor to
// the other side at once: this thread then waits without having slept, for as long as the call
// lasts and no longer, unless there are others. Waiting after it was woken is another matter.
// `found` gets the clock at the start and at the end, the first wait and the second; where the two
// cannot be told apart, all of it as the first.
// Returns 1 when it answered, 2 when it ended, 0 after `timeout_ms` (-2: of waking), -1 when `go`
// cannot be raised.
extern "C" int kernelwright_bracket(int go, int done, int pidfd, int timeout_ms, int cpu,
                                    int schedstat, Wake* order, int64_t* found) {
    cpu_set_t before, one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    const bool bound = sched_getaffinity(0, sizeof before, &before) == 0 &&
                       sched_setaffinity(0, sizeof one, &one) == 0;
    struct pollfd sources[2] = {{done, POLLIN, 0}, {pidfd, POLLIN, 0}};
    const uint64_t raise = 1;
    const int64_t used = used_ns(*order);
    int ready = woken(go, done, pidfd, *order);
    if (ready == 1) {
        ready = -1;
        memcpy(order->arguments, order->secret, order->bytes);
        *order->command = order->then;
        const int64_t before_go = waited_ns(schedstat);
        int64_t before_sleep = before_go;
        long interrupted = 0;
        order->used_ns = used_ns(*order) - used;
        found[0] = now_ns();
        if (write(go, &raise, sizeof raise) == sizeof raise) {
            interrupted = interruptions();
            before_sleep = waited_ns(schedstat);
            ready = poll(sources, 2, timeout_ms);
        }
        found[1] = now_ns();
        const int64_t at_end = waited_ns(schedstat);
        if (interruptions() != interrupted) before_sleep = at_end;
        found[2] = before_sleep - before_go;
        found[3] = at_end - before_sleep;
    } else if (ready == 0) {
        ready = -2;
    }
    if (bound) sched_setaffinity(0, sizeof before, &before);
    if (ready <= 0) return ready;
    return sources[0].revents != 0 ? 1 : 2;
}
