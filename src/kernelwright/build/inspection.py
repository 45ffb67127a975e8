"""What a built library may do to the process that loads it: nothing.

It is shipped, and loaded into programs that nobody sandboxes. So it must not run code when it is
loaded or unloaded, not reach for the system, and not stand in for functions of others. This is
no proof of innocence (code can find its way without the loader's help); that is the sandbox's task.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kernelwright.build import elf
from kernelwright.build.elf import SharedLibrary, Symbol

_LIBRARIES = re.compile(
    r"(lib(c|m|mvec|gcc_s|stdc\+\+|atomic|pthread|gomp|omp|omp5|iomp5)|ld-linux[\w-]*)\.so(\.\d+)*"
)
_ALL_OF = re.compile(r"(lib(m|mvec|gcc_s|atomic|gomp|omp|iomp5)|ld-linux[\w-]*)\.so.*")
_OPENMP = re.compile(r"(omp|ompx|kmp|GOMP|__kmpc)_\w+")
_FROM_TOOLCHAIN = re.compile(
    r"__gmon_start__|_ITM_\w+|_Jv_RegisterClasses|__cxa_finalize|__tls_get_addr"
)
_LIBC_NAMES = """
    memcpy memmove memset memcmp memchr mempcpy strlen strcmp strncmp strcpy strncpy strchr
    strrchr strstr strcat abs labs llabs div ldiv lldiv qsort bsearch malloc calloc realloc free
    aligned_alloc posix_memalign memalign abort __assert_fail __stack_chk_fail __errno_location
    __memcpy_chk __memmove_chk __memset_chk __memcpy_inline_chk rand srand rand_r printf puts
    putchar fprintf fputs fputc fwrite fflush snprintf vsnprintf stdout stderr __printf_chk
    __fprintf_chk __snprintf_chk __vsnprintf_chk isnan isnanf isinf isinff finite finitef frexp
    frexpf ldexp ldexpf modf modff scalbn scalbnf copysign copysignf sched_yield pthread_self
    pthread_once pthread_mutex_lock pthread_mutex_unlock pthread_mutex_trylock
    pthread_mutex_init pthread_mutex_destroy __sched_cpucount
"""
_FROM_LIBC = frozenset(_LIBC_NAMES.split())
_NOT_FROM_LIBSTDCXX = re.compile(
    r"_ZNSt6thread|_ZNSt11this_thread|_ZNSt13random_device|_ZNSt6chrono|fstream|filebuf|filesystem"
    r"|condition_variable|atomic_futex|__cxa_thread_atexit|_ZNSt8ios_base4Init"
)
_STANDS_IN = re.compile(
    r"(omp|ompx|ompt|kmp|GOMP|GOACC|__kmpc|__kmp|_dl|_Unwind|__cxa|__gxx|__libc|kernelwright)_\w+"
    r"|(_Zn[wa]m|_Zd[la]Pvm?)(St11align_val_t)?(RKSt9nothrow_t)?"
)
_CUDA_RUNTIME = re.compile(
    r"__cuda(RegisterFatBinary(End)?|UnregisterFatBinary|RegisterFunction|RegisterVar|InitModule"
    r"|GetKernel|LaunchKernel(_ptsz)?|PushCallConfiguration|PopCallConfiguration)"
    r"|cuda(LaunchKernel\w*|LaunchCooperativeKernel|GetLastError|PeekAtLastError|GetErrorString"
    r"|GetErrorName|Func(Set|Get)\w+|Occupancy\w+|Mem(set|cpy)\w*Async|GetSymbol(Address|Size)"
    r"|GetDevice|DeviceGetAttribute|GetDeviceProperties\w*|StreamCreate|StreamDestroy"
    r"|StreamWaitEvent|StreamSynchronize|StreamIsCapturing|Event(Create\w*|Record\w*|Destroy))"
)
"""Launching, asking about the device, copying and waiting inside the device: no memory of its own,
no other process's memory, no way to the rest of the driver."""
_CUDA_NAMES = re.compile(r"(__)?cuda\w+|cu[A-Z]\w+")
_CUDA_LIBRARY = re.compile(r"libcudart\.so(\.\d+)*")
_OUR_PROBE = "kernelwright_probe_threads"
_IRELATIVE = {62: 37, 183: 1032}
"""The relocation that calls a function, by machine: x86-64, AArch64."""
_SEARCH = {
    elf.DT_RPATH: "a search path", elf.DT_RUNPATH: "a search path", elf.DT_AUDIT: "an auditor",
    elf.DT_DEPAUDIT: "an auditor", elf.DT_AUXILIARY: "a filter", elf.DT_FILTER: "a filter",
}  # fmt: skip
_MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class LoadCode:
    """Bytes of what runs when a library is loaded or unloaded."""

    init: int
    fini: int
    init_array: int
    fini_array: int
    preinit_array: int

    @staticmethod
    def of(library: SharedLibrary) -> "LoadCode":
        """Of a library; a toolchain's own share is that of a library without any."""
        return LoadCode(
            init=sum(map(library.section_bytes, library.values(elf.DT_INIT))),
            fini=sum(map(library.section_bytes, library.values(elf.DT_FINI))),
            init_array=sum(library.values(elf.DT_INIT_ARRAYSZ)),
            fini_array=sum(library.values(elf.DT_FINI_ARRAYSZ)),
            preinit_array=sum(library.values(elf.DT_PREINIT_ARRAYSZ)),
        )


