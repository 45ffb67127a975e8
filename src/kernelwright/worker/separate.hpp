// A process forked from a server gets namespaces of its own, as if it had been started alone: it
// sees neither the server nor its siblings, and what it mounts or names, nobody else sees.
#pragma once

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>
#include <vector>

namespace kernelwright {

// The server holds one capability in its sandbox, to make these; nothing forked from it keeps any.
constexpr unsigned long kOwnNamespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC |
                                         CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;

inline bool drop_capabilities() {
    struct __user_cap_header_struct header {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2]{};
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_capset, &header, none) == 0;
}

constexpr unsigned long kHarmless = MS_NOSUID | MS_NODEV;

// Have no process change through /proc what the whole system is steered with; true when that is so.
inline bool lock_proc() {
#ifdef __CUDACC__  // a GPU's driver cannot be initialised where it may write nothing about itself
    for (const char* path : {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"}) {
        constexpr unsigned long locked = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC | kHarmless;
        if (access(path, F_OK) != 0) continue;
        if (mount(path, path, nullptr, MS_BIND, nullptr) != 0) return false;
        if (mount(nullptr, path, nullptr, locked, nullptr) != 0) return false;
    }
#endif
    return true;
}

// Over the server's /proc and /dev/shm lie those of the new namespaces. /proc is read-only, since a
// superuser's worker owns the files with which the whole system is steered; where a GPU's driver
// needs the files about its own process, those files alone are. 0, or an error number.
inline int look_alone() {
#ifdef __CUDACC__
    constexpr unsigned long proc = kHarmless | MS_NOEXEC;
#else
    constexpr unsigned long proc = kHarmless | MS_NOEXEC | MS_RDONLY;
#endif
    const bool alone =
        prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setsid() > 0 &&
        mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
        mount("proc", "/proc", "proc", proc, nullptr) == 0 && lock_proc() &&
        mount("tmpfs", "/dev/shm", "tmpfs", kHarmless, "mode=0755,size=65536") == 0 &&
        drop_capabilities();
    return alone ? 0 : errno;
}

// Fork the first process of new namespaces: 0 in it, its number in the server, or the negative
// error. Whoever has one thread may call this; the C library learns at the next fork who it is.
inline long separate() {
    const long process = syscall(SYS_clone, kOwnNamespaces | SIGCHLD, 0, 0, 0, 0);
    if (process != 0) return process < 0 ? -errno : process;
    const int error = look_alone();
    if (error != 0) _exit(error);
    return 0;
}

// Have copies of all memory that can be written. It is shared with the server until it is written, as
// each reference counted in it does, and would be copied page by page inside of timed calls then.
inline void own_memory() {
    FILE* file = fopen("/proc/self/maps", "r");
    if (file == nullptr) return;
    std::vector<std::pair<uint64_t, uint64_t>> areas;
    char line[4608];
    while (fgets(line, sizeof line, file) != nullptr) {
        uint64_t begin = 0, end = 0;
        char rights[5] = "";
        const int found = sscanf(line, "%lx-%lx %4s", &begin, &end, rights);
        if (found == 3 && strcmp(rights, "rw-p") == 0) areas.emplace_back(begin, end);
    }
    fclose(file);
    constexpr uint64_t page = 4096;
    for (const auto& [begin, end] : areas) {
        std::vector<unsigned char> there((end - begin) / page);
        if (mincore(reinterpret_cast<void*>(begin), end - begin, there.data()) != 0) continue;
        for (size_t i = 0, first = 0; i <= there.size(); ++i) {
            if (i < there.size() && (there[i] & 1) != 0) continue;
            char* start = reinterpret_cast<char*>(begin + first * page);
            if (i > first) madvise(start, (i - first) * page, 23 /* MADV_POPULATE_WRITE */);
            first = i + 1;
        }
    }
}

// The first process of the namespaces: wait for the worker, tell the judge how it ended (its exit
// status, or the negative signal), and end all that is left by ending itself.
[[noreturn]] inline void watch(int connection, pid_t worker) {
    prctl(PR_SET_DUMPABLE, 0);  // the worker cannot look into it either
    for (;;) {
        int status = 0;
        const pid_t ended = waitpid(-1, &status, 0);
        if (ended < 0 && errno != EINTR) _exit(1);
        if (ended != worker) continue;
        const int32_t code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
        send(connection, &code, sizeof code, MSG_NOSIGNAL);
        _exit(0);
    }
}

}  // namespace kernelwright
