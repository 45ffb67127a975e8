// The page that the judge and the worker share. The judge's copy of this layout is in
// execution/page.py; `bytes` lets it notice when the two differ.
#pragma once

#include <stdint.h>

namespace kernelwright {

constexpr int kMaxIntegers = 32, kMaxDoubles = 8, kMaxArenas = 256, kMaxPoison = 64, kTextBytes = 1024;

enum Command : uint32_t {
    kLoad = 1, kFlush, kCall, kNullCall, kWorkspace, kQuit,
    kExports,   // which of `Export` the candidate has
    kPrepared,  // bytes that it wants prepared
    kPrepare,
    kWake,      // the team, or a device for this process: right before the clock starts
    kRehearse,  // only hosts that compile at the first call of a shape: do so, without data
};

enum Export : int64_t { kHasPrepare = 1, kHasPrepared = 2 };

enum Problem : uint32_t {
    kNoProblem = 0,
    kHostFailed,      // ours: an arena could not be mapped, and the like
    kLoadFailed,      // dlopen or import refused
    kMissingSymbol,   // the entry is not there
    kNotParallel,     // its OpenMP runtime does not run the team
    kTwoRuntimes,     // two OpenMP runtimes in one process
    kFlushFailed,     // no memory left for the flush
    kRaised,          // the kernel raised an exception
    kExhausted,       // … for want of memory
    kDeviceFault,     // a kernel on the device did what ends its context
    kLaunchFailed,    // a call of the device's runtime failed
    kDeviceMemory,    // … for want of device memory
};

struct Page {
    uint64_t bytes;  // sizeof(Page)
    // Judge to worker.
    uint32_t command;
    uint32_t padding;
    uint64_t flush_bytes;
    int64_t integers[kMaxIntegers];
    double doubles[kMaxDoubles];
    // Worker to judge: before the candidate is loaded.
    uint64_t arena_address[kMaxArenas];
    uint32_t syscall_filter;  // 1 when the seccomp filter is in place
    // Worker to judge: afterwards, so only as trustworthy as the candidate.
    uint32_t problem;
    uint32_t team;
    uint32_t mxcsr_changed;
    int64_t result;
    uint64_t elapsed_ns;
    int64_t minor_faults;
    int64_t major_faults;
    // Written by the signal handler.
    uint32_t signal;
    int32_t signal_code;
    uint64_t address;
    uint64_t stack_pointer;
    uint64_t library_offset;  // of the faulting instruction; all ones when outside the artifact
    uint32_t writing;
    int32_t error_number;  // errno of the faulting thread
    char text[kTextBytes];
    // Of hosts with a device. Its stream for kernels; and what it has to fill in the order of the
    // stream before the flush, and then after it.
    uint64_t stream;
    uint64_t poison_before, poison_after;
    uint64_t poison_address[kMaxPoison];
    uint64_t poison_bytes[kMaxPoison];
    uint64_t poison_byte[kMaxPoison];
};

}  // namespace kernelwright
