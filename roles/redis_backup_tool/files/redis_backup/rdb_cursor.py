"""Reading an RDB's bytes, lengths and strings; every fault is an error that names the place."""

from __future__ import annotations

from collections.abc import Callable

from . import crc64, lzf
from .errors import ToolError

Progress = Callable[[int, int], None]

CHECKSUM_SIZE = 8
_CHUNK = 1 << 20


class RdbError(ToolError):
    """The file is not a sound RDB. `offset` is the byte where that shows."""

    def __init__(self, offset: int, seen: str, meaning: str, name: str = "") -> None:
        super().__init__(f"{name + ': ' if name else ''}byte {offset}: {seen}: {meaning}")
        self.offset = offset
        self.seen = seen
        self.meaning = meaning


class Cursor:
    """A window that slides over the file. `buf[pos]` is the next byte; `pos` may lie beyond `buf`
    when bytes that nobody looks at were skipped.
    """

    def __init__(
        self, read: Callable[[int], bytes | None], size: int | None, progress: Progress | None
    ) -> None:
        self._read = read
        self._progress = progress
        self.size = size
        self.received = 0
        self.buf = b""
        self.pos = 0
        self._base = 0
        # The last 8 bytes may be the checksum itself, which it does not cover.
        self._crc = 0
        self._held = b""

    def at(self) -> int:
        """Offset of the next byte in the file."""
        return self._base + self.pos

    def crc(self) -> int:
        """CRC-64 of everything received but the last 8 bytes."""
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
        self.received += len(chunk)
        covered = self._held + chunk
        self._crc = crc64.update(memoryview(covered)[:-CHECKSUM_SIZE], self._crc)
        self._held = covered[-CHECKSUM_SIZE:]
        if self._progress is not None:
            self._progress(self.received, self.size or 0)
        return chunk

    def more(self) -> bool:
        """Slide the window to the next byte and append what follows; False at the end."""
        chunk = self._chunk()
        kept = self.buf[self.pos :]
        dropped = len(self.buf) - len(kept)
        self._base += dropped
        self.pos -= dropped
        self.buf = kept + chunk
        return bool(chunk)

    def end(self, what: str) -> RdbError:
        """The error of a file that ends too early."""
        return RdbError(
            self.received, "the file ends", f"{what} is missing or incomplete: it was cut short"
        )

    def require(self, count: int, what: str) -> None:
        """Refuse a length that goes past the end of the file, where the end is known."""
        if self.size is not None and count > self.size - self.at():
            raise RdbError(
                self.at(),
                f"{what} of {count} bytes",
                f"only {max(0, self.size - self.at())} are left: cut short, or a damaged length",
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
                at, f"{what}: {number}", f"only {self.size - self.at()} bytes are left for them"
            )
        return number

    def string(self, what: str) -> bytes:
        """A string's bytes; an integer's decimal digits."""
        return self._string(what, True)

    def skip_string(self, what: str) -> None:
        """Go past a string; a compressed one is checked."""
        self._string(what, False)

    def _string(self, what: str, wanted: bool) -> bytes:
        at = self.at()
        first = self.byte(what)
        if first < 0xC0:
            self.pos -= 1
            size = self.length(what)
            if wanted:
                return self.take(size, what)
            self.skip(size, what)
            return b""
        if first < 0xC3:
            return b"%d" % int.from_bytes(self.take(1 << first - 0xC0, what), "little", signed=True)
        if first > 0xC3:
            raise RdbError(at, f"string encoding 0x{first:02x}", "RDB has no such encoding")
        compressed = self.length(f"the compressed length of {what}")
        size = self.length(f"the length of {what}")
        start = self.at()
        data = self.take(compressed, f"{what}, compressed,")
        try:
            if wanted:
                return lzf.decompress(data, size)
            lzf.check(data, size)
        except lzf.LzfError as error:
            raise RdbError(
                start + error.at, f"{what}, compressed (LZF)", f"{error.reason}: damaged"
            ) from None
        return b""

    def skip_strings(self, count: int, what: str, trailer: int = 0) -> None:
        """Go past `count` strings, each followed by `trailer` bytes that nobody looks at."""
        while count:
            buf = self.buf
            at = start = self.pos
            try:
                while count:
                    start = at
                    size = buf[at]
                    if size < 0x40:
                        at += 1 + size + trailer
                    elif size < 0x80:
                        at += 2 + ((size & 0x3F) << 8 | buf[at + 1]) + trailer
                    elif 0xC0 <= size < 0xC3:
                        at += 1 + (1 << size - 0xC0) + trailer
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
                self.skip(trailer, what)
                count -= 1


def text(data: bytes) -> str:
    """Bytes for people: what is not UTF-8 is escaped."""
    return data.decode("utf-8", "backslashreplace")
