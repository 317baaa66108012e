"""The checksum at the end of an RDB: CRC-64 with Jones's polynomial, reflected, no inversion.

crcmod computes it in C where its extension is installed (Debian: `python3-crcmod`). Its pure Python
fallback takes one byte at a time, so without the extension the tables here are used instead: eight
bytes a step. What crcmod returns is trusted only after it has agreed with these tables.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Union

Buffer = Union[bytes, bytearray, memoryview]
Update = Callable[[Buffer, int], int]

# x^64 is implied; crcmod wants it written out.
_POLYNOMIAL = 0x1_AD93_D235_94C9_35A9
_REFLECTED = 0x95AC_9329_AC4B_C9B5
# Below this the further tables cost more to make than they save.
_WIDE_FROM = 1 << 12
# crc64("123456789") in Redis's own test of its implementation.
_CHECK = (b"123456789", 0xE9C6_D914_C4B8_D9CA)


@lru_cache(maxsize=1)
def _byte_table() -> list[int]:
    table = []
    for value in range(256):
        crc = value
        for _ in range(8):
            crc = crc >> 1 ^ (_REFLECTED if crc & 1 else 0)
        table.append(crc)
    return table


@lru_cache(maxsize=1)
def _tables() -> tuple[list[int], ...]:
    """Eight tables: what one byte adds when 7, 6, ... 0 further ones follow it."""
    table = _byte_table()
    tables = [table]
    for _ in range(7):
        tables.append([crc >> 8 ^ table[crc & 0xFF] for crc in tables[-1]])
    return tuple(reversed(tables))


def update_in_python(data: Buffer, crc: int = 0) -> int:
    """The checksum of what `crc` is the checksum of, followed by `data`; plain Python."""
    view = memoryview(data)
    whole = len(view) & ~7 if len(view) >= _WIDE_FROM else 0
    if whole:
        words = array("Q", view[:whole].tobytes())
        if sys.byteorder == "big":
            words.byteswap()
        t7, t6, t5, t4, t3, t2, t1, t0 = _tables()
        for word in words:
            a, b, c, d, e, f, g, h = (word ^ crc).to_bytes(8, "little")
            crc = t7[a] ^ t6[b] ^ t5[c] ^ t4[d] ^ t3[e] ^ t2[f] ^ t1[g] ^ t0[h]
    table = _byte_table()
    for byte in view[whole:]:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


def _update_in_c() -> Update | None:
    """crcmod's C function, or None where it is missing, not compiled or wrong."""
    try:
        module = import_module("crcmod.crcmod")
        if not module._usingExtension:
            return None
        function: Update = module.mkCrcFun(_POLYNOMIAL, initCrc=0, rev=True, xorOut=0)
        data, expected = _CHECK
        halves = function(memoryview(data)[4:], function(data[:4], 0))
        sample = bytes(range(256)) * 5
        if halves != expected or function(sample, expected) != update_in_python(sample, expected):
            return None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return function


_in_c = _update_in_c()

#: Whether the C function is used.
ACCELERATED = _in_c is not None

#: `update(data, crc)`: the checksum of what `crc` is the checksum of, followed by `data`.
update: Update = _in_c or update_in_python
