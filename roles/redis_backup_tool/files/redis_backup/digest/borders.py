"""Where the records of keys end in an RDB, found without a look into their values.

The formats are those of `rdbSaveKeyValuePair` and `rdbSaveObject` in Redis's rdb.c: an opcode with
an expiry, one with idle time or frequency, the type, the key, and a value that is strings and
numbers one behind the other. A string says how long it is, and so does what is packed or compressed
in it: nothing is decoded. Whether a value is sound is left to whoever loads it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Optional

_EXPIRETIME_MS = 252
_FREQ = 249
_IDLE = 248
# An expiry in ms and, before Redis 2.6, in seconds: bytes with the opcode.
_EXPIRIES = {_EXPIRETIME_MS: 9, 253: 5}
#: Bytes of a record: of a larger one, the parts that are put in order would take much memory.
LONGEST = 1 << 20

# The first version of Valkey's own format, in which types above 21 are others than Redis's.
_VALKEY = 80

# Types of rdb.h by the shape of their values.
_ONE_STRING = bytes(kind in (0, 9, 10, 11, 12, 13, 16, 17, 20, 23) for kind in range(256))
_LIST = 1
_SET = 2
_HASH = 4
_SORTED_SET = 5
_QUICKLIST = 14
_QUICKLIST2 = 18
_HASH_TTL_PRE_GA = 22
_HASH_TTL = 24
_HASH_PACKED_TTL = 25


class _Unknown(Exception):  # noqa: N818 - it is no error: somebody else reads such a record
    """A type or an encoding whose borders are not known here."""


def split(data: bytes, at: int, version: int, records: list[bytes]) -> tuple[int, int]:
    """Append the records that stand in `data`, a part of an RDB of that version, from `at` on, and
    return where that ended and how many of them expire.

    It ends at what is no whole record: an opcode, the end of `data`, a type whose borders are not
    known here (modules, sorted sets with scores as text), more than `LONGEST` bytes, or what Redis
    does not write. A record is the expiry where there is one, type, key and value as they are in
    the file, without idle time and frequency; members of a set and fields of a hash that are stored
    one by one are put in order, because a server hands them out in any. Equal records so are equal
    data; equal data may be unequal records, when it was stored in other encodings.
    """
    # Strings and what is packed into one string are unrolled on purpose: a call for each of them
    # would double the time of a drill.
    expires = 0
    add = records.append
    one_string, values = (_ONE_STRING, _VALUES) if version < _VALKEY else _OF_VALKEY
    end = len(data)
    start = at
    try:
        while True:
            start = at
            kind = data[at]
            expiring = 0
            used = None
            if kind >= _IDLE:
                if kind == _EXPIRETIME_MS:
                    expiring = 1
                    at += 9
                    kind = data[at]
                if kind >= _IDLE:
                    used = at
                    at = _past_use(data, at)
                    kind = data[at]
            body = at
            size = data[at + 1]
            if size < 0x40:
                at += 2 + size
            elif size < 0x80:
                at += 3 + ((size & 0x3F) << 8 | data[at + 2])
            else:
                at = _string(data, at + 1)
            if one_string[kind]:
                size = data[at]
                if size < 0x40:
                    at += 1 + size
                elif size < 0x80:
                    at += 2 + ((size & 0x3F) << 8 | data[at + 1])
                elif 0xC0 <= size < 0xC3:
                    at += 1 + (1 << size - 0xC0)
                else:
                    at = _string(data, at)
                parts = None
            else:
                at, parts_at, parts = values[kind](data, at)
            if at > end or at - start > LONGEST:
                return start, expires
            if parts is not None:
                parts.sort()
                record = b"".join((data[body:parts_at], *parts))
                add(data[start : used or body] + record)
            elif used is None:
                add(data[start:at])
            else:
                add(data[start:used] + data[body:at])
            expires += expiring
    except (IndexError, KeyError, _Unknown):
        return start, expires


def _past_use(data: bytes, at: int) -> int:
    """Past an idle time or a frequency."""
    if data[at] == _FREQ:
        return at + 2
    if data[at] == _IDLE:
        return _length(data, at + 1)[1]
    raise _Unknown


def key_of(data: bytes) -> bytes:
    """The key of the record that `data` begins with, as it is in the file; of a long one what is
    there, and nothing where that cannot be said.
    """
    at = 0
    try:
        while data[at] >= _IDLE:
            at = at + _EXPIRIES[data[at]] if data[at] in _EXPIRIES else _past_use(data, at)
        return data[at + 1 : _string(data, at + 1)]
    except (IndexError, _Unknown):
        return b""


def _length(data: bytes, at: int) -> tuple[int, int]:
    """A length and where it ends. Raises IndexError, _Unknown."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | data[at + 1], at + 2
    width = {0x80: 4, 0x81: 8}.get(first)
    if width is None:
        raise _Unknown
    end = at + 1 + width
    if end > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1 : end], "big"), end


