"""Small damages: of bytes, of JSON, of values; and ways to make an input smaller."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63), 10**12, 0.5, -0.0, 1e308, "", "0", "x", "ä\n", "x" * 999,
    [], {}, [[]], {"": {}}, [None], "../../etc", "nan",
)  # fmt: skip
RAW = ("NaN", "-Infinity", "1e999", "9" * 5000, "1" + "0" * 30, "[" * 2000 + "]" * 2000, '"\\ud800"', "[1,]", "tru")
"""What no `json.dumps` writes."""


def damage(rng: random.Random, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """The same with one to three damages."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = _damage(rng, data, others)
    return data


def _damage(rng: random.Random, data: bytes, others: tuple[bytes, ...]) -> bytes:
    size = len(data)
    if not size:
        return rng.randbytes(rng.randrange(9))
    at, length = rng.randrange(size), rng.choice((1, 2, 4, 8, 64, 1000))
    kind = rng.randrange(9)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at:]
    if kind == 3:
        return data[:at] + data[at + length :]
    if kind == 4:
        other = rng.choice(others or (data,))
        return data[:at] + other[rng.randrange(len(other) + 1) :]
    if kind == 5:
        begin, end = sorted((at, rng.randrange(size)))
        return data[:begin] + data[end : end + length] + data[begin + length : end] + data[begin : begin + length]
    if kind == 6:
        return data[:at] + data[at : at + length] * rng.choice((2, 3, 50)) + data[at + length :]
    if kind == 7:
        return data[:at] + rng.choice((b"\0", b"\xff", b"\x7f", b"9")) * length + data[at + length :]
    return data[:at] + rng.choice((2**63 - 1, 2**31, 2**32 - 1, 10**12)).to_bytes(8, "little") + data[at + 8 :]


def damaged_json(rng: random.Random, value: Any) -> bytes:
    """The text of a JSON value of which some places are another value; now and then its bytes are damaged as well."""
    value = json.loads(json.dumps(value))
    raw: dict[str, str] = {}
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        value = _odd_place(rng, value, raw)
    text = json.dumps(value)
    for mark, written in raw.items():
        text = text.replace(f'"{mark}"', written)
    data = text.encode()
    return damage(rng, data) if rng.random() < 0.15 else data


def _odd_place(rng: random.Random, value: Any, raw: dict[str, str]) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        action = rng.random()
        if action < 0.1:
            value.pop(key)
        elif action < 0.2 and isinstance(value, dict):
            value[rng.choice(("", "extra", "task", "size"))] = value[key]
        else:
            value[key] = _odd_place(rng, value[key], raw)
        return value
    if rng.random() < 0.2:
        mark = f"raw {len(raw)}"
        raw[mark] = rng.choice(RAW)
        return mark
    return odd_value(rng)


def odd_value(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(ODD_VALUES))


def smaller(case: Any) -> Iterator[Any]:
    """Cases that are a little smaller than a case made of bytes, texts, lists, dicts and tuples."""
    if isinstance(case, bytes | str | list | tuple):
        length = (len(case) + 1) // 2
        while length:
            yield from (case[:at] + case[at + length :] for at in range(0, len(case), length))
            length //= 2
    if isinstance(case, list | tuple):
        for place, item in enumerate(case):
            yield from (type(case)([*case[:place], less, *case[place + 1 :]]) for less in smaller(item))
    elif isinstance(case, dict):
        for key in case:
            yield {name: item for name, item in case.items() if name != key}
        for key, item in case.items():
            yield from ({**case, key: less} for less in smaller(item))
