"""Changes that people, programs and disks make to valid input."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from .attack import Draw

# Stand for what ``json.dumps`` does not write; :func:`to_json` puts it in.
_DIGITS, _DEEP, _EXPONENT = "\u0001digits\u0001", "\u0001deep\u0001", "\u0001exponent\u0001"
_RAW = {_DIGITS: "9" * 5000, _DEEP: "[" * 2000 + "]" * 2000, _EXPONENT: "1e999"}

TEXTS = (
    "", " ", "\t\n", "\0", "a\0b", "\ud83d", "x\udc00y", "²", "٣", "ａ", "é", "e\u0301",
    "\u202etxt",
    "\ufeff", "x" * 300, "../../x", "..", ".", "/", "/etc/passwd", "~", "~/x", "C:\\x.png", "a/b/c",
    "a" * 4000 + ".png", "null", "true", "no", "1", "-1", "1e5", "0x10", "1_000", "nan", "inf",
    "${oc.env:HOME}", "{}", "{0.__class__}", "%s%n", "<image>", "</s>", "<pad>", "Question: {}",
    "--help", "-", "=", "a=b", "@file", "'", '"', "\\", "`id`", "$(id)", "; rm", "| cat", "*",
    "[x]",
    "!!int 'abc'", "!!python/object:os.system", "2001-99-99", "2001-01-01", "&a [*a]", "[" * 300,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 7, 10**6, 2**31, 2**63, -(2**63), 10**30, 0.0, -0.0, 0.5, 1e-300, 1e308)
ODD = (float("nan"), float("inf"), -float("inf"), _DIGITS, _DEEP, _EXPONENT)
OTHERS = (None, True, False, [], {}, [None], [[]], {"": ""}, ["a", "b"], {"a": 1}, [1, "a"])

texts = st.sampled_from(TEXTS) | st.text(max_size=12)
plain = st.sampled_from(TEXTS + NUMBERS + OTHERS) | st.text(max_size=8) | st.integers()
values = plain | st.sampled_from(ODD)


def to_json(value: Any, **options: Any) -> str:
    """``value`` as JSON text, with what Python's own writer refuses."""
    text = json.dumps(value, **options)
    for name, raw in _RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The paths of all nodes in a JSON value."""
    yield at
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from places(item, (*at, key))


def changed(draw: Draw, value: Any, hostile: st.SearchStrategy = values, times: int = 2) -> Any:
    """``value`` with one to ``times`` changes somewhere in it; the original is left alone."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, times))):
        value = _change(draw, value, hostile)
    return value


def _change(draw: Draw, value: Any, hostile: st.SearchStrategy) -> Any:
    path = draw(st.sampled_from([*places(value)]))
    if not path:
        return (
            draw(st.sampled_from([value, [value], {"": value}]))
            if draw(st.booleans())
            else copy.deepcopy(draw(hostile))
        )
    node = value
    for key in path[:-1]:
        node = node[key]
    key, how = path[-1], draw(st.sampled_from(_HOW))
    if how == "remove":
        del node[key]
    elif how == "wrap":
        node[key] = [node[key]]
    elif how == "double":
        node[key] = [node[key], copy.deepcopy(node[key])]
    elif how == "cast":
        node[key] = _cast(node[key])
    elif how == "add" and isinstance(node, list):
        node.insert(key, copy.deepcopy(draw(hostile)))
    elif how == "again" and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif how == "add":
        node[draw(texts)] = copy.deepcopy(draw(hostile))
    elif how in ("rename", "again") and isinstance(node, dict):
        node[draw(st.sampled_from([f"{key}s", f"{key} ", key.upper(), key[1:]]))] = node.pop(key)
    elif how == "swap":
        other = draw(st.sampled_from([*(node if isinstance(node, dict) else range(len(node)))]))
        node[key], node[other] = node[other], node[key]
    else:
        node[key] = copy.deepcopy(draw(hostile))
    return value


_HOW = ("set", "set", "set", "remove", "wrap", "double", "cast", "add", "again", "rename", "swap")


def _cast(value: Any) -> Any:
    if isinstance(value, str):
        return list(value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return str(value) if value else bool(value)
    return (
        json.dumps(value) if isinstance(value, dict) else {str(i): v for i, v in enumerate(value)}
    )


def damaged(draw: Draw, data: bytes) -> bytes:
    """``data`` cut, with flipped bits, with bytes put in, taken out or moved."""
    how = draw(
        st.sampled_from(("cut", "flip", "flip", "put", "take", "zero", "move", "end", "odd"))
    )
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    n = draw(st.sampled_from((1, 2, 8, 100)))
    if how == "cut":
        return data[:at]
    if how == "flip":
        return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
    if how == "put":
        return data[:at] + draw(st.binary(min_size=1, max_size=8)) + data[at:]
    if how == "take":
        return data[:at] + data[at + n :]
    if how == "zero":
        return data[:at] + bytes(min(n, len(data) - at)) + data[at + n :]
    if how == "move":
        return data[at:] + data[:at]
    if how == "end":
        return data + draw(st.sampled_from((b"\0", b"\n", b"}", data[:50], b"x" * 5000)))
    return draw(st.sampled_from((b"", b"\xef\xbb\xbf" + data, b"\xff\xfe" + data, b"{}", b"[]")))
