// Limits and a system-call filter, put on just before the candidate is loaded.
//
// A kernel computes in memory that it was lent: it needs threads, clocks and memory, but no other
// process, no socket, no writable file and no signal to anybody else. What the filter refuses
// fails with EPERM, so that honest code that tries something optional goes on.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

namespace kernelwright {

inline void limit(int resource, uint64_t value) {
    struct rlimit bounds;
    bounds.rlim_cur = bounds.rlim_max = value;
    setrlimit(static_cast<__rlimit_resource>(resource), &bounds);
}

inline uint64_t mapped_bytes() {
    unsigned long pages = 0;
    FILE* file = fopen("/proc/self/statm", "r");
    if (file == nullptr) return 0;
    if (fscanf(file, "%lu", &pages) != 1) pages = 0;
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

inline void limit_resources(uint64_t memory_bytes, uint64_t output_bytes) {
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, output_bytes);
    limit(RLIMIT_AS, mapped_bytes() + memory_bytes);
}

class Filter {
  public:
    Filter() {
#if defined(__x86_64__)
        constexpr uint32_t architecture = AUDIT_ARCH_X86_64;
#else
        constexpr uint32_t architecture = AUDIT_ARCH_AARCH64;
#endif
        load(offsetof(struct seccomp_data, arch));
        add(BPF_JMP | BPF_JEQ | BPF_K, architecture, 1, 0);
        add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
        load(offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
        add(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1);  // the x32 ABI
        add(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
#endif
    }
    void refuse(uint32_t number, uint32_t error = EPERM) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error);
    }
    // Refuse when any of `bits` is set in an argument (its low half) …
    void refuse_bits(uint32_t number, int argument, uint32_t bits) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
        load(offsetof(struct seccomp_data, args) + 8 * argument);
        add(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
        load(offsetof(struct seccomp_data, nr));
    }
    // … when none of them is set …
    void require_bits(uint32_t number, int argument, uint32_t bits) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
        load(offsetof(struct seccomp_data, args) + 8 * argument);
        add(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0);
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
        load(offsetof(struct seccomp_data, nr));
    }
    // … when it is not exactly `value` …
    void require_value(uint32_t number, int argument, uint32_t value) {
        add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4);
        load(offsetof(struct seccomp_data, args) + 8 * argument);
        add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
        load(offsetof(struct seccomp_data, nr));
    }
    // Put the filter on every thread of the process; false where the kernel has none.
    bool install() {
        add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog program;
        program.len = static_cast<unsigned short>(code_.size());
        program.filter = code_.data();
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
        const long flags = SECCOMP_FILTER_FLAG_TSYNC;
        return syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) == 0;
    }

  private:
    void add(uint16_t code, uint32_t value, uint8_t if_true = 0, uint8_t if_false = 0) {
        code_.push_back(sock_filter{code, if_true, if_false, value});
    }
    void load(size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)); }
    std::vector<sock_filter> code_;
};

inline const std::vector<uint32_t>& refused_calls() {
    static const std::vector<uint32_t> numbers = {
        // other programs, other processes, their memory
        __NR_execve, __NR_execveat, __NR_ptrace, __NR_process_vm_readv, __NR_process_vm_writev,
        __NR_kill, __NR_tkill, __NR_rt_sigqueueinfo, __NR_rt_tgsigqueueinfo, __NR_setsid,
        __NR_setpgid, __NR_unshare, __NR_setns, __NR_bpf, __NR_perf_event_open,
        __NR_userfaultfd, __NR_add_key, __NR_keyctl, __NR_request_key, __NR_kcmp,
        434 /* pidfd_open */, 424 /* pidfd_send_signal */, 438 /* pidfd_getfd */,
        425 /* io_uring_setup */, 426, 427, 440 /* process_madvise */, 448 /* process_mrelease */,
        __NR_personality, __NR_capset, __NR_setuid, __NR_setgid, __NR_setreuid, __NR_setregid,
        __NR_setresuid, __NR_setresgid, __NR_setgroups, __NR_setfsuid, __NR_setfsgid,
        // the kernel itself
        __NR_init_module, __NR_finit_module, __NR_delete_module, __NR_kexec_load, __NR_reboot,
        __NR_syslog, __NR_swapon, __NR_swapoff, __NR_acct, __NR_quotactl, __NR_sethostname,
        __NR_setdomainname, __NR_vhangup,
        // networks and shared objects that outlive the process
        __NR_socket, __NR_socketpair, __NR_connect, __NR_bind, __NR_listen, __NR_accept4,
        __NR_sendto, __NR_sendmsg, __NR_sendmmsg, __NR_shmget, __NR_shmat, __NR_shmctl,
        __NR_msgget, __NR_semget, __NR_mq_open, __NR_mq_unlink, __NR_memfd_create,
        447 /* memfd_secret */,
        // the file system
        __NR_unlinkat, __NR_renameat2, __NR_linkat, __NR_symlinkat, __NR_mkdirat, __NR_mknodat,
        __NR_fchmodat, __NR_fchownat, __NR_truncate, __NR_mount, __NR_umount2, __NR_chroot,
        __NR_pivot_root, __NR_setxattr, __NR_lsetxattr, __NR_fsetxattr, __NR_removexattr,
        __NR_lremovexattr, __NR_fremovexattr, __NR_fchmod, __NR_fchown, __NR_utimensat,
        __NR_open_by_handle_at, __NR_name_to_handle_at, __NR_inotify_init1, __NR_fanotify_init,
        428 /* open_tree */, 429 /* move_mount */, 430 /* fsopen */, 431, 432 /* fsmount */,
        433 /* fspick */, 442 /* mount_setattr */, 452 /* fchmodat2 */,
#if defined(__x86_64__)
        __NR_unlink, __NR_rename, __NR_renameat, __NR_link, __NR_symlink, __NR_mkdir, __NR_rmdir,
        __NR_mknod, __NR_chmod, __NR_chown, __NR_lchown, __NR_creat, __NR_accept,
        __NR_fork, __NR_vfork, __NR_inotify_init, __NR_iopl, __NR_ioperm, __NR_modify_ldt,
        __NR_utime, __NR_utimes, __NR_futimesat,
#endif
        // the machine's clock, this process's priority and limits
        __NR_settimeofday, __NR_clock_settime, __NR_adjtimex, __NR_clock_adjtime,
        __NR_setpriority, __NR_sched_setscheduler, __NR_sched_setparam, __NR_sched_setattr,
        __NR_setrlimit, __NR_ioprio_set,
    };
    return numbers;
}

// With `devices`, files that exist may be opened for writing: a GPU's driver opens its device files
// whenever it maps memory. Which files there are is the sandbox's business.
inline bool filter_system_calls(bool devices) {
    Filter filter;
    for (uint32_t number : refused_calls()) filter.refuse(number);
    filter.refuse(435 /* clone3 */, ENOSYS);  // its flags cannot be read here; libc uses clone
    filter.refuse(437 /* openat2 */, ENOSYS);
    filter.require_bits(__NR_clone, 0, CLONE_THREAD);
    filter.require_value(__NR_tgkill, 0, static_cast<uint32_t>(getpid()));
    filter.require_value(__NR_prlimit64, 2, 0);  // reading one's own limits is fine
    const uint32_t writing = devices ? O_CREAT | O_TRUNC : O_WRONLY | O_RDWR | O_CREAT | O_TRUNC;
    filter.refuse_bits(__NR_openat, 2, writing);
#if defined(__x86_64__)
    filter.refuse_bits(__NR_open, 1, writing);
#endif
    return filter.install();
}

}  // namespace kernelwright