def _string(data: bytes, at: int) -> int:
    """Where a string ends. Raises IndexError, _Unknown."""
    first = data[at]
    if first < 0x40:
        return at + 1 + first
    if first < 0x80:
        return at + 2 + ((first & 0x3F) << 8 | data[at + 1])
    if 0xC0 <= first < 0xC3:
        return at + 1 + (1 << first - 0xC0)
    if first == 0xC3:
        compressed, at = _length(data, at + 1)
        _, at = _length(data, at)
        return at + compressed
    size, at = _length(data, at)
    return at + size


def _strings(data: bytes, at: int, count: int) -> int:
    """Where so many strings end."""
    for _ in range(count):
        size = data[at]
        if size < 0x40:
            at += 1 + size
        elif size < 0x80:
            at += 2 + ((size & 0x3F) << 8 | data[at + 1])
        else:
            at = _string(data, at)
    return at


#: Where a value ends; and of parts whose order does not count where they begin, and each of them.
_Value = tuple[int, int, Optional[list[bytes]]]


def _string_list(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    return _strings(data, at, count), 0, None


def _set(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    begin = at
    parts = []
    for _ in range(count):
        start = at
        size = data[at]
        at = at + 1 + size if size < 0x40 else _string(data, at)
        parts.append(data[start:at])
    return at, begin, parts


def _hash(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    begin = at
    parts = []
    for _ in range(count):
        start = at
        size = data[at]
        at = at + 1 + size if size < 0x40 else _string(data, at)
        size = data[at]
        at = at + 1 + size if size < 0x40 else _string(data, at)
        parts.append(data[start:at])
    return at, begin, parts


def _sorted_set(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    for _ in range(count):
        size = data[at]
        at = at + 9 + size if size < 0x40 else _string(data, at) + 8
    return at, 0, None


def _quicklist2(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    for _ in range(count):
        at = _string(data, _length(data, at)[1])
    return at, 0, None


def _hash_ttl(data: bytes, at: int) -> _Value:
    """The first expiry, then the fields with theirs."""
    return _hash_ttl_pre_ga(data, at + 8)


def _hash_ttl_pre_ga(data: bytes, at: int) -> _Value:
    count, at = _length(data, at)
    begin = at
    parts = []
    for _ in range(count):
        start = at
        at = _strings(data, _length(data, at)[1], 2)
        parts.append(data[start:at])
    return at, begin, parts


def _hash_packed_ttl(data: bytes, at: int) -> _Value:
    return _string(data, at + 8), 0, None


def _stream(data: bytes, at: int, version: int) -> _Value:
    """Listpacks with their ids, numbers, and groups with consumers."""
    count, at = _length(data, at)
    at = _strings(data, at, 2 * count)
    for _ in range(3 if version == 1 else 8):
        at = _length(data, at)[1]
    groups, at = _length(data, at)
    for _ in range(groups):
        at = _string(data, at)
        for _ in range(2 if version == 1 else 3):
            at = _length(data, at)[1]
        pending, at = _length(data, at)
        for _ in range(pending):
            at = _length(data, at + 24)[1]
        consumers, at = _length(data, at)
        for _ in range(consumers):
            at = _string(data, at) + (8 if version < 3 else 16)
            owned, at = _length(data, at)
            at += 16 * owned
    return at, 0, None


_VALUES: dict[int, Callable[[bytes, int], _Value]] = {
    _LIST: _string_list,
    _SET: _set,
    _HASH: _hash,
    _SORTED_SET: _sorted_set,
    _QUICKLIST: _string_list,
    _QUICKLIST2: _quicklist2,
    _HASH_TTL_PRE_GA: _hash_ttl_pre_ga,
    _HASH_TTL: _hash_ttl,
    _HASH_PACKED_TTL: _hash_packed_ttl,
    15: partial(_stream, version=1),
    19: partial(_stream, version=2),
    21: partial(_stream, version=3),
}
_OF_VALKEY = (
    bytes(kind < 22 and one for kind, one in enumerate(_ONE_STRING)),
    {kind: value for kind, value in _VALUES.items() if kind < 22},
)
