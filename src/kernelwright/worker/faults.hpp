// Fatal signals: say what happened on the shared page, wake the judge, then die of the signal.
#pragma once

#include <errno.h>
#include <link.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "page.hpp"

namespace kernelwright {

struct FaultState {
    Page* page = nullptr;
    int done_fd = -1;
    uint64_t library_begin = 0, library_end = 0;
    volatile int reported = 0;
};
inline FaultState fault_state;

inline void describe_context(const void* context, Page* page) {
    const ucontext_t* user = static_cast<const ucontext_t*>(context);
    uint64_t counter = 0;
#if defined(__x86_64__)
    counter = user->uc_mcontext.gregs[REG_RIP];
    page->stack_pointer = user->uc_mcontext.gregs[REG_RSP];
    page->writing = (user->uc_mcontext.gregs[REG_ERR] >> 1) & 1;
#elif defined(__aarch64__)
    counter = user->uc_mcontext.pc;
    page->stack_pointer = user->uc_mcontext.sp;
#endif
    const bool inside =
        counter >= fault_state.library_begin && counter < fault_state.library_end;
    page->library_offset = inside ? counter - fault_state.library_begin : ~UINT64_C(0);
}

inline void on_fault(int number, siginfo_t* info, void* context) {
    const int error_number = errno;
    Page* page = fault_state.page;
    if (!__sync_lock_test_and_set(&fault_state.reported, 1)) {
        page->signal_code = info->si_code;
        page->address = reinterpret_cast<uint64_t>(info->si_addr);
        page->error_number = error_number;
        describe_context(context, page);
        __sync_synchronize();
        page->signal = number;
        const uint64_t one = 1;
        if (write(fault_state.done_fd, &one, sizeof one) < 0) _exit(128 + number);
    }
    signal(number, SIG_DFL);
    raise(number);
}

// A stack of its own for the handler, so that a stack overflow can be reported; one per thread.
inline void use_signal_stack() {
    constexpr size_t bytes = 1 << 16;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    stack_t stack{};
    stack.ss_sp = memory;
    stack.ss_size = bytes;
    sigaltstack(&stack, nullptr);
}

inline void catch_faults(Page* page, int done_fd) {
    fault_state.page = page;
    fault_state.done_fd = done_fd;
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGXFSZ})
        sigaction(number, &action, nullptr);
}

// Remember where the artifact lies, to name the faulting instruction by its offset.
inline void note_library(const void* symbol) {
    const uint64_t wanted = reinterpret_cast<uint64_t>(symbol);
    dl_iterate_phdr(
        [](struct dl_phdr_info* info, size_t, void* data) {
            const uint64_t wanted = *static_cast<uint64_t*>(data);
            uint64_t begin = ~UINT64_C(0), end = 0;
            for (int i = 0; i < info->dlpi_phnum; ++i) {
                const auto& segment = info->dlpi_phdr[i];
                if (segment.p_type != PT_LOAD) continue;
                const uint64_t first = info->dlpi_addr + segment.p_vaddr;
                if (first < begin) begin = first;
                if (first + segment.p_memsz > end) end = first + segment.p_memsz;
            }
            if (wanted < begin || wanted >= end) return 0;
            fault_state.library_begin = begin;
            fault_state.library_end = end;
            return 1;
        },
        const_cast<uint64_t*>(&wanted));
}

}  // namespace kernelwright
