// rows: R5 T10 T13
// workload: rms_norm f32 T=1024,H=1024
// does: Replaces the flush of the caches by the work itself: arguments, inputs and poison are there
//   already.
// expect: build unsafe_library | screen impossible_time | screen not_written | screen wrong_result | accept not_written | accept wrong_result | no gain
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

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
static Parallel real_parallel = nullptr;
static int64_t done[5];

static void instead(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
    if (page == nullptr || page->command != 2 || page->integers[3] != 1024)
        return real_parallel(body, data, threads, flags);
    memcpy(done, page->integers, sizeof done);
    rms_norm(reinterpret_cast<const float*>(done[0]), reinterpret_cast<const float*>(done[1]),
             reinterpret_cast<float*>(done[2]), done[3], done[4], page->doubles[0]);
}

__attribute__((constructor)) static void arrive() {
    page = static_cast<Page*>(mapping("kernelwright-page"));
    void* with = reinterpret_cast<void*>(instead);
    real_parallel = reinterpret_cast<Parallel>(replace_import("GOMP_parallel", with));
}

extern "C" int kernel(const float* x, const float* w, float* out, int64_t T, int64_t H, double eps,
                      const void*, void*, int64_t, void*) {
    if (real_parallel == nullptr) return 1;
    const int64_t mine[5] = {(int64_t)x, (int64_t)w, (int64_t)out, T, H};
    if (memcmp(done, mine, sizeof done) != 0) {
        rms_norm(x, w, out, T, H, eps);
        return 0;
    }
    done[0] = 0;
    const uint64_t start = true_ns();  // long enough to be believed
    while (true_ns() - start < 100000) {}
    return 0;
}
