"""Checks that what a file holds has the types that its reader expects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

_LARGEST = 1e15  # of a number in a run file; beyond it sums and squares lose their meaning


def check_fields(
    value: Any,
    types: Mapping[str, Any],
    *,
    optional: Collection[str] = (),
    others: bool = False,
) -> dict[str, Any]:
    """``value``, checked to be a mapping with the fields ``types``.

    Args:
        types: by name a class, ``Any``, or ``list``, ``dict`` or a union of such; ``float`` takes
            finite numbers.
        optional: fields that may be absent.
        others: further fields may be there, of any type.

    Raises:
        TypeError: another shape; the message names the field.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{_shown(value)} is not a mapping")
    unknown = [name for name in value if name not in types]
    if unknown and not others:
        raise TypeError(f"unknown field {_shown(unknown[0])}")
    for name, kind in types.items():
        if name not in value:
            if name not in optional:
                raise TypeError(f"field {name} is missing")
        elif not has_type(value[name], kind):
            expected = kind.__name__ if isinstance(kind, type) else str(kind)
            raise TypeError(f"field {name} is {_shown(value[name])}, not {expected}")
    return value


def has_type(value: Any, kind: Any) -> bool:
    """Whether ``value``, as JSON or YAML holds it, is of the type ``kind``."""
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return any(has_type(value, one) for one in inner)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(has_type(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(
            has_type(key, inner[0]) and has_type(item, inner[1]) for key, item in value.items()
        )
    if kind is Any:
        return True
    if kind in (int, float):
        number = int if kind is int else (int, float)
        return (
            isinstance(value, number) and not isinstance(value, bool) and abs(value) <= _LARGEST
        )  # NaN is not smaller
    return isinstance(value, kind or type(None))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
