"""Records to JSON and back, by the declared types of `kernelwright.model`.

A stored record is `{"type": NAME, "version": N, "data": {FIELD: VALUE}}`. Values follow the fields'
declared types: tuples are lists, frozen maps are objects, enums their values, a record inside a
record its fields alone (with its type's name where a union leaves several open). Numbers that JSON
lacks are the strings `nan`, `inf` and `-inf`.

Old data opens forever. A field that was added since has a default, so that it may be missing; any
other change of a record raises `RECORD_VERSION` and adds a step to `UPGRADES`.
"""

# pyright: basic
import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from kernelwright import model
from kernelwright.errors import ArchiveError
from kernelwright.model import FrozenMap

Json = dict[str, Any]
Record = TypeVar("Record")

RECORD_VERSION = 1

UPGRADES: dict[tuple[str, int], Callable[[Json], Json]] = {}
"""By (type name, version): turns the data of that version into the next version's."""

_RECORDS: dict[str, type] = {
    name: item
    for name in model.__all__
    if isinstance(item := getattr(model, name), type) and dataclasses.is_dataclass(item)
}
_SCALARS = (bool, int, float, str)


def to_json(record: object) -> Json:
    """A record of `kernelwright.model` as a JSON object.

    Raises:
        TypeError: it is not such a record, or a field does not hold what it declares.
    """
    name = type(record).__name__
    if _RECORDS.get(name) is not type(record):
        raise TypeError(f"{name} is not a record of kernelwright.model")
    return {"type": name, "version": RECORD_VERSION, "data": _encode_fields(record, name)}


def from_json(document: Mapping[str, Any], expected: type[Record]) -> Record:
    """The record that a JSON object holds.

    Args:
        document: what `to_json` returned, now or in an earlier version.
        expected: the record type; a union of several is accepted too.

    Raises:
        ArchiveError: it is of a newer version, of another type, or damaged; says where.
    """
    try:
        name, version, data = document["type"], document["version"], document["data"]
    except (KeyError, TypeError):
        raise ArchiveError("a stored record lacks its type, version or data") from None
    if not isinstance(version, int) or version > RECORD_VERSION:
        raise ArchiveError(
            f"a stored {name} has version {version}, newer than this program reads "
            f"({RECORD_VERSION}): update kernelwright"
        )
    cls = _RECORDS.get(name)
    allowed = get_args(expected) or (expected,)
    if cls is None or cls not in allowed:
        wanted = " or ".join(option.__name__ for option in allowed)
        raise ArchiveError(f"a stored record is a {name} where a {wanted} is wanted")
    for step in range(version, RECORD_VERSION):
        data = UPGRADES.get((name, step), _unchanged)(data)
    return cast(Record, _decode_fields(cls, data, name))


def _unchanged(data: Json) -> Json:
    return data


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _encode_fields(record: object, path: str) -> Json:
    hints = _hints(type(record))
    fields = dataclasses.fields(cast(Any, record))
    return {
        f.name: _encode(getattr(record, f.name), hints[f.name], f"{path}.{f.name}") for f in fields
    }


def _encode(value: Any, hint: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _encode_union(value, arguments, path)
    if origin is tuple and isinstance(value, tuple):
        kinds = _tuple_kinds(arguments, len(value))
        if kinds is not None:
            return [
                _encode(v, k, f"{path}[{i}]")
                for i, (v, k) in enumerate(zip(value, kinds, strict=True))
            ]
    elif origin is FrozenMap and isinstance(value, FrozenMap):
        return {_key(k, path): _encode(v, arguments[1], f"{path}[{k!r}]") for k, v in value.items()}
    elif origin is Literal and value in arguments:
        return value
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and type(value) is hint:
        return _encode_fields(value, path)
    elif isinstance(hint, type) and issubclass(hint, Enum) and isinstance(value, hint):
        return value.value
    elif hint is float and type(value) in (int, float):
        return _number(float(value))
    elif hint in _SCALARS and type(value) is hint:
        return value
    raise TypeError(f"{path} holds {value!r}, which is not {_shown(hint)}")


def _encode_union(value: Any, options: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in options:
        return None
    records = [option for option in options if dataclasses.is_dataclass(option)]
    if type(value) in records:
        fields = _encode_fields(value, path)
        return fields if len(records) == 1 else {"type": type(value).__name__, "data": fields}
    if type(value) in options and type(value) in _SCALARS:
        return _number(value) if isinstance(value, float) else value
    for option in options:
        try:
            return _encode(value, option, path)
        except TypeError:
            continue
    raise TypeError(f"{path} holds {value!r}, which is none of {', '.join(map(_shown, options))}")


def _decode_fields(cls: type, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ArchiveError(f"{path} is damaged: not an object")
    stored = cast(Json, data)
    hints = _hints(cls)
    unknown = sorted(set(stored) - set(hints))
    if unknown:
        raise ArchiveError(f"{path} has a field '{unknown[0]}' that this program does not know")
    values = {
        name: _decode(stored[name], hints[name], f"{path}.{name}")
        for name in hints
        if name in stored
    }
    try:
        return cls(**values)
    except TypeError:
        missing = sorted(set(hints) - set(stored))
        raise ArchiveError(f"{path} is damaged: it lacks {', '.join(missing)}") from None


def _decode(value: Any, hint: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _decode_union(value, arguments, path)
    if origin is tuple and isinstance(value, list):
        items = cast(list[Any], value)
        kinds = _tuple_kinds(arguments, len(items))
        if kinds is not None:
            return tuple(
                _decode(v, k, f"{path}[{i}]")
                for i, (v, k) in enumerate(zip(items, kinds, strict=True))
            )
    elif origin is FrozenMap and isinstance(value, dict):
        entries = cast(Json, value)
        return FrozenMap(
            {k: _decode(v, arguments[1], f"{path}[{k!r}]") for k, v in entries.items()}
        )
    elif origin is Literal and value in arguments:
        return value
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _decode_fields(hint, value, path)
    elif (
        isinstance(hint, type) and issubclass(hint, Enum) and value in [item.value for item in hint]
    ):
        return hint(value)
    elif hint is float and (type(value) in (int, float) or value in ("nan", "inf", "-inf")):
        return float(value)
    elif hint in _SCALARS and type(value) is hint:
        return value
    raise ArchiveError(f"{path} is damaged: {str(value)[:40]!r} is not {_shown(hint)}")


def _decode_union(value: Any, options: tuple[Any, ...], path: str) -> Any:
    if value is None and type(None) in options:
        return None
    records = {_shown(option): option for option in options if dataclasses.is_dataclass(option)}
    if isinstance(value, dict) and len(records) > 1:
        tagged = cast(Json, value)
        if tagged.get("type") in records:
            return _decode_fields(cast(type, records[tagged["type"]]), tagged.get("data"), path)
    if type(value) in options:
        return value
    for option in options:
        try:
            return _decode(value, option, path)
        except ArchiveError:
            if len(options) == 2 and type(None) in options and option is not type(None):
                raise
    raise ArchiveError(f"{path} is damaged: {str(value)[:40]!r} fits none of its types")


def _tuple_kinds(arguments: tuple[Any, ...], length: int) -> list[Any] | None:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [arguments[0]] * length
    return list(arguments) if len(arguments) == length else None


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{path} has the key {key!r}: stored maps have strings for keys")
    return str(key)


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)
