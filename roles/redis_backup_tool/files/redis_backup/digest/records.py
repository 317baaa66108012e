"""The digest of values: one number for all that an RDB says, however it is written down.

Two RDBs have the same digest when they hold the same databases, keys, expiries (absolute, in ms)
and values, and the same functions and module data. It does not depend on the order of keys, of
members of sets, of fields of hashes, nor on encodings (ziplist, listpack, intset, LZF, integers,
short and long forms), on idle times and frequencies, or on AUX fields. So it is the same for an RDB
and for what a server saves again after it has loaded it, unless a value got lost or changed.

`values-1`, the form of the digest that a manifest names:

* A *string* is written as Redis writes it uncompressed: the decimal form of an integer of 32 bits
  as 0xC0 to 0xC2 with 1, 2 or 4 bytes, else its length in the shortest form and its bytes. A
  *part* (element, member, field) always has length and bytes. A *number* has 8 bytes, one that may
  be missing 1 or 10; all are little endian.
* A *record* is one key: 0xFC and its expiry where it has one, the kind (0 string, 1 list, 2 set,
  3 sorted set, 4 hash, 5 stream, 6 module, 7 array), the key as a string, and the value.
* The value of a *list* is the number of its elements and the SHA-256 of them.
* A *set*, *sorted set* and *hash* is a multiset of tokens: a member; a member and its score, 8
  bytes (-0 as 0: Redis's own compact form has no other); a field and its value, behind 0xFE and
  the field's expiry where it has one. Up to 512 tokens: 1, their number, the tokens in order.
  More: 2, their number, their sum. The one or the other by their number alone.
* A *stream* is the SHA-256 of its entries (id, number of fields, fields and values, in the order of
  the entry), then last, first and greatest deleted id, entries ever added, and its groups in order
  of name: name, last id, entries read, pending entries, consumers in order of name with both
  times and what is pending for them, ids that were given back. Then how many messages it tells
  apart for how long, how many were added and refused; not the messages, which it forgets after
  seconds. What a version does not store is missing.
* An *array* is its cursor and the SHA-256 of its elements: index and string, or 0xFF and a float.
* A *module's* value is its name, the version of its encoding and its typed fields. Of a *vector
  set*, the nodes are a multiset: their number and the sum of their SHA-256, behind the fields
  before them. Redis reads them into a list from its front, so each load turns them around.
* Records and tokens of more than 128 bytes are replaced by 0xFF and their SHA-256.
* A *sum* is that of the BLAKE2b-512 of each, modulo 2^512 - 1: equal ones do not cancel out.
* The digest is the BLAKE2b-256 of number, number of keys and sum of every database in order, and
  of count and sum of the functions (0xF5, code) and of module data beside the keys (0xF7).

All of an RDB is never held: memory is bounded by the largest packed or compressed string in it.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from ..rdb.cursor import Cursor, RdbError, named
from ..rdb.packed import PackedError, no_tick
from ..rdb.values import (
    MODULE_UNSIGNED,
    VECTOR_SET,
    Array,
    Idempotence,
    Module,
    Stream,
    StreamId,
    Values,
    no_warning,
    types,
)

NAME = "values-1"
#: What a digest of this form looks like.
PATTERN = re.compile(r"values-1:[0-9a-f]{64}")

_EXPIRETIME_MS = 252
_EXPIRETIME = 253
_FREQ = 249
_IDLE = 248
_KINDS = {
    "string": 0,
    "list": 1,
    "set": 2,
    "zset": 3,
    "hash": 4,
    "stream": 5,
    "module": 6,
    "array": 7,
}
FUNCTION = b"\xf5"
_MODULE_DATA = b"\xf7"
_EXPIRING_FIELD = b"\xfe"
_HASHED = b"\xff"
# Where the length of an element would be.
_FLOAT = b"\xff"

_SHORT = 128
_SORTED = 512
_BATCH = 2048
BITS = 512
MODULUS = (1 << BITS) - 1
# Longer strings that are not compressed are hashed in pieces.
_PIECE = 1 << 20
# Bytes of a list or stream that are hashed at once.
_HELD = 1 << 16

_DECIMAL = re.compile(rb"(?:0|-?[1-9][0-9]{0,9})\Z")
_LENGTHS = [bytes((number,)) for number in range(64)]
_blake2b = hashlib.blake2b
_sha256 = hashlib.sha256
_score = struct.Struct("<d").pack


def _length(number: int) -> bytes:
    """A length in the shortest form of the RDB."""
    if number < 1 << 6:
        return _LENGTHS[number]
    if number < 1 << 14:
        return (0x4000 | number).to_bytes(2, "big")
    if number < 1 << 32:
        return b"\x80" + number.to_bytes(4, "big")
    return b"\x81" + number.to_bytes(8, "big")


def _string(data: bytes) -> bytes:
    """A string as Redis writes it when it does not compress."""
    if len(data) <= 11 and _DECIMAL.match(data):
        number = int(data)
        for code, size in ((b"\xc0", 1), (b"\xc1", 2), (b"\xc2", 4)):
            if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
                return code + number.to_bytes(size, "little", signed=True)
    return _length(len(data)) + data


def _part(data: bytes) -> bytes:
    return _length(len(data)) + data


def eight_bytes(number: int) -> bytes:
    """A number as it is written."""
    return number.to_bytes(8, "little")


def _optional(number: int | None) -> bytes:
    return b"\0" if number is None else b"\1" + number.to_bytes(9, "little", signed=True)


def _id(pair: StreamId | None) -> bytes:
    return b"\0" if pair is None else b"\1" + eight_bytes(pair[0]) + eight_bytes(pair[1])


def _short(data: bytes) -> bytes:
    return data if len(data) <= _SHORT else _HASHED + _sha256(data).digest()


def _batches(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The items, so many at a time."""
    source = iter(items)
    while batch := list(islice(source, _BATCH)):
        yield batch