def load_code(path: Path) -> LoadCode:
    """What the toolchain puts into every library, from one that holds nothing else.

    Raises:
        ValueError: the file is not a shared library.
    """
    return LoadCode.of(SharedLibrary(path.read_bytes()))


def inspect(path: Path, usual: LoadCode, gpu: bool = False) -> str:
    """Why this library must not be loaded, a sentence a line; empty when nothing speaks against it.

    Args:
        path: the library.
        usual: `load_code` of a library that the same compiler built with the same flags.
        gpu: it holds CUDA kernels, which are registered when it is loaded.
    """
    try:
        library = SharedLibrary(path.read_bytes())
        found = list(dict.fromkeys(_findings(library, usual, gpu)))
    except (ValueError, struct.error, IndexError) as error:
        return f"the library cannot be read: {error}"
    if len(found) > _MOST_SHOWN:
        found = [*found[:_MOST_SHOWN], f"and {len(found) - _MOST_SHOWN} more"]
    return "\n".join(found)


def _findings(library: SharedLibrary, usual: LoadCode, gpu: bool) -> Iterator[str]:
    own = LoadCode.of(library)
    if (own.init, own.init_array) != (usual.init, usual.init_array) or own.preinit_array:
        yield (
            "it runs code when it is loaded: a constructor, or a static object that must be "
            "initialised at run time; make it constexpr, or fill it inside the kernel"
        )
    if (own.fini, own.fini_array) != (usual.fini, usual.fini_array):
        yield "it runs code when it is unloaded: a destructor; a kernel leaves nothing to tidy up"
    if _calls_resolvers(library):
        yield (
            "it chooses a function when it is loaded (ifunc, target_clones): choose at compile "
            "time, -march=native is the default"
        )
    if library.executable_stack:
        yield "it asks for an executable stack, as nested functions and some assembler files do"
    textrel = library.values(elf.DT_TEXTREL) or sum(library.values(elf.DT_FLAGS)) & elf.DF_TEXTREL
    if textrel or library.writable_code:
        yield "its code is writable when it is loaded (text relocations or a writable segment)"
    for tag, what in _SEARCH.items():
        if library.values(tag):
            yield f"it names {what} for the loader"
    for needed in library.texts(elf.DT_NEEDED):
        if not _LIBRARIES.fullmatch(needed) and not (gpu and _CUDA_LIBRARY.fullmatch(needed)):
            yield f"it needs the library {needed}; a kernel has the C, C++ and OpenMP libraries"
    for symbol in library.dynamic_symbols:
        if not symbol.defined and not _may_use(symbol) and not (gpu and _may_cuda(symbol)):
            yield f"it uses '{symbol.name}'{_from(symbol)}, which {_why(symbol.name)}"
    if not library.symbols:
        yield "its symbol table has been removed"
    for symbol in library.symbols:
        name = symbol.name.partition("@")[0]
        stands_in = _stands_in(symbol, name) or (gpu and bool(_CUDA_NAMES.fullmatch(name)))
        if symbol.defined and name != _OUR_PROBE and stands_in:
            yield f"it defines '{name}', a name of a system library or of the judge: rename it"


