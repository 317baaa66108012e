"""Reading an RDB's bytes, lengths and strings; every fault is an error that names the place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isnan
from struct import unpack
from typing import Protocol, TypeVar

from ..base.errors import ToolError
from . import crc64, lzf
from .packed import Tick, no_tick

Progress = Callable[[int, int], None]

_T = TypeVar("_T")

CHECKSUM_SIZE = 8
#: So many bytes of a key are shown.
KEY_SHOWN = 80
_CHUNK = 1 << 20
# More than a chunk and a record with two strings of less than 16 KiB: such a one always fits.
_PINNED = 8 << 20


class Source(Protocol):
    """What can be read from one end to the other."""

    def read(self, size: int, /) -> bytes | None:
        """Some bytes, about so many; none at the end."""


class RdbError(ToolError):
    """The file is not a sound RDB. `offset` is the byte where that shows."""

    def __init__(self, offset: int, seen: str, meaning: str, name: str = "") -> None:
        super().__init__(f"{name + ': ' if name else ''}byte {offset}: {seen}: {meaning}")
        self.offset = offset
        self.seen = seen
        self.meaning = meaning

    def of(self, whose: str) -> RdbError:
        """The same error, with whose value it is in."""
        return RdbError(self.offset, f"{whose}: {self.seen}", self.meaning)


class WindowFull(Exception):  # noqa: N818 - it is no error: who set the mark begins again
    """What is marked does not fit into the window."""


class Cursor:
    """A window that slides over the file. `buf[pos]` is the next byte; `pos` may lie beyond `buf`
    when bytes that nobody looks at were skipped.
    """

    def __init__(
        self,
        read: Callable[[int], bytes | None],
        size: int | None,
        progress: Progress | None,
        checksum: bool = True,
        tick: Tick = no_tick,
    ) -> None:
        self._read = read
        # Called with every chunk, every compressed string and within what is packed.
        self.tick = tick
        self.checksum = checksum
        self._progress = progress
        self.size = size
        self.received = 0
        self.buf = b""
        self.pos = 0
        self._base = 0
        # Where bytes begin that are still wanted when the window slides, None: at `pos`. With it
        # the window grows, up to `_PINNED`.
        self.mark: int | None = None
        # The last 8 bytes may be the checksum itself, which it does not cover.
        self._crc = 0
        self._held = b""

    def at(self) -> int:
        """Offset of the next byte in the file."""
        return self._base + self.pos

    def crc(self) -> int:
        """CRC-64 of everything received but the last 8 bytes; only with `checksum`."""
        return self._crc

    def _chunk(self) -> bytes:
        try:
            chunk = self._read(_CHUNK)
        except OSError as error:
            raise RdbError(
                self.received, "read error", f"{error.strerror or error}; the rest is unknown"
            ) from error
        if not chunk:
            return b""
        self.tick()
        self.received += len(chunk)
        if self.checksum:
            covered = self._held + chunk
            self._crc = crc64.update(memoryview(covered)[:-CHECKSUM_SIZE], self._crc)
            self._held = covered[-CHECKSUM_SIZE:]
        if self._progress is not None:
            self._progress(self.received, self.size or 0)
        return chunk

    def more(self) -> bool:
        """Slide the window to the next byte and append what follows; False at the end."""
        chunk = self._chunk()
        kept = self.buf[self.pos if self.mark is None else self.mark :]
        dropped = len(self.buf) - len(kept)
        self._base += dropped
        self.pos -= dropped
        self.buf = kept + chunk
        if self.mark is not None:
            self.mark -= dropped
            if len(self.buf) > _PINNED:
                raise WindowFull
        return bool(chunk)

    def end(self, what: str) -> RdbError:
        """The error of a file that ends too early."""
        missing = self.at() - self.received
        if missing > 0:
            what = f"a string that begins before has {missing} bytes more"
        else:
            what = f"{what} is missing or incomplete"
        return RdbError(
            self.received, "the file ends", f"{what}: it was cut short, or a length is damaged"
        )

    def require(self, count: int, what: str) -> None:
        """Refuse a length that goes past the end of the file, where the end is known."""
        if self.size is None or count <= self.size - self.at():
            return
        left = self.size - self.at()
        if left < 0:
            raise RdbError(self.size, "the file ends", f"{what} begins {-left} bytes behind it")
        raise RdbError(
            self.at(),
            f"{what} of {count} bytes",
            f"only {left} are left: it was cut short, or a length is damaged",
        )

    def skip(self, count: int, what: str) -> None:
        """Go past `count` bytes; where the end is not known, a file that lacks them is refused at
        the next read.
        """
        self.require(count, what)
        self.pos += count

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes. Memory is taken as they arrive, not as they are promised."""
        end = self.pos + count
        if end > len(self.buf):
            self.require(count, what)
            if self.mark is not None:
                return self._take_marked(count, what)
            while self.pos > len(self.buf):
                if not self.more():
                    raise self.end(what)
            parts = [self.buf[self.pos :]]
            have = len(parts[0])
            self._base += len(self.buf)
            self.buf = b""
            self.pos = 0
            while have < count:
                chunk = self._chunk()
                if not chunk:
                    raise self.end(what)
                parts.append(chunk)
                have += len(chunk)
                self._base += len(chunk)
            surplus = have - count
            if surplus:
                # the window is the last chunk, from where the value ends
                self.buf = parts[-1]
                self._base -= len(self.buf)
                self.pos = len(self.buf) - surplus
                parts[-1] = self.buf[: self.pos]
            return b"".join(parts)
        taken = self.buf[self.pos : end]
        self.pos = end
        return taken

    def _take_marked(self, count: int, what: str) -> bytes:
        while self.pos + count > len(self.buf):
            if not self.more():
                raise self.end(what)
        self.pos += count
        return self.buf[self.pos - count : self.pos]

    def marked(self) -> bytes:
        """The bytes from the mark to the next one, where the mark goes too."""
        if self.mark is None:
            raise AssertionError("no mark was set")
        while self.pos > len(self.buf):
            if not self.more():
                raise self.end("a string")
        data = self.buf[self.mark : self.pos]
        self.mark = self.pos
        return data

    def back(self, offset: int) -> None:
        """Go back to a byte between the mark and here."""
        self.pos = offset - self._base

    def plain_size(self, what: str) -> int | None:
        """Go past the length of a string that is stored as it is, and return it; None, with the
        cursor where it was, when it is an integer or compressed.
        """
        first = self.byte(what)
        self.pos -= 1
        return self.length(what) if first < 0xC0 else None

    def pieces(self, count: int, what: str) -> Iterator[bytes]:
        """The next `count` bytes, piece by piece."""
        self.require(count, what)
        while count:
            if self.pos >= len(self.buf) and not self.more():
                raise self.end(what)
            piece = self.buf[self.pos : self.pos + count]
            self.pos += len(piece)
            count -= len(piece)
            if piece:
                yield piece

    def byte(self, what: str) -> int:
        """The next byte."""
        while self.pos >= len(self.buf):
            if not self.more():
                raise self.end(what)
        value = self.buf[self.pos]
        self.pos += 1
        return value

    def length(self, what: str) -> int:
        """A length or other unsigned integer of up to 64 bits."""
        pos = self.pos
        try:
            first = self.buf[pos]
            if first < 0x40:
                self.pos = pos + 1
                return first
            if first < 0x80:
                value = (first & 0x3F) << 8 | self.buf[pos + 1]
                self.pos = pos + 2
                return value
        except IndexError:  # it goes past the window
            pass
        at = self.at()
        first = self.byte(what)
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | self.byte(what)
        if first == 0x80:
            return int.from_bytes(self.take(4, what), "big")
        if first == 0x81:
            return int.from_bytes(self.take(8, what), "big")
        if first < 0xC0:
            raise RdbError(at, f"length encoding 0x{first:02x}", "RDB has no such encoding")
        raise RdbError(at, f"string encoding 0x{first:02x}", f"{what} is a plain number")

    def count(self, what: str) -> int:
        """A number of elements, each of which takes a byte at least."""
        at = self.at()
        number = self.length(what)
        if self.size is not None and number > self.size - self.at():
            raise RdbError(
                min(at, self.size),
                f"{what}: {number}",
                f"only {max(0, self.size - self.at())} bytes are left for them",
            )
        return number

    def string(self, what: str) -> bytes:
        """A string's bytes; an integer's decimal digits."""
        first = self.byte(what)
        if first < 0xC0:
            self.pos -= 1
            return self.take(self.length(what), what)
        if first < 0xC3:
            return b"%d" % int.from_bytes(self.take(1 << first - 0xC0, what), "little", signed=True)
        return self._compressed(first, what, lzf.decompress)

    def head(self, size: int, what: str) -> bytes:
        """Go past a string, and return so much of its beginning; more of a compressed one."""
        whole = self.plain_size(what)
        if whole is None:
            return self.string(what)
        beginning = self.take(min(size, whole), what)
        self.skip(whole - len(beginning), what)
        return beginning

    def skip_string(self, what: str) -> None:
        """Go past a string; a compressed one is checked."""
        first = self.byte(what)
        if first < 0xC0:
            self.pos -= 1
            self.skip(self.length(what), what)
        elif first < 0xC3:
            self.skip(1 << first - 0xC0, what)
        else:
            self._compressed(first, what, lzf.check)

    def _compressed(self, first: int, what: str, expand: Callable[[bytes, int, Tick], _T]) -> _T:
        if first != 0xC3:
            raise RdbError(
                self.at() - 1, f"string encoding 0x{first:02x}", "RDB has no such encoding"
            )
        compressed = self.length(what)
        size = self.length(what)
        data = self.take(compressed, what)
        self.tick()
        try:
            return expand(data, size, self.tick)
        except lzf.LzfError as error:
            at = self.at() - compressed + error.at
            raise RdbError(at, f"{what}, compressed (LZF)", f"{error.reason}: damaged") from None

    def skip_strings(self, count: int, what: str) -> None:
        """Go past `count` strings."""
        # Unrolled on purpose: a call for each of them would cost a drill a multiple of its time.
        while count:
            buf = self.buf
            at = start = self.pos
            try:
                while count:
                    start = at
                    size = buf[at]
                    if size < 0x40:
                        at += 1 + size
                    elif size < 0x80:
                        at += 2 + ((size & 0x3F) << 8 | buf[at + 1])
                    elif 0xC0 <= size < 0xC3:
                        at += 1 + (1 << size - 0xC0)
                    else:
                        break
                    count -= 1
                self.pos = at
            except IndexError:
                self.pos = start
                if not self.more():
                    raise self.end(what) from None
                continue
            if count:
                self.skip_string(what)
                count -= 1

    def skip_members(self, count: int) -> None:
        """Go past `count` strings, each followed by a score of 8 bytes that must be a number."""
        # As above.
        while count:
            buf = self.buf
            at = start = self.pos
            try:
                while count:
                    start = at
                    size = buf[at]
                    if size < 0x40:
                        at += 1 + size
                    elif size < 0x80:
                        at += 2 + ((size & 0x3F) << 8 | buf[at + 1])
                    elif 0xC0 <= size < 0xC3:
                        at += 1 + (1 << size - 0xC0)
                    else:
                        break
                    # NaN and infinity have all bits of the exponent set
                    if buf[at + 7] & 0x7F == 0x7F:
                        break
                    at += 8
                    count -= 1
                self.pos = start if count else at
            except IndexError:
                self.pos = start
                if not self.more():
                    raise self.end("a member") from None
                continue
            if count:
                self.skip_string("a member")
                self.score()
                count -= 1

    def score(self) -> float:
        """A binary score, which must be a number."""
        at = self.at()
        score: float = unpack("<d", self.take(8, "a score"))[0]
        if isnan(score):
            raise RdbError(at, "a score that is not a number", "no sorted set has such a one")
        return score


def text(data: bytes) -> str:
    """Bytes for people: what is not UTF-8 is escaped."""
    return data.decode("utf-8", "backslashreplace")


def named(key: bytes) -> str:
    """A key for people: what cannot be printed is escaped, what is long is cut."""
    return f"key {text(key[:KEY_SHOWN])!r}{'...' if len(key) > KEY_SHOWN else ''}"


def unreadable(at: int, fault: Exception) -> RdbError:
    """What to raise for a fault that nobody thought of: nothing was proven, and one odd file must
    not end the work on others.
    """
    if isinstance(fault, MemoryError):
        # A few compressed bytes can promise a string of any size, and whoever sent them would have
        # this fail again and again.
        return RdbError(
            at,
            "a string that this process has no memory for",
            "damaged, or larger than what this machine can verify",
        )
    return RdbError(
        at,
        f"{type(fault).__name__}: {fault}"[:200],
        "this tool cannot read it: damaged, or a fault of the tool",
    )
