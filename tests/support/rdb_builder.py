"""RDB files built byte by byte: encodings that no current server writes, and malformed ones.

Written from the format alone, apart from the tool's own reading of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from redis_backup.rdb import crc64

Element = bytes | int

SELECTDB, RESIZEDB, AUX, EOF = 254, 251, 250, 255
EXPIRETIME, EXPIRETIME_MS, FREQ, IDLE = 253, 252, 249, 248
MODULE_AUX, FUNCTION2, SLOT_INFO = 247, 245, 244
#: What six bits of a module's id stand for.
MODULE_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def length(number: int) -> bytes:
    """A length in its shortest form."""
    if number < 1 << 6:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((0x40 | number >> 8, number & 0xFF))
    if number < 1 << 32:
        return b"\x80" + struct.pack(">I", number)
    return b"\x81" + struct.pack(">Q", number)


def string(data: bytes) -> bytes:
    """A plain string."""
    return length(len(data)) + data


def integer(value: int) -> bytes:
    """A string that is stored as an integer."""
    for code, form, bits in ((0xC0, "<b", 7), (0xC1, "<h", 15), (0xC2, "<i", 31)):
        if -(1 << bits) <= value < 1 << bits:
            return bytes((code,)) + struct.pack(form, value)
    raise ValueError(value)


def lzf(data: bytes) -> bytes:
    """LZF: literal runs, and references for runs of one byte."""
    out = bytearray()
    at = 0
    while at < len(data):
        run = 1
        while at + run < len(data) and run < 260 and data[at + run] == data[at]:
            run += 1
        if run >= 5:
            rest = run - 3  # the first byte is literal; a reference's length counts from 2
            out += bytes((0, data[at]))
            out += bytes((rest << 5, 0)) if rest < 7 else bytes((0xE0, rest - 7, 0))
            at += run
        else:
            chunk = data[at : at + min(run, 32)]
            out += bytes((len(chunk) - 1,)) + chunk
            at += len(chunk)
    return bytes(out)


def compressed(data: bytes) -> bytes:
    """A string in LZF."""
    packed = lzf(data)
    return b"\xc3" + length(len(packed)) + length(len(data)) + packed


def ziplist_entry(value: Element) -> bytes:
    """Encoding and data."""
    if isinstance(value, bytes):
        if len(value) < 1 << 6:
            return bytes((len(value),)) + value
        if len(value) < 1 << 14:
            return bytes((0x40 | len(value) >> 8, len(value) & 0xFF)) + value
        return b"\x80" + struct.pack(">I", len(value)) + value
    if 0 <= value <= 12:
        return bytes((0xF1 + value,))
    for code, size in ((0xFE, 1), (0xC0, 2), (0xF0, 3), (0xD0, 4), (0xE0, 8)):
        if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
            return bytes((code,)) + value.to_bytes(size, "little", signed=True)
    raise ValueError(value)


def ziplist(values: Iterable[Element], count: int | None = None) -> bytes:
    """A ziplist; `count` in the header instead of the true one."""
    body = b""
    last = 0
    previous = 0
    number = 0
    for value in values:
        last = len(body)
        size = bytes((previous,)) if previous < 254 else b"\xfe" + struct.pack("<I", previous)
        entry = size + ziplist_entry(value)
        previous = len(entry)
        body += entry
        number += 1
    header = struct.pack("<IIH", len(body) + 11, 10 + last, number if count is None else count)
    return header + body + b"\xff"


def listpack_entry(value: Element) -> bytes:
    """Encoding and data, and the length of both."""
    if isinstance(value, bytes):
        if len(value) < 1 << 6:
            entry = bytes((0x80 | len(value),)) + value
        elif len(value) < 1 << 12:
            entry = bytes((0xE0 | len(value) >> 8, len(value) & 0xFF)) + value
        else:
            entry = b"\xf0" + struct.pack("<I", len(value)) + value
    elif 0 <= value < 1 << 7:
        entry = bytes((value,))
    elif -(1 << 12) <= value < 1 << 12:
        entry = bytes((0xC0 | (value >> 8 & 0x1F), value & 0xFF))
    else:
        for code, size in ((0xF1, 2), (0xF2, 3), (0xF3, 4), (0xF4, 8)):
            if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
                entry = bytes((code,)) + value.to_bytes(size, "little", signed=True)
                break
        else:
            raise ValueError(value)
    size = len(entry)
    if size < 128:
        return entry + bytes((size,))
    if size < 16383:
        return entry + bytes((size >> 7, size & 127 | 128))
    return entry + bytes((size >> 14, size >> 7 & 127 | 128, size & 127 | 128))


def listpack(values: Iterable[Element], count: int | None = None) -> bytes:
    """A listpack; `count` in the header instead of the true one."""
    entries = [listpack_entry(value) for value in values]
    number = min(len(entries), 65535) if count is None else count
    body = b"".join(entries)
    return struct.pack("<IH", len(body) + 7, number) + body + b"\xff"


def intset(values: Iterable[int], width: int = 2) -> bytes:
    """An intset, in the order given."""
    integers = list(values)
    return struct.pack("<II", width, len(integers)) + b"".join(
        value.to_bytes(width, "little", signed=True) for value in integers
    )


def zipmap(pairs: Iterable[tuple[bytes, bytes]], unused: int = 0) -> bytes:
    """A zipmap with so many unused bytes behind each value."""

    def size(data: bytes) -> bytes:
        return bytes((len(data),)) if len(data) < 254 else b"\xfe" + struct.pack("<I", len(data))

    strings = list(pairs)
    body = b"".join(
        size(field) + field + size(value) + bytes((unused,)) + value + b"\0" * unused
        for field, value in strings
    )
    return bytes((min(len(strings), 254),)) + body + b"\xff"


def stream_id(milliseconds: int, sequence: int = 0) -> bytes:
    """An id as it is in a stream's tree: 16 bytes, big endian."""
    return struct.pack(">QQ", milliseconds, sequence)


class Rdb:
    """An RDB in the making. Every method returns the object, to go on with."""

    def __init__(self, version: int = 9) -> None:
        # Valkey's numbers begin at 80.
        self._data = bytearray((b"REDIS%04d" if version < 80 else b"VALKEY%03d") % version)

    def raw(self, *parts: bytes) -> Rdb:
        """Bytes as they are."""
        for part in parts:
            self._data += part
        return self

    def opcode(self, code: int, *parts: bytes) -> Rdb:
        """An opcode with what belongs to it."""
        return self.raw(bytes((code,)), *parts)

    def aux(self, name: bytes, value: bytes) -> Rdb:
        """An AUX field."""
        return self.opcode(AUX, string(name), string(value))

    def db(self, number: int, keys: int, expires: int = 0) -> Rdb:
        """The beginning of a database."""
        return self.opcode(SELECTDB, length(number)).opcode(RESIZEDB, length(keys), length(expires))

    def key(self, kind: int, name: bytes, *value: bytes) -> Rdb:
        """A key with its type and value."""
        return self.opcode(kind, string(name), *value)

    def body(self) -> bytes:
        """What there is so far."""
        return bytes(self._data)

    def end(self) -> bytes:
        """The whole file, with end mark and checksum."""
        return sealed(bytes(self._data) + bytes((EOF,)))


def sealed(data: bytes) -> bytes:
    """The bytes with their checksum behind them."""
    return data + crc64.update_in_python(data).to_bytes(8, "little")


def resealed(data: bytes) -> bytes:
    """A whole file, changed, with a checksum that is right again."""
    return sealed(data[:-8])
