// rows: T5 T2
// workload: rms_norm f32 T=1024,H=1024
// does: Makes the null calls that calibrate the handshake look 3 ms slow, and later claims half of
//   the true time.
// expect: build unsafe_library | screen clock_disagrees | accept clock_disagrees | load clock_disagrees | load load_failed | no gain
#include "kernelwright.h"

#include <cmath>
#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

// An address in the first mapping whose line holds `name`; null where there is none.
static void* mapping(const char* name, size_t* bytes = nullptr) {
    FILE* maps = fopen("/proc/self/maps", "r");
    char line[512];
    void* found = nullptr;
    while (maps != nullptr && found == nullptr && fgets(line, sizeof line, maps) != nullptr) {
        unsigned long first = 0, last = 0;
        if (strstr(line, name) == nullptr || sscanf(line, "%lx-%lx", &first, &last) != 2) continue;
        found = reinterpret_cast<void*>(first);
        if (bytes != nullptr) *bytes = last - first;
    }
    if (maps != nullptr) fclose(maps);
    return found;
}

// Replace an import of the host program in its global offset table; the old target, or null.
struct Import {
    const char* name;
    void* with;
    void* before;
};

static int replace_in(struct dl_phdr_info* info, size_t, void* data) {
    Import* import = static_cast<Import*>(data);
    if (info->dlpi_name[0] != 0) return 0;  // the program itself has no name
    const ElfW(Dyn)* entry = nullptr;
    for (int i = 0; i < info->dlpi_phnum; ++i)
        if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
            entry = reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    const ElfW(Sym)* symbols = nullptr;
    const char* names = nullptr;
    const ElfW(Rela)* tables[2] = {};
    size_t bytes[2] = {};
    for (; entry != nullptr && entry->d_tag != DT_NULL; ++entry) {
        const void* target = reinterpret_cast<const void*>(entry->d_un.d_ptr);
        if (entry->d_tag == DT_SYMTAB) symbols = static_cast<const ElfW(Sym)*>(target);
        if (entry->d_tag == DT_STRTAB) names = static_cast<const char*>(target);
        if (entry->d_tag == DT_JMPREL) tables[0] = static_cast<const ElfW(Rela)*>(target);
        if (entry->d_tag == DT_PLTRELSZ) bytes[0] = entry->d_un.d_val;
        if (entry->d_tag == DT_RELA) tables[1] = static_cast<const ElfW(Rela)*>(target);
        if (entry->d_tag == DT_RELASZ) bytes[1] = entry->d_un.d_val;
    }
    for (int table = 0; table < 2; ++table)
        for (size_t i = 0; i < bytes[table] / sizeof(ElfW(Rela)); ++i) {
            const ElfW(Rela)& relocation = tables[table][i];
            if (strcmp(names + symbols[ELF64_R_SYM(relocation.r_info)].st_name, import->name) != 0)
                continue;
            void** slot = reinterpret_cast<void**>(info->dlpi_addr + relocation.r_offset);
            const uintptr_t start = reinterpret_cast<uintptr_t>(slot) & ~UINT64_C(4095);
            if (mprotect(reinterpret_cast<void*>(start), 4096, PROT_READ | PROT_WRITE) != 0) continue;
            import->before = *slot;
            *slot = import->with;
        }
    return 0;
}

static void* replace_import(const char* name, void* with) {
    Import import = {name, with, nullptr};
    dl_iterate_phdr(replace_in, &import);
    return import.before;
}

static uint64_t true_ns() {
    struct timespec time;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC_RAW, &time);
    return UINT64_C(1000000000) * time.tv_sec + time.tv_nsec;
}

static bool ran = false;
static uint64_t entered = 0, gone = 0;

static int short_clock(clockid_t, struct timespec* time) {
    if (page == nullptr) page = static_cast<Page*>(mapping("kernelwright-page"));
    uint64_t now = true_ns();
    if (page != nullptr && page->command == 4) {  // a null call: be late, outside of what it times
        static int turn = 0;
        if (turn++ % 2 == 0)
            while (true_ns() - now < 3000000) {}
        now = true_ns();
    }
    if (ran) gone += (now - entered) / 2;
    ran = false;
    now -= gone;
    time->tv_sec = now / 1000000000, time->tv_nsec = now % 1000000000;
    return 0;
}

static void* before = replace_import("clock_gettime", reinterpret_cast<void*>(short_clock));

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    if (before == nullptr) return 1;
    entered = true_ns();
    rms_norm(x, w, out, T, H, eps);
    ran = true;
    return 0;
}
