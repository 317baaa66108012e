"""Redis's packed encodings: many elements in one string.

Each `scan_*` goes through a whole string, refuses any deviation from the format and returns where
the elements are; what they are is read from there only when somebody asks. Formats: listpack.c,
ziplist.c, intset.c, zipmap.c and t_stream.c of Redis; all integers are little endian unless said
otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import lt
from typing import Any, Union

Element = Union[bytes, int]


class PackedError(ValueError):
    """A malformed string. `at` is the byte in it, `seen` what is there, `meaning` why not."""

    def __init__(self, at: int, seen: str, meaning: str) -> None:
        super().__init__(f"byte {at}: {seen}: {meaning}")
        self.at = at
        self.seen = seen
        self.meaning = meaning


END = 0xFF

# --- listpack: total bytes (4), elements (2; 65535: unknown), elements, 0xFF. An element is its
# encoding with its data, then the length of that, to be read backwards (`_backlen`).

_LISTPACK_HEADER = 6
_UNKNOWN_COUNT = 0xFFFF
# Bytes of an integer's data by its encoding byte.
_LISTPACK_INTEGERS = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}
_LISTPACK_STRING_32 = 0xF0


def _listpack_sizes() -> bytes:
    """By first byte: the size of the element without backlen; 0 where that byte does not tell."""
    sizes = bytearray(256)
    for first in range(256):
        if first < 0x80:  # 0xxxxxxx: 7-bit unsigned integer
            sizes[first] = 1
        elif first < 0xC0:  # 10xxxxxx: string of up to 63 bytes
            sizes[first] = 1 + (first & 0x3F)
        elif first < 0xE0:  # 110xxxxx + 1: 13-bit signed integer
            sizes[first] = 2
        elif first in _LISTPACK_INTEGERS:
            sizes[first] = 1 + _LISTPACK_INTEGERS[first]
    return bytes(sizes)


_LISTPACK_SIZES = _listpack_sizes()


def _backlen(size: int) -> bytes:
    """What follows an element of `size` bytes. The limits are one short of seven-bit groups' own:
    that is how Redis writes them.
    """
    if size <= 127:
        return bytes((size,))
    groups = 2 if size < 16383 else 3 if size < 2097151 else 4 if size < 268435455 else 5
    encoded = [size >> 7 * group & 127 for group in reversed(range(groups))]
    return bytes([encoded[0], *(value | 128 for value in encoded[1:])])


def _long_listpack_size(data: bytes, at: int) -> int:
    first = data[at]
    if 0xE0 <= first < 0xF0:  # 1110xxxx + 1: string of up to 4095 bytes
        return 2 + ((first & 0x0F) << 8 | data[at + 1])
    if first == _LISTPACK_STRING_32:  # + 4: longer string
        return 5 + int.from_bytes(data[at + 1 : at + 5], "little")
    if first == END:
        raise PackedError(at, "the end mark 0xff", "it stands before the end of the listpack")
    raise PackedError(at, f"element encoding 0x{first:02x}", "listpacks have no such encoding")


def scan_listpack(data: bytes) -> list[int]:
    """Offsets of all elements. Raises PackedError."""
    # This loop and that of `scan_ziplist` are alike and unrolled on purpose: no call per element.
    if len(data) < _LISTPACK_HEADER + 1:
        raise PackedError(0, f"{len(data)} bytes", "a listpack has 7 at least")
    total, count = struct.unpack_from("<IH", data)
    if total != len(data):
        raise PackedError(0, f"a listpack of {total} bytes", f"{len(data)} are there")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a listpack ends with 0xff")
    offsets: list[int] = []
    add = offsets.append
    sizes = _LISTPACK_SIZES
    at = _LISTPACK_HEADER
    try:
        while at < end:
            size = sizes[data[at]] or _long_listpack_size(data, at)
            add(at)
            if size < 128:
                if data[at + size] != size:
                    break
                at += size + 1
            else:
                back = _backlen(size)
                if data[at + size : at + size + len(back)] != back:
                    break
                at += size + len(back)
    except IndexError:
        raise PackedError(at, "an element", "it goes past the end of the listpack") from None
    if at < end and at + size < end:
        raise PackedError(
            at,
            f"an element of {size} bytes",
            "the length for reading backwards that follows it is another",
        )
    if at != end:
        raise PackedError(offsets[-1], "an element", "it goes past the end of the listpack")
    if count not in (len(offsets), _UNKNOWN_COUNT):
        raise PackedError(4, f"{count} elements declared", f"{len(offsets)} are there")
    return offsets


def listpack_element(data: bytes, at: int) -> Element:
    """The element at an offset that `scan_listpack` gave."""
    first = data[at]
    if first < 0x80:
        return first
    if first < 0xC0:
        return data[at + 1 : at + 1 + (first & 0x3F)]
    if first < 0xE0:
        value = (first & 0x1F) << 8 | data[at + 1]
        return value - (1 << 13) if value & (1 << 12) else value
    if first < 0xF0:
        return data[at + 2 : at + 2 + ((first & 0x0F) << 8 | data[at + 1])]
    if first == _LISTPACK_STRING_32:
        return data[at + 5 : at + 5 + int.from_bytes(data[at + 1 : at + 5], "little")]
    size = _LISTPACK_INTEGERS[first]
    return int.from_bytes(data[at + 1 : at + 1 + size], "little", signed=True)


# --- ziplist: total bytes (4), offset of the last entry (4), entries (2; 65535: unknown), entries,
# 0xFF. An entry: length of the one before (1 byte, or 0xFE and 4), encoding, data.

_ZIPLIST_HEADER = 10
_ZIPLIST_INTEGERS = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}


def scan_ziplist(data: bytes) -> list[int]:
    """Offsets of the encoding bytes of all entries. Raises PackedError."""
    if len(data) < _ZIPLIST_HEADER + 1:
        raise PackedError(0, f"{len(data)} bytes", "a ziplist has 11 at least")
    total, tail, count = struct.unpack_from("<IIH", data)
    if total != len(data):
        raise PackedError(0, f"a ziplist of {total} bytes", f"{len(data)} are there")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a ziplist ends with 0xff")
    offsets: list[int] = []
    add = offsets.append
    at = last = _ZIPLIST_HEADER
    previous = 0
    try:
        while at < end:
            last = at
            first = data[at]
            if first < 0xFE:
                at += 1
            elif first == 0xFE:  # may hold a small number too: Redis does not shrink the field
                first = int.from_bytes(data[at + 1 : at + 5], "little")
                at += 5
            else:
                raise PackedError(at, "the end mark 0xff", "it stands before the ziplist's end")
            if first != previous:
                raise PackedError(
                    last, f"an entry after one of {first} bytes", f"that one has {previous}"
                )
            add(at)
            code = data[at]
            if code < 0x40:  # 00xxxxxx: string of up to 63 bytes
                at += 1 + code
            elif code < 0x80:  # 01xxxxxx + 1: up to 16383
                at += 2 + ((code & 0x3F) << 8 | data[at + 1])
            elif code == 0x80:  # + 4, big endian
                at += 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            elif 0xF1 <= code <= 0xFD:  # 0 to 12 in the byte itself
                at += 1
            elif code in _ZIPLIST_INTEGERS:
                at += 1 + _ZIPLIST_INTEGERS[code]
            else:
                raise PackedError(at, f"entry encoding 0x{code:02x}", "ziplists have no such one")
            previous = at - last
    except IndexError:
        raise PackedError(last, "an entry", "it goes past the end of the ziplist") from None
    if at > end:
        raise PackedError(last, "an entry", "it goes past the end of the ziplist")
    if tail != last:
        raise PackedError(4, f"last entry at byte {tail}", f"it is at byte {last}")
    if count not in (len(offsets), _UNKNOWN_COUNT):
        raise PackedError(8, f"{count} entries declared", f"{len(offsets)} are there")
    return offsets


def ziplist_element(data: bytes, at: int) -> Element:
    """The element at an offset that `scan_ziplist` gave."""
    code = data[at]
    if code < 0x40:
        return data[at + 1 : at + 1 + code]
    if code < 0x80:
        return data[at + 2 : at + 2 + ((code & 0x3F) << 8 | data[at + 1])]
    if code == 0x80:
        return data[at + 5 : at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")]
    if 0xF1 <= code <= 0xFD:
        return code - 0xF1
    size = _ZIPLIST_INTEGERS[code]
    return int.from_bytes(data[at + 1 : at + 1 + size], "little", signed=True)


# --- intset: bytes per integer (4), integers (4), integers in ascending order.

_INTSET_WIDTHS = {2: "h", 4: "i", 8: "q"}


def scan_intset(data: bytes) -> tuple[int, ...]:
    """The integers, in the order of the file. Raises PackedError."""
    if len(data) < 8:
        raise PackedError(0, f"{len(data)} bytes", "an intset has 8 at least")
    width, count = struct.unpack_from("<II", data)
    if width not in _INTSET_WIDTHS:
        raise PackedError(0, f"integers of {width} bytes", "an intset's have 2, 4 or 8")
    if len(data) != 8 + width * count:
        raise PackedError(
            4, f"{count} integers of {width} bytes", f"{len(data) - 8} bytes are there for them"
        )
    values: tuple[int, ...] = struct.unpack_from(f"<{count}{_INTSET_WIDTHS[width]}", data, 8)
    return values


def ascending(values: Sequence[Any]) -> bool:
    """Whether each value is greater than the one before."""
    return all(map(lt, values, values[1:]))


# --- zipmap: pairs (1; 254 or more: unknown), pairs, 0xFF. A length is 1 byte, or 0xFE and 4; the
# value's is followed by the number of unused bytes that follow the value.


def scan_zipmap(data: bytes) -> list[tuple[int, int]]:
    """Start and end of field, value, field, value, ... Raises PackedError."""
    if len(data) < 2:
        raise PackedError(0, f"{len(data)} bytes", "a zipmap has 2 at least")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a zipmap ends with 0xff")
    spans: list[tuple[int, int]] = []
    at = 1
    while at < end:
        start = at
        length = data[at]
        if length == END:
            raise PackedError(at, "the end mark 0xff", "it stands before the end of the zipmap")
        at += 1
        if length == 0xFE:
            length = int.from_bytes(data[at : at + 4], "little")
            at += 4
        unused = 0
        if len(spans) % 2:
            if at >= end:
                raise PackedError(start, "a value", "it goes past the end of the zipmap")
            unused = data[at]
            at += 1
        spans.append((at, at + length))
        at += length + unused
        if at > end:
            raise PackedError(start, "a field or value", "it goes past the end of the zipmap")
    if len(spans) % 2:
        raise PackedError(end, f"{len(spans)} strings", "fields and values come in pairs")
    if data[0] < 0xFE and data[0] != len(spans) // 2:
        raise PackedError(0, f"{data[0]} pairs declared", f"{len(spans) // 2} are there")
    return spans


# --- listpack of a stream: live entries, deleted ones, number of fields, their names, 0; then per
# entry: flags, id as two differences, [number of fields], values or names with values, and how many
# elements that was.

_ENTRY_DELETED = 1
_ENTRY_SAME_FIELDS = 2
_ENTRY_FLAGS = _ENTRY_DELETED | _ENTRY_SAME_FIELDS
#: A fault of a stream that every release loads.
STREAM_ORDER = "entries whose ids do not ascend"


def scan_stream(data: bytes) -> tuple[list[int], int, list[str]]:
    """Offsets of all elements of one listpack of a stream, how many live entries it has, and what
    is wrong with it that some releases load all the same.

    Raises PackedError.
    """
    offsets = scan_listpack(data)
    count = len(offsets)

    def integer(index: int, what: str) -> int:
        if index >= count:
            raise PackedError(len(data) - 1, "the end", f"{what} of a stream is missing")
        value = listpack_element(data, offsets[index])
        if isinstance(value, bytes):
            raise PackedError(offsets[index], "a string", f"{what} of a stream is an integer")
        return value

    def natural(index: int, what: str) -> int:
        value = integer(index, what)
        if value < 0:
            raise PackedError(offsets[index], str(value), f"{what} cannot be negative")
        return value

    live = natural(0, "the number of entries")
    deleted = natural(1, "the number of deleted entries")
    fields = natural(2, "the number of fields")
    index = 3 + fields
    if integer(index, "the master entry's end") != 0:
        raise PackedError(offsets[index], "not 0", "the master entry of a stream ends with 0")
    index += 1
    seen_deleted = 0
    seen = 0
    faults: list[str] = []
    before = (-1, -1)
    while index < count:
        first = index
        flags = natural(index, "an entry's flags")
        if flags & ~_ENTRY_FLAGS:
            raise PackedError(offsets[index], f"flags {flags}", "no stream entry has such flags")
        seen_deleted += flags & _ENTRY_DELETED
        entry = (
            integer(index + 1, "an entry's time"),
            integer(index + 2, "an entry's sequence number"),
        )
        if entry <= before and not faults:
            faults.append(STREAM_ORDER)
        before = entry
        if flags & _ENTRY_SAME_FIELDS:
            index += 3 + fields
        else:
            index += 4 + 2 * natural(index + 3, "an entry's number of fields")
        if integer(index, "an entry's number of elements") != index - first:
            raise PackedError(
                offsets[index], "another number", f"the stream entry has {index - first} elements"
            )
        index += 1
        seen += 1
    if seen != live + deleted or seen_deleted != deleted:
        faults.append(
            f"a listpack that declares {live} entries and {deleted} deleted ones,"
            f" where {seen - seen_deleted} and {seen_deleted} are"
        )
    return offsets, seen - seen_deleted, faults