def total(records: list[bytes]) -> int:
    """The sum of the hashes of records or tokens, none of them empty."""
    joined = b"".join(
        [
            _blake2b(
                record if len(record) <= _SHORT else _HASHED + _sha256(record).digest()
            ).digest()
            for record in records
        ]
    )
    # Numbers of 512 bits one behind the other are one number, which modulo 2^512 - 1 is their sum:
    # folding it in halves adds them all at once.
    number = int.from_bytes(joined, "little")
    while number > MODULUS:
        half = (number.bit_length() + 2 * BITS - 1) // (2 * BITS) * BITS
        number = (number & (1 << half) - 1) + (number >> half)
    return number % MODULUS


# --- values ---------------------------------------------------------------------------------------


def _ordered(tokens: Iterable[bytes]) -> bytes:
    """Number and hash of tokens whose order counts."""
    digest = _sha256()
    held = bytearray()
    count = 0
    for token in tokens:
        count += 1
        held += token
        if len(held) > _HELD:
            digest.update(held)
            held.clear()
    digest.update(held)
    return eight_bytes(count) + digest.digest()


def _unordered(count: int, tokens: Iterable[bytes]) -> bytes:
    """Number and content of tokens whose order does not count."""
    if count <= _SORTED:
        return b"\1" + eight_bytes(count) + b"".join(sorted(map(_short, tokens)))
    return b"\2" + eight_bytes(count) + _summed(tokens)[1]


