"""zstd as a child process, streaming: compression while hashing, decompression as a bounded,
hashed stream.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from ..base.errors import ToolError

ZSTD = "zstd"
CHUNK = 1024 * 1024
_F_SETPIPE_SZ = 1031  # fcntl.h of Linux; Python names it from 3.10 on
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Digest:
    """Bytes and sha256 (hex) of a stream."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Compressed:
    """What `compress` read and wrote."""

    plain: Digest
    stored: Digest


class DamagedError(ToolError):
    """Compressed content is not what zstd wrote. What goes wrong on our side is a plain
    ToolError.
    """


class TooLongError(DamagedError):
    """A stream goes on after the size that it was announced with."""


class HashingReader(io.RawIOBase):
    """A stream that hashes and counts what is read through it, and ends in an error above `limit`
    bytes.
    """

    def __init__(self, source: BinaryIO, limit: int, progress: Progress | None = None) -> None:
        super().__init__()
        self._source = source
        self._limit = limit
        self._progress = progress
        self._hash = hashlib.sha256()
        self._size = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Read, hash and count. Raises TooLongError as soon as there is more than announced."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = CHUNK, /) -> bytes:
        """As `readinto`, without a copy of what is read."""
        data = self._source.read(size)
        self._size += len(data)
        if self._size > self._limit:
            raise TooLongError(f"more than the announced {self._limit} bytes")
        self._hash.update(data)
        if self._progress is not None and data:
            self._progress(self._size, self._limit)
        return data

    def drain(self) -> Digest:
        """Read to the end and say what all of it was."""
        scratch = bytearray(CHUNK)
        while self.readinto(scratch):
            pass
        return self.digest()

    def digest(self) -> Digest:
        """What was read so far."""
        return Digest(self._size, self._hash.hexdigest())


def binary() -> str:
    """The path of zstd. Raises ToolError when it is not installed."""
    found = shutil.which(ZSTD)
    if found is None:
        raise ToolError("zstd is not installed: apt-get install zstd")
    return found


def hash_file(file: BinaryIO, limit: int, progress: Progress | None = None) -> Digest:
    """Size and sha256 of an open file, from where it stands. Raises TooLongError above `limit`
    bytes.
    """
    return HashingReader(file, limit, progress).drain()


class _GoneError(ToolError):
    """zstd ended before all was written to it."""


class _CompressingReader(HashingReader):
    """As HashingReader; what is read is written to zstd too."""

    def __init__(
        self, source: BinaryIO, limit: int, progress: Progress | None, sink: IO[bytes]
    ) -> None:
        super().__init__(source, limit, progress)
        self._sink = sink

    def read(self, size: int = CHUNK, /) -> bytes:
        """Read, hash, count and compress."""
        data = super().read(size)
        try:
            self._sink.write(data)
        except BrokenPipeError:
            raise _GoneError("zstd ended early") from None
        return data


def compress(
    source: Path,
    target: Path,
    level: int,
    progress: Progress | None = None,
    look: Callable[[HashingReader], object] | None = None,
) -> Compressed:
    """Compress a file into a new one, made durable, hashing both. Raises ToolError.

    `look` reads the plain content on its way, while zstd works in a process beside this one: the
    file is read once for both. What it raises goes through, and what it leaves is read here.
    """
    size = source.stat().st_size
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        child = subprocess.Popen(
            [binary(), "--quiet", f"-{level}", "--check", "--stdout"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
        )
        if child.stdin is None or child.stderr is None:
            raise AssertionError("pipes were asked for")
        with child, source.open("rb", 0) as file:
            # With room for what is read at once, zstd works while the next is looked at. A limit of
            # this user leaves it as it was.
            with suppress(OSError):
                fcntl.fcntl(child.stdin, _F_SETPIPE_SZ, CHUNK)
            reader = _CompressingReader(file, size, progress, child.stdin)
            plain = None
            try:
                if look is not None:
                    look(reader)
                plain = reader.drain()
            except _GoneError:
                pass  # why is in its own words, read below
            except BaseException:
                child.kill()
                raise
            with suppress(BrokenPipeError):
                child.stdin.close()
            said = child.stderr.read()
        if child.returncode != 0 or plain is None:
            raise ToolError(f"zstd failed on {source}: {_said(said, child.returncode)}")
        os.fsync(output.fileno())
    with target.open("rb") as written:
        stored = hash_file(written, target.stat().st_size)
    return Compressed(plain=plain, stored=stored)


@contextmanager
def decompressed(
    file: BinaryIO, limit: int, progress: Progress | None = None
) -> Iterator[HashingReader]:
    """The plain content of an open compressed file as a stream of at most `limit` bytes.

    Raises DamagedError when zstd finds the file damaged; TooLongError comes from reading. A
    consumer's own error goes first. The file is read from its start. zstd keeps its default limit
    on memory, so that a hostile file cannot ask for more.
    """
    # The child shares the descriptor's offset, and Python's own buffer may have hidden a seek from
    # it.
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    child = subprocess.Popen(
        [binary(), "--quiet", "--decompress", "--stdout"],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    if child.stdout is None or child.stderr is None:
        raise AssertionError("pipes were asked for")
    with child:
        try:
            yield HashingReader(child.stdout, limit, progress)  # type: ignore[arg-type]
        except BaseException:
            child.kill()
            raise
        # What is left unread belongs to nobody: the consumer read to the end, or did not care.
        child.stdout.close()
        said = child.stderr.read()
    if child.returncode < 0:
        raise ToolError(f"zstd was ended by signal {-child.returncode}: no memory? run again")
    if child.returncode != 0:
        raise DamagedError(f"zstd cannot read it: {_said(said, child.returncode)}")


def decompress(file: BinaryIO, target: Path, limit: int) -> None:
    """Write the plain content of an open compressed file, of at most `limit` bytes, into a new
    file. Raises DamagedError when zstd finds the file damaged, TooLongError when there is more.

    zstd writes the file itself: going through this process would take a third longer.
    """
    os.lseek(file.fileno(), 0, os.SEEK_SET)

    def bounded() -> None:
        # The signal would only end it without a word.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        done = subprocess.run(
            [binary(), "--quiet", "--decompress", "--stdout", "--no-sparse"],
            stdin=file,
            stdout=output,
            stderr=subprocess.PIPE,
            preexec_fn=bounded,
            check=False,
        )
    if done.returncode < 0:
        raise ToolError(f"zstd was ended by signal {-done.returncode}: no memory? run again")
    if done.returncode != 0:
        said = _said(done.stderr, done.returncode)
        if target.stat().st_size >= limit:
            raise TooLongError(f"more than the announced {limit} bytes")
        if "Write error" in said:
            raise ToolError(f"{target}: cannot be written: {said}")
        raise DamagedError(f"zstd cannot read it: {said}")


def _said(stderr: bytes, code: int) -> str:
    lines = [
        line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()
    ]
    ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return " / ".join(lines[:2])[:200] or ended
