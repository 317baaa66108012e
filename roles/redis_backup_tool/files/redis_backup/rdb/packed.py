"""Redis's packed encodings: many elements in one string.

Each `scan_*` goes through a whole string and refuses any deviation from the format; the elements
are read, one by one, only when somebody asks for them. Formats: listpack.c, ziplist.c, intset.c,
zipmap.c and t_stream.c of Redis; all integers are little endian unless said otherwise.

A string of some bytes in the file can stand for many megabytes (LZF). So every function that goes
through one calls `tick` about every 64 KiB, and what that raises comes out.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Union

Element = Union[bytes, int]
#: Called now and then.
Tick = Callable[[], None]

# Bytes, or elements, from one tick to the next.
_STEP = 1 << 16


def no_tick() -> None:
    """Where nobody wants to be called."""


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


# Elements of one size, one behind the other, are compared at once: their first bytes with what such
# an element begins with, and the lengths behind them. So many at first, and twice as many each time
# that they are; where they are not, so many elements are looked at one by one before the next try.
_RUN = 16
_RUN_MOST = 1 << 16
_SINGLE = 256
# Bytes that are worth the try.
_LONG = 1024


def _first_bytes(sizes: bytes) -> list[bytes]:
    """By size: what an element of that size begins with, for bytes.translate() to delete."""
    return [
        bytes(first for first in range(256) if sizes[first] == size)
        for size in range(max(sizes) + 1)
    ]


_LISTPACK_FIRSTS = _first_bytes(_LISTPACK_SIZES)


def scan_listpack(data: bytes, tick: Tick = no_tick) -> int:
    """The number of its elements. Raises PackedError."""
    # This loop and that of `scan_ziplist` are alike and unrolled on purpose: no call per element.
    if len(data) < _LISTPACK_HEADER + 1:
        raise PackedError(0, f"{len(data)} bytes", "a listpack has 7 at least")
    total, declared = struct.unpack_from("<IH", data)
    if total != len(data):
        raise PackedError(0, f"a listpack of {total} bytes", f"{len(data)} are there")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a listpack ends with 0xff")
    sizes = _LISTPACK_SIZES
    count = size = 0
    at = last = _LISTPACK_HEADER
    run = _RUN
    try:
        while at < end:
            tick()
            size = sizes[data[at]]
            number = min(run, (end - at) // (size + 1)) if size and end - at > _LONG else 0
            stop = at + number * (size + 1)
            if (
                number > 1
                and data[at + size : stop : size + 1] == bytes((size,)) * number
                and not data[at : stop : size + 1].translate(None, _LISTPACK_FIRSTS[size])
            ):
                count += number
                last = stop - size - 1
                at = stop
                run = min(2 * run, _RUN_MOST)
                continue
            run = _RUN
            single = _SINGLE
            while at < end and single:
                last = at
                single -= 1
                size = sizes[data[at]] or _long_listpack_size(data, at)
                if size < 128:
                    if data[at + size] != size:
                        break
                    at += size + 1
                else:
                    back = _backlen(size)
                    if data[at + size : at + size + len(back)] != back:
                        break
                    at += size + len(back)
            else:
                count += _SINGLE - single
                continue
            break
    except IndexError:
        raise PackedError(last, "an element", "it goes past the end of the listpack") from None
    if at < end and at + size < end:
        raise PackedError(
            at,
            f"an element of {size} bytes",
            "the length for reading backwards that follows it is another",
        )
    if at != end:
        raise PackedError(last, "an element", "it goes past the end of the listpack")
    if declared not in (count, _UNKNOWN_COUNT):
        raise PackedError(4, f"{declared} elements declared", f"{count} are there")
    return count


# The integers that are one byte, as they are read and as text.
_SMALL: tuple[Sequence[Element], Sequence[Element]] = (
    range(128),
    [b"%d" % number for number in range(128)],
)


def listpack_elements(data: bytes, text: bool, tick: Tick = no_tick) -> Iterator[Element]:
    """The elements of a listpack that `scan_listpack` found sound, integers as text or not."""
    small = _SMALL[text]
    end = len(data) - 1
    at = _LISTPACK_HEADER
    while at < end:
        tick()
        stop = min(end, at + _STEP)
        while at < stop:
            first = data[at]
            if first < 0x80:
                yield small[first]
                at += 2
            elif first < 0xC0:
                begin = at + 1
                at = begin + (first & 0x3F)
                yield data[begin:at]
                at += 1
            elif first < 0xE0:
                value = (first & 0x1F) << 8 | data[at + 1]
                if value & (1 << 12):
                    value -= 1 << 13
                yield b"%d" % value if text else value
                at += 3
            elif first <= _LISTPACK_STRING_32:
                size = _long_listpack_size(data, at)
                yield data[at + (2 if first < 0xF0 else 5) : at + size]
                at += size + len(_backlen(size))
            else:
                size = _LISTPACK_INTEGERS[first]
                value = int.from_bytes(data[at + 1 : at + 1 + size], "little", signed=True)
                yield b"%d" % value if text else value
                at += size + 2


# --- ziplist: total bytes (4), offset of the last entry (4), entries (2; 65535: unknown), entries,
# 0xFF. An entry: length of the one before (1 byte, or 0xFE and 4), encoding, data.

_ZIPLIST_HEADER = 10
_ZIPLIST_INTEGERS = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}


def _ziplist_sizes() -> bytes:
    """By first byte of the encoding: the size of the entry, whose first field has one byte; 0 where
    that byte does not tell.
    """
    sizes = bytearray(256)
    for code in range(256):
        if code < 0x40:  # 00xxxxxx: string of up to 63 bytes
            sizes[code] = 2 + code
        elif 0xF1 <= code <= 0xFD:  # 0 to 12 in the byte itself
            sizes[code] = 2
        elif code in _ZIPLIST_INTEGERS:
            sizes[code] = 2 + _ZIPLIST_INTEGERS[code]
    return bytes(sizes)


_ZIPLIST_SIZES = _ziplist_sizes()
_ZIPLIST_FIRSTS = _first_bytes(_ZIPLIST_SIZES)


def scan_ziplist(data: bytes, tick: Tick = no_tick) -> int:
    """The number of its entries. Raises PackedError."""
    if len(data) < _ZIPLIST_HEADER + 1:
        raise PackedError(0, f"{len(data)} bytes", "a ziplist has 11 at least")
    total, tail, declared = struct.unpack_from("<IIH", data)
    if total != len(data):
        raise PackedError(0, f"a ziplist of {total} bytes", f"{len(data)} are there")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a ziplist ends with 0xff")
    sizes = _ZIPLIST_SIZES
    count = previous = 0
    at = last = _ZIPLIST_HEADER
    run = _RUN
    try:
        while at < end:
            tick()
            # Entries of one size are compared at once, as in a listpack.
            number = 0
            if 0 < previous < 0xFE and end - at > _LONG:
                number = min(run, (end - at) // previous)
            stop = at + number * previous
            if (
                number > 1
                and sizes[data[at + 1]] == previous
                and data[at:stop:previous] == bytes((previous,)) * number
                and not data[at + 1 : stop : previous].translate(None, _ZIPLIST_FIRSTS[previous])
            ):
                count += number
                last = stop - previous
                at = stop
                run = min(2 * run, _RUN_MOST)
                continue
            run = _RUN
            single = _SINGLE
            while at < end and single:
                last = at
                single -= 1
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
                code = data[at]
                if code < 0x40:
                    at += 1 + code
                elif code < 0x80:  # 01xxxxxx + 1: up to 16383
                    at += 2 + ((code & 0x3F) << 8 | data[at + 1])
                elif code == 0x80:  # + 4, big endian
                    at += 5 + int.from_bytes(data[at + 1 : at + 5], "big")
                elif 0xF1 <= code <= 0xFD:
                    at += 1
                elif code in _ZIPLIST_INTEGERS:
                    at += 1 + _ZIPLIST_INTEGERS[code]
                else:
                    raise PackedError(at, f"entry encoding 0x{code:02x}", "ziplists have no such")
                previous = at - last
            count += _SINGLE - single
    except IndexError:
        raise PackedError(last, "an entry", "it goes past the end of the ziplist") from None
    if at > end:
        raise PackedError(last, "an entry", "it goes past the end of the ziplist")
    if tail != last:
        raise PackedError(4, f"last entry at byte {tail}", f"it is at byte {last}")
    if declared not in (count, _UNKNOWN_COUNT):
        raise PackedError(8, f"{declared} entries declared", f"{count} are there")
    return count


def ziplist_elements(data: bytes, text: bool, tick: Tick = no_tick) -> Iterator[Element]:
    """The elements of a ziplist that `scan_ziplist` found sound, integers as text or not."""
    small = _SMALL[text]
    end = len(data) - 1
    at = _ZIPLIST_HEADER
    while at < end:
        tick()
        stop = min(end, at + _STEP)
        while at < stop:
            at += 1 if data[at] < 0xFE else 5
            code = data[at]
            if code < 0x40:
                begin = at + 1
                at = begin + code
                yield data[begin:at]
            elif code < 0x80:
                begin = at + 2
                at = begin + ((code & 0x3F) << 8 | data[at + 1])
                yield data[begin:at]
            elif code == 0x80:
                begin = at + 5
                at = begin + int.from_bytes(data[at + 1 : begin], "big")
                yield data[begin:at]
            elif 0xF1 <= code <= 0xFD:
                at += 1
                yield small[code - 0xF1]
            else:
                begin = at + 1
                at = begin + _ZIPLIST_INTEGERS[code]
                value = int.from_bytes(data[begin:at], "little", signed=True)
                yield b"%d" % value if text else value


# --- intset: bytes per integer (4), integers (4), integers in ascending order.

_INTSET_WIDTHS = {2: "h", 4: "i", 8: "q"}


def scan_intset(data: bytes) -> Sequence[int]:
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
    values = array(_INTSET_WIDTHS[width], data[8:])
    if sys.byteorder == "big":
        values.byteswap()
    return values


def ascending(values: Sequence[int], tick: Tick = no_tick) -> bool:
    """Whether each value is greater than the one before."""
    for begin in range(0, len(values), _STEP):
        tick()
        some = values[begin : begin + _STEP + 1]
        if not all(map(lt, some, some[1:])):
            return False
    return True


# --- zipmap: pairs (1; 254 or more: unknown), pairs, 0xFF. A length is 1 byte, or 0xFE and 4; the
# value's is followed by the number of unused bytes that follow the value.


def scan_zipmap(data: bytes, tick: Tick = no_tick) -> list[tuple[int, int]]:
    """Start and end of field, value, field, value, ... Raises PackedError."""
    if len(data) < 2:
        raise PackedError(0, f"{len(data)} bytes", "a zipmap has 2 at least")
    end = len(data) - 1
    if data[end] != END:
        raise PackedError(end, f"0x{data[end]:02x}", "a zipmap ends with 0xff")
    spans: list[tuple[int, int]] = []
    at = 1
    while at < end:
        if not len(spans) % _STEP:
            tick()
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
_ENTRY_FLAGS = (0, 1, 2, 3)
#: A fault of a stream that every release loads.
STREAM_ORDER = "entries whose ids do not ascend"


class StreamListpack:
    """One listpack of a stream, whose entries are read once, by `entries`. After that, `live` is
    how many there are that are not deleted, and `faults` what is wrong that some releases load all
    the same.
    """

    def __init__(self, data: bytes, tick: Tick) -> None:
        self._count = scan_listpack(data, tick)
        self._left = self._count
        self._elements = listpack_elements(data, False, tick)
        self.live = 0
        self.faults: list[str] = []

    def _error(self, seen: str, meaning: str) -> PackedError:
        return PackedError(0, f"element {self._count - self._left}, {seen}", meaning)

    def _integer(self, what: str) -> int:
        value = next(self._elements, None)
        if value is None:
            raise self._error("the end", f"{what} of a stream is missing")
        self._left -= 1
        if isinstance(value, bytes):
            raise self._error("a string", f"{what} of a stream is an integer")
        return value

    def _natural(self, what: str) -> int:
        value = self._integer(what)
        if value < 0:
            raise self._error(str(value), f"{what} cannot be negative")
        return value

    def _strings(self, number: int, what: str, wanted: bool) -> list[bytes]:
        """So many strings; none where nobody wants them."""
        if number > self._left:
            raise self._error("the end", f"{what} of a stream are missing")
        self._left -= number
        if wanted:
            return [
                element if isinstance(element, bytes) else b"%d" % element
                for element in islice(self._elements, number)
            ]
        deque(islice(self._elements, number), 0)
        return []

    def entries(self, wanted: bool) -> Iterator[tuple[int, int, list[tuple[bytes, bytes]]]]:
        """The entries that are not deleted, none where nobody wants them: the two differences of
        the id to that of the listpack, and the fields. Raises PackedError.
        """
        declared = self._natural("the number of entries"), self._natural("the number of deleted")
        fields = self._natural("the number of fields")
        names = self._strings(fields, "names of fields", wanted)
        if self._integer("the master entry's end"):
            raise self._error("not 0", "the master entry of a stream ends with 0")
        # Unrolled on purpose: a stream has very many of these.
        take = self._elements.__next__
        deleted = 0
        before_time = before_sequence = -1
        ordered = True
        while self._left:
            if self._left < 4:
                raise self._error("the end", "an entry of a stream is missing parts")
            flags, time, sequence = take(), take(), take()
            self._left -= 3
            if isinstance(flags, bytes) or isinstance(time, bytes) or isinstance(sequence, bytes):
                raise self._error("a string", "flags, time and sequence number are integers")
            if flags not in _ENTRY_FLAGS:
                raise self._error(f"flags {flags}", "no stream entry has such flags")
            if time <= before_time and (time < before_time or sequence <= before_sequence):
                ordered = False
            before_time, before_sequence = time, sequence
            size = 3
            number = fields
            if not flags & _ENTRY_SAME_FIELDS:
                number = 2 * self._natural("an entry's number of fields")
                size = 4
            size += number
            if number >= self._left:
                raise self._error("the end", "an entry's fields or their number are missing")
            self._left -= number + 1
            if wanted and not flags & _ENTRY_DELETED:
                flat = [
                    element if isinstance(element, bytes) else b"%d" % element
                    for element in islice(self._elements, number)
                ]
                if flags & _ENTRY_SAME_FIELDS:
                    yield time, sequence, list(zip(names, flat))
                else:
                    yield time, sequence, list(zip(flat[::2], flat[1::2]))
            else:
                for _ in islice(self._elements, number):
                    pass
            if take() != size:
                raise self._error("another number", f"the stream entry has {size} elements")
            if flags & _ENTRY_DELETED:
                deleted += 1
            else:
                self.live += 1
        if not ordered:
            self.faults.append(STREAM_ORDER)
        if (self.live, deleted) != declared:
            self.faults.append(
                f"a listpack that declares {declared[0]} entries and {declared[1]} deleted ones,"
                f" where {self.live} and {deleted} are"
            )