def _summed(tokens: Iterable[bytes]) -> tuple[int, bytes]:
    """How many tokens there are, and their sum."""
    count = number = 0
    # Short ones alone are held: each may be as large as a string can be.
    for batch in _batches(map(_short, tokens)):
        count += len(batch)
        number += total(batch)
    return count, (number % MODULUS).to_bytes(BITS // 8, "little")


def _field(field: bytes, value: bytes, expiry: int | None) -> bytes:
    token = _length(len(field)) + field + _length(len(value)) + value
    return token if expiry is None else _EXPIRING_FIELD + eight_bytes(expiry) + token


def _entry(number: StreamId, pairs: list[tuple[bytes, bytes]]) -> bytes:
    fields = b"".join([_part(field) + _part(value) for field, value in pairs])
    return eight_bytes(number[0]) + eight_bytes(number[1]) + eight_bytes(len(pairs)) + fields


def _pending(number: StreamId, time: int, deliveries: int) -> bytes:
    return eight_bytes(number[0]) + eight_bytes(number[1]) + _optional(time) + _optional(deliveries)


def _array_element(index: int, element: bytes | float) -> bytes:
    content = _part(element) if isinstance(element, bytes) else _FLOAT + _score(element)
    return eight_bytes(index) + content


def _module_field(code: int, value: int | bytes) -> bytes:
    return bytes((code,)) + (_optional(value) if isinstance(value, int) else _part(value))


# SAVE_FLAG_HAS_PROJMATRIX and SAVE_FLAG_HAS_ATTRIBS of vset.c
_PROJECTED = 1
_WITH_ATTRIBUTES = 2


def _vector_set(items: Iterable[tuple[int, int | bytes]]) -> bytes:
    """The fields of a vector set as VectorSetRdbSave() of Redis's vset.c writes them: dimension,
    number of nodes, configuration, flags, with a projection its dimension and matrix; then node by
    node the element, with attributes its attribute, the vector, and a number with so many numbers.
    """
    fields = iter(items)
    head = list(islice(fields, 4))
    flags = head[3][1] if len(head) == 4 and head[3][0] == MODULE_UNSIGNED else 0
    if not isinstance(flags, int):
        raise AssertionError(flags)
    if flags & _PROJECTED:
        head += islice(fields, 2)
    strings = 3 if flags & _WITH_ATTRIBUTES else 2
    nodes = (_vector_node(first, fields, strings) for first in fields)
    count, sums = _summed(nodes)
    return b"".join(_module_field(*field) for field in head) + eight_bytes(count) + sums


def _vector_node(
    first: tuple[int, int | bytes], rest: Iterator[tuple[int, int | bytes]], strings: int
) -> bytes:
    """The hash of a node that begins with a field and has so many strings.

    Raises PackedError when the fields end before the node does.
    """
    digest = _sha256()
    number = 0
    for code, value in chain([first], islice(rest, strings)):
        digest.update(_module_field(code, value))
        number = value if isinstance(value, int) else 0
    left = number
    while left and (field := next(rest, None)):
        digest.update(_module_field(*field))
        left -= 1
    if left:
        raise PackedError(
            0, f"a node of a vector set with {number} numbers", f"{left} of them are missing"
        )
    return digest.digest()


def gather(part: str, count: int | None, items: Iterable[Any]) -> bytes:
    """The parts of a value as bytes: what `Values` is given to do with them."""
    if part == "list":
        return _ordered(map(_part, items))
    if part == "entries":
        return _ordered(_entry(*item) for item in items)
    if part == "pending":
        return _ordered(_pending(*item) for item in items)
    if part == "owned":
        return _ordered(eight_bytes(first) + eight_bytes(second) for first, second in items)
    if part == "array":
        return _ordered(_array_element(*item) for item in items)
    if part == "fields":
        return _ordered(_module_field(*item) for item in items)
    if part == VECTOR_SET:
        return _vector_set(items)
    if count is None:
        raise AssertionError(part)
    if part == "set":
        return _unordered(count, map(_part, items))
    if part == "zset":
        # -0.0 + 0.0 is 0.0
        return _unordered(count, (_part(member) + _score(score + 0.0) for member, score in items))
    if part != "hash":
        raise AssertionError(part)
    return _unordered(count, (_field(*item) for item in items))


def _kept(idempotence: Idempotence) -> tuple[int, ...]:
    """What lasts of a stream's idempotence: what it remembers of its producers it forgets by
    itself, after seconds.
    """
    return (idempotence.seconds, idempotence.maximum, idempotence.added, idempotence.duplicates)


def _stream(stream: Stream) -> bytes:
    groups = []
    for group in stream.groups:
        consumers = sorted(
            _part(consumer.name)
            + _optional(consumer.seen)
            + _optional(consumer.active)
            + consumer.pending
            for consumer in group.consumers
        )
        groups.append(
            _part(group.name)
            + _id(group.last_id)
            + _optional(group.entries_read)
            + group.pending
            + eight_bytes(len(consumers))
            + b"".join(consumers)
            + b"".join(map(_id, group.released))
        )
    return b"".join(
        (
            stream.entries,
            _id(stream.last_id),
            _id(stream.first_id),
            _id(stream.max_deleted_id),
            _optional(stream.entries_added),
            eight_bytes(len(groups)),
            *sorted(groups),
            *([] if stream.idempotence is None else map(eight_bytes, _kept(stream.idempotence))),
        )
    )


def hashed(record: bytes) -> bytes:
    """What the sum of records beside the keys is made of."""
    return _blake2b(_short(record)).digest()


def function(code: bytes) -> bytes:
    """The record of a library of functions."""
    return FUNCTION + _part(code)


def module_data(name: str, encoding: int, when: int, fields: bytes) -> bytes:
    """The record of what a module wrote beside the keys; `fields` as `gather` makes them."""
    return _MODULE_DATA + _part(name.encode()) + eight_bytes(encoding) + eight_bytes(when) + fields


class Records:
    """The records of one RDB, read where the cursor stands."""

    def __init__(
        self, cursor: Cursor, version: int, warn: Callable[[str], None] = no_warning
    ) -> None:
        self._cursor = cursor
        #: Readers of values that give them as the digest wants them.
        self.values = Values(cursor, version, True, gather, warn)
        self._types = types(version)
        #: The key of the last record.
        self.key = b""
        #: Whether the last record had an expiry.
        self.expires = False
        self._readers: dict[int, Callable[[], Any]] = {
            number: getattr(self.values, kind.method) for number, kind in self._types.items()
        }

    def next(self) -> bytes:
        """The record that begins at the cursor, short or hashed. Raises RdbError."""
        cursor = self._cursor
        expiry = b""
        while True:
            at = cursor.at()
            code = cursor.byte("a key")
            if code == _EXPIRETIME_MS:
                expiry = b"\xfc" + cursor.take(8, "a key's expiry")
            elif code == _EXPIRETIME:
                seconds = int.from_bytes(cursor.take(4, "a key's expiry"), "little", signed=True)
                expiry = b"\xfc" + (seconds * 1000).to_bytes(8, "little", signed=True)
            elif code == _FREQ:
                cursor.byte("a key's frequency")
            elif code == _IDLE:
                cursor.length("a key's idle time")
            else:
                break
        self.expires = bool(expiry)
        read = self._readers.get(code)
        if read is None:
            raise RdbError(at, f"type {code}", "a key was expected here: a fault of the tool")
        kind = self._types[code].kind
        self.key = cursor.string("a key")
        begin = expiry + bytes((_KINDS[kind],)) + _string(self.key)
        if kind == "string":
            size = cursor.plain_size("a value")
            if size is None:
                return _short(begin + _string(read()))
            if size <= _PIECE:
                return _short(begin + _string(cursor.take(size, "a value")))
            digest = _sha256(begin + _length(size))
            for piece in cursor.pieces(size, "a value"):
                digest.update(piece)
            return _HASHED + digest.digest()
        try:
            value = read()
        except RdbError as error:
            raise error.of(named(self.key)) from None
        if isinstance(value, Stream):
            value = _stream(value)
        elif isinstance(value, Module):
            name = _part(value.name.encode()) + eight_bytes(value.encoding_version)
            value = name + value.fields
        elif isinstance(value, Array):
            value = _optional(value.cursor) + value.elements
        return _short(begin + value)


def _nothing(_size: int) -> bytes:
    return b""


def of_block(version: int, data: bytes, tick: Callable[[], None] = no_tick) -> tuple[int, int]:
    """Number and sum of the records of keys that `data`, a part of an RDB of that version, holds
    from its first byte to its last. Raises RdbError, whose place is that in `data`, and what `tick`
    raises, which is called now and then.
    """
    cursor = Cursor(_nothing, len(data), None, tick=tick)
    cursor.buf = data
    records = Records(cursor, version)
    count = sums = at = 0
    end = len(data)
    found: list[bytes] = []
    while at < end:
        if not found:
            tick()
        at = _plain_strings(data, at, found)
        if at < end and len(found) < _BATCH:
            cursor.pos = at
            found.append(records.next())
            at = cursor.pos
        if len(found) >= _BATCH:
            count += len(found)
            sums += total(found)
            found.clear()
    if at != end:
        raise RdbError(end, "the end", "a record goes past it: a fault of the tool")
    return count + len(found), (sums + total(found)) % MODULUS


def _plain_strings(data: bytes, at: int, found: list[bytes]) -> int:
    """Add the records of strings that stand in `data` as the digest wants them. Returns where that
    ends: at a record that has to be read, at the end, or when there are enough.

    What Redis never writes (lengths longer than needed, integers as text) is left to `Records`.
    """
    # Unrolled on purpose, as the walk is (`rdb.walker`): no call per string.
    start = at
    add = found.append
    room = _BATCH - len(found)
    try:
        while room > 0:
            room -= 1
            start = begin = at
            kind = data[at]
            if kind:
                if kind == _EXPIRETIME_MS:
                    at += 9
                    kind = data[at]
                if kind:
                    begin = at
                    if kind == _FREQ:
                        at += 2
                    elif kind == _IDLE:
                        size = data[at + 1]
                        if size == 0x81:
                            return start
                        at += 2 if size < 0x40 else 3 if size < 0x80 else 6
                    else:
                        return start
                    if data[at]:
                        return start
                    prefix = data[start:begin]
                    begin = at
                else:
                    prefix = b""
            else:
                prefix = b""
            size = data[at + 1]
            if size < 0x40:
                if size < 12 and data[at + 2] < 58:
                    return start
                at += 2 + size
            elif size < 0x80:
                size = (size & 0x3F) << 8 | data[at + 2]
                if size < 0x40:
                    return start
                at += 3 + size
            elif size == 0xC0:
                at += 3
            elif size == 0xC2 and data[at + 5] not in (0, 255):
                at += 6
            elif size == 0xC1 and data[at + 3] not in (0, 255):
                at += 4
            else:
                return start
            size = data[at]
            if size < 0x40:
                if size < 12 and data[at + 1] < 58:
                    return start
                at += 1 + size
            elif size < 0x80:
                size = (size & 0x3F) << 8 | data[at + 1]
                if size < 0x40:
                    return start
                at += 2 + size
            elif size == 0xC0:
                at += 2
            elif size == 0xC2 and data[at + 4] not in (0, 255):
                at += 5
            elif size == 0xC1 and data[at + 2] not in (0, 255):
                at += 3
            else:
                return start
            add(prefix + data[begin:at] if prefix else data[begin:at])
    except IndexError:
        # The end, or an empty string right before it.
        return start
    return at
