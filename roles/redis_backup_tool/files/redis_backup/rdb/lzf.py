"""Strict LZF decompression: the format of Redis's compressed strings.

A stream of runs. Control byte < 32: that many bytes plus one follow literally. Otherwise its upper
three bits are a length (7: one more byte adds to it) and its lower five with the next byte a
distance minus one: length + 2 bytes are copied from that far back in the output, overlapping or
not.

Every Debian redis-server depends on liblzf1, so where that library can be loaded it does the work;
what it refuses is gone through again in Python, which can tell what is wrong and where.
"""

from __future__ import annotations

import ctypes

from .packed import Tick, no_tick

# Bytes from one tick to the next.
_STEP = 1 << 16
# A back reference of three bytes stands for 264 at most, one of two for 8: no stream expands more.
MAX_EXPANSION = 88

_SAMPLE = b"\x02abc\xe0\x10\x02\x40\x00\x01yz"
_SAMPLE_PLAIN = b"abc" * 9 + b"aaaaa" + b"yz"


class LzfError(ValueError):
    """Not LZF, or not of the promised length. `at` is the byte of the input where it shows."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason


def decompress_in_python(data: bytes, size: int, tick: Tick = no_tick) -> bytes:
    """The `size` bytes that `data` stands for. Raises LzfError; never makes more than `size`.

    `tick` is called about every 64 KiB of the result, and what it raises comes out.
    """
    out = bytearray()
    at = 0
    end = len(data)
    start = 0
    told = _STEP
    try:
        while at < end:
            start = at
            control = data[at]
            at += 1
            if control < 32:
                at += control + 1
                if at > end:
                    raise LzfError(start, f"a run of {control + 1} bytes goes past the end")
                out += data[start + 1 : at]
            else:
                length = control >> 5
                if length == 7:
                    length += data[at]
                    at += 1
                length += 2
                distance = ((control & 0x1F) << 8 | data[at]) + 1
                at += 1
                source = len(out) - distance
                if source < 0:
                    raise LzfError(start, f"it refers {distance} bytes back, {len(out)} are there")
                if distance >= length:
                    out += out[source : source + length]
                else:
                    period = bytes(out[source:])
                    out += (period * (length // distance + 1))[:length]
            if len(out) > told:
                tick()
                told = len(out) + _STEP
            if len(out) > size:
                raise LzfError(start, f"it makes more than the {size} bytes that were promised")
    except IndexError:
        raise LzfError(start, "it ends inside a back reference") from None
    if len(out) != size:
        raise LzfError(end, f"it makes {len(out)} bytes where {size} were promised")
    return bytes(out)


class _Library:
    """lzf_decompress() of liblzf, with one output buffer that is kept for the next call."""

    def __init__(self) -> None:
        self._function = ctypes.CDLL("liblzf.so.1").lzf_decompress
        self._function.restype = ctypes.c_uint
        self._function.argtypes = (
            ctypes.c_char_p,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_uint,
        )
        self._out = ctypes.create_string_buffer(1 << 14)

    def makes(self, data: bytes, size: int) -> ctypes.Array[ctypes.c_char] | None:
        """A buffer that begins with the result, or None when there is not exactly `size` of it."""
        out = self._out
        if size > len(out):
            out = ctypes.create_string_buffer(size)
            if size <= 1 << 20:
                self._out = out
        return out if self._function(data, len(data), out, size) == size else None


def _load() -> _Library | None:
    try:
        library = _Library()
        out = library.makes(_SAMPLE, len(_SAMPLE_PLAIN))
        if out is None or out.raw[: len(_SAMPLE_PLAIN)] != _SAMPLE_PLAIN:
            return None
    except (OSError, AttributeError):
        return None
    return library


_library = _load()

#: Whether liblzf is used.
ACCELERATED = _library is not None

# liblzf counts in C's unsigned int.
_LIBRARY_LIMIT = 2**32 - 1


def _made_by_library(data: bytes, size: int) -> ctypes.Array[ctypes.c_char] | None:
    if size > len(data) * MAX_EXPANSION:
        raise LzfError(0, f"{len(data)} bytes of LZF cannot make the {size} that were promised")
    if _library is None or not size or max(size, len(data)) > _LIBRARY_LIMIT:
        return None
    return _library.makes(data, size)


def decompress(data: bytes, size: int, tick: Tick = no_tick) -> bytes:
    """The `size` bytes that `data` stands for. Raises LzfError when it stands for anything else."""
    out = _made_by_library(data, size)
    return decompress_in_python(data, size, tick) if out is None else ctypes.string_at(out, size)


def check(data: bytes, size: int, tick: Tick = no_tick) -> None:
    """Raise LzfError unless `data` stands for exactly `size` bytes."""
    if _made_by_library(data, size) is None:
        decompress_in_python(data, size, tick)
