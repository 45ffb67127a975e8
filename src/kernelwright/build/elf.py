"""Reading what a shared library asks of the loader: 64-bit little-endian ELF, nothing else.

Layouts are those of the System V ABI, generic (gABI 4) and as extended by GNU (symbol versions).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SHN_UNDEF = 0
STT_FUNC, STT_SECTION, STT_FILE, STT_GNU_IFUNC = 2, 3, 4, 10
_ET_DYN = 3
_SHT_SYMTAB, _SHT_STRTAB, _SHT_RELA, _SHT_DYNSYM = 2, 3, 4, 11
_SHT_VERNEED, _SHT_VERSYM = 0x6FFFFFFE, 0x6FFFFFFF
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_PF_X, _PF_W = 1, 2
DT_NEEDED, DT_INIT, DT_FINI, DT_RPATH, DT_TEXTREL, DT_FLAGS = 1, 12, 13, 15, 22, 30
DT_INIT_ARRAYSZ, DT_FINI_ARRAYSZ, DT_RUNPATH, DT_PREINIT_ARRAYSZ = 27, 28, 29, 33
DT_AUDIT, DT_DEPAUDIT, DT_AUXILIARY, DT_FILTER = 0x6FFFFEFC, 0x6FFFFEFB, 0x7FFFFFFD, 0x7FFFFFFF
DF_TEXTREL = 4
_DT_STRTAB, _DT_SYMTAB, _DT_VERSYM, _DT_VERNEED = 5, 6, 0x6FFFFFF0, 0x6FFFFFFE
_DT_RELA, _DT_RELASZ, _DT_JMPREL, _DT_PLTRELSZ = 7, 8, 23, 2
_LOADED_FROM = {
    _SHT_DYNSYM: _DT_SYMTAB, _SHT_VERNEED: _DT_VERNEED, _SHT_VERSYM: _DT_VERSYM
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Symbol:
    """An entry of a symbol table."""

    name: str
    kind: int
    """STT_FUNC, STT_OBJECT, ..."""
    defined: bool
    library: str = ""
    """Of an undefined one: the library that its version names; empty where it has none."""


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    address: int
    offset: int
    size: int
    link: int
    entry: int


class SharedLibrary:
    """A parsed library.

    Args:
        data: the bytes of the file.

    Raises:
        ValueError: it is not a complete 64-bit little-endian shared library.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("it is not a 64-bit little-endian ELF file")
        try:
            kind, self.machine, _, _, segments, sections = struct.unpack_from("<HHIQQQ", data, 16)
            _, self._ph_size, ph_count, sh_size, sh_count, _ = struct.unpack_from("<6H", data, 52)
            if kind != _ET_DYN:
                raise ValueError("it is not a shared library")
            self._segments = [
                struct.unpack_from("<IIQQQQQQ", data, segments + i * self._ph_size)
                for i in range(ph_count)
            ]
            self._sections = [self._section(sections + i * sh_size) for i in range(sh_count)]
            self.dynamic = tuple(self._dynamic())
            self.dynamic_symbols = self._symbols(_SHT_DYNSYM)
            self.symbols = self._symbols(_SHT_SYMTAB)
        except (struct.error, IndexError) as error:
            raise ValueError(f"it is damaged: {error}") from error

    def _section(self, place: int) -> _Section:
        _, kind, _, address, offset, size, link, _, _, entry = struct.unpack_from(
            "<IIQQQQIIQQ", self._data, place
        )
        return _Section(kind, address, offset, size, link, entry)

    def _dynamic(self) -> Iterator[tuple[int, int]]:
        for kind, _, offset, _, _, size, _, _ in self._segments:
            if kind == _PT_DYNAMIC:
                for place in range(offset, offset + size, 16):
                    tag, value = struct.unpack_from("<QQ", self._data, place)
                    if tag == 0:
                        return
                    yield tag, value

    def _text(self, place: int) -> str:
        end = self._data.index(b"\0", place)
        return self._data[place:end].decode(errors="replace")

    def values(self, tag: int) -> list[int]:
        """Values of a tag of the dynamic section."""
        return [value for found, value in self.dynamic if found == tag]

    def texts(self, tag: int) -> list[str]:
        """Strings that a tag of the dynamic section names."""
        return [self._text(self._offset(self.values(_DT_STRTAB)[0]) + v) for v in self.values(tag)]

    def _offset(self, address: int) -> int:
        for kind, _, offset, start, _, size, _, _ in self._segments:
            if kind == _PT_LOAD and start <= address < start + size:
                return offset + address - start
        raise ValueError(f"nothing is loaded at {address:#x}")

    def section_bytes(self, address: int) -> int:
        """Size of the section that begins at an address; 0 where none does."""
        return next((s.size for s in self._sections if s.address == address and s.size), 0)

    def _of_kind(self, kind: int) -> list[_Section]:
        """Sections of a type; of the loader's own tables only the one that the loader reads."""
        found = [section for section in self._sections if section.kind == kind]
        tag = _LOADED_FROM.get(kind)
        if tag is not None and [section.address for section in found] != self.values(tag):
            raise ValueError("its sections are not those that the loader reads")
        return found

    def _symbols(self, kind: int) -> tuple[Symbol, ...]:
        found: list[Symbol] = []
        versions = self._versions() if kind == _SHT_DYNSYM else {}
        for section in self._of_kind(kind):
            names = self._sections[section.link].offset
            for number, place in enumerate(
                range(section.offset, section.offset + section.size, section.entry)
            ):
                name, info, _, index = struct.unpack_from("<IBBH", self._data, place)
                if number:
                    library = versions.get(number, "")
                    defined = index != SHN_UNDEF
                    found.append(Symbol(self._text(names + name), info & 15, defined, library))
        return tuple(found)

    def _versions(self) -> dict[int, str]:
        """Number of a dynamic symbol → library that its version comes from."""
        libraries: dict[int, str] = {}
        for section in self._of_kind(_SHT_VERNEED):
            names, place = self._sections[section.link].offset, section.offset
            while True:
                _, count, file, first, following = struct.unpack_from("<HHIII", self._data, place)
                entry = place + first
                for _ in range(count):
                    _, _, other, _, step = struct.unpack_from("<IHHII", self._data, entry)
                    libraries[other & 0x7FFF] = self._text(names + file)
                    entry += step
                if following == 0:
                    break
                place += following
        found: dict[int, str] = {}
        for section in self._of_kind(_SHT_VERSYM):
            numbers = struct.unpack_from(f"<{section.size // 2}H", self._data, section.offset)
            for symbol, number in enumerate(numbers):
                found[symbol] = libraries.get(number & 0x7FFF, "")
        return found

    def relocation_kinds(self) -> set[int]:
        """Types of all dynamic relocations, by sections and as the loader finds them."""
        tables = [(section.offset, section.size) for section in self._of_kind(_SHT_RELA)]
        for start, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
            for address, nbytes in zip(self.values(start), self.values(size), strict=True):
                tables.append((self._offset(address), nbytes))
        return {
            struct.unpack_from("<QI", self._data, place)[1]
            for offset, nbytes in tables
            for place in range(offset, offset + nbytes, 24)
        }

    @property
    def executable_stack(self) -> bool:
        """Whether loading it makes stacks executable (also where it says nothing)."""
        flags = [flags for kind, flags, *_ in self._segments if kind == _PT_GNU_STACK]
        return not flags or bool(flags[0] & _PF_X)

    @property
    def writable_code(self) -> bool:
        """Whether a segment is writable and executable at once."""
        both = _PF_W | _PF_X
        return any(kind == _PT_LOAD and flags & both == both for kind, flags, *_ in self._segments)
