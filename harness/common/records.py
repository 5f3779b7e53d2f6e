"""The one JSON encoding of the frozen dataclasses that this program stores, or sends to a worker."""

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from harness.common.files import write_whole

T = TypeVar("T")


def to_json(record: Any, *, indent: int | None = None) -> str:
    """Return a dataclass instance as JSON."""
    return json.dumps(asdict(record), indent=indent)


def from_json(kind: type[T], text: str) -> T:
    """Return the instance of this dataclass that `to_json` wrote.

    Fields may be dataclasses, tuples of one type and mappings with string keys, each perhaps None.

    Raises:
        ValueError: the text is no JSON, or has a field that the class lacks, as from another version of this program.
        TypeError: a field is missing.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"holds no {kind.__name__}")
    record: T = _decoded(kind, values)
    return record


def write_record(file: Path, record: Any) -> None:
    """Write a dataclass instance into a file atomically."""
    write_whole(file, to_json(record, indent=2))


def read_record(kind: type[T], file: Path) -> T:
    """Return the instance of this dataclass in a file that `write_record` wrote.

    Raises:
        ValueError: the file was cut short, or belongs to another version.
    """
    try:
        return from_json(kind, file.read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: cut short, or written by another version of this program ({error}); restore a whole copy, use "
            f"that version, or move {file.parent} away"
        ) from error


def _decoded(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if is_dataclass(kind):
        kinds = field_types(kind)  # type: ignore[arg-type]
        if unknown := sorted(set(value) - set(kinds)):
            raise ValueError(f"unknown fields {', '.join(unknown)}")
        return kind(**{name: _decoded(kinds[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _decoded(arguments[0], value)
    if origin is tuple:
        return tuple(_decoded(arguments[0], item) for item in value)
    if origin is Mapping:
        return {key: _decoded(arguments[1], item) for key, item in value.items()}
    return value


@cache
def field_types(kind: Any) -> Mapping[str, Any]:
    """Return the type of each field of a dataclass, resolved once: a start builds hundreds of configurations."""
    return get_type_hints(kind)