def _calls_resolvers(library: SharedLibrary) -> bool:
    symbols = (*library.symbols, *library.dynamic_symbols)
    if any(symbol.kind == elf.STT_GNU_IFUNC and symbol.defined for symbol in symbols):
        return True
    return _IRELATIVE.get(library.machine) in library.relocation_kinds()


def _may_use(symbol: Symbol) -> bool:
    """Undefined weak symbols have no version, so that they are judged by name alone."""
    name = symbol.name
    if _FROM_TOOLCHAIN.fullmatch(name) or _OPENMP.fullmatch(name) or name in _FROM_LIBC:
        return True
    if symbol.library.startswith("libstdc++"):
        return not _NOT_FROM_LIBSTDCXX.search(name)
    return bool(_ALL_OF.fullmatch(symbol.library))


def _may_cuda(symbol: Symbol) -> bool:
    """The toolkit's own code registers kernels when it is loaded, and forgets them at the end."""
    return symbol.name == "__cxa_atexit" or bool(_CUDA_RUNTIME.fullmatch(symbol.name))


_WHYS = (
    (
        r"cudaStreamCreate.+",
        "makes a stream that does not wait for the default one (take cudaStreamCreate)",
    ),
    (r"cuda(Malloc|Free|Host|Ipc|MemPool|Import|Export).*", "allocates or shares memory"),
    (r"cuda.*|cu[A-Z].*", "is not among the CUDA functions that kernels may use"),
    (r".*(dlopen|dlsym|dlmopen|dlvsym|dl_iterate).*", "looks up code while it runs"),
    (r".*(system|popen|exec|fork|spawn|clone|kill|ptrace|wait).*", "concerns other processes"),
    (r".*(thread|futex|condition_variable|6thread).*", "starts or ends threads outside OpenMP"),
    (r".*(sock|connect|bind|listen|accept|send|recv|getaddrinfo).*", "reaches for a network"),
    (r".*(open|fstream|filebuf|filesystem|read|write|unlink|stat).*", "reaches for files"),
    (r".*(sleep|clock|time|chrono).*", "sleeps or reads a clock"),
    (r".*(mmap|mprotect|munmap|brk|shm|memfd).*", "changes the memory map"),
    (r".*(env)", "reads or changes the environment"),
    (r".*(atexit|exit)", "ends the process or runs code when it or a thread ends"),
)


def _why(name: str) -> str:
    for pattern, reason in _WHYS:
        if re.fullmatch(pattern, name):
            return f"{reason}; a kernel computes in memory that it is lent"
    return "is not among what kernels may use: mathematics, memory, OpenMP, the C++ library"


def _from(symbol: Symbol) -> str:
    return f" of {symbol.library}" if symbol.library else ""


def _stands_in(symbol: Symbol, name: str) -> bool:
    if symbol.kind in (elf.STT_SECTION, elf.STT_FILE) or not name:
        return False
    return bool(_STANDS_IN.fullmatch(name)) or name in _system_names()


@lru_cache(maxsize=1)
def _system_names() -> frozenset[str]:
    """What the C and mathematics libraries of this process define."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count("/")}
    wanted = re.compile(r".*/(libc|libm|libpthread|libdl)(\.so\.\d+|-[\d.]+\.so)")
    names: set[str] = set()
    for path in sorted(paths):
        if wanted.fullmatch(path):
            library = SharedLibrary(Path(path).read_bytes())
            names |= {symbol.name for symbol in library.dynamic_symbols if symbol.defined}
    return frozenset(names)


def imports_of(path: Path) -> frozenset[str]:
    """Names that a library takes from others; empty for a file that is none."""
    try:
        library = SharedLibrary(path.read_bytes())
    except (OSError, ValueError):
        return frozenset()
    return frozenset(symbol.name for symbol in library.dynamic_symbols if not symbol.defined)
