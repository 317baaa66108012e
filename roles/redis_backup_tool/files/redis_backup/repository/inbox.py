"""Looking into an inbox: its owner may have been taken over, so nothing in it is followed, trusted
or waited for.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..base.errors import ToolError
from ..formats import manifest as manifest_module
from ..formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES
from ..transport import zstd

LOST = "lost+found"
# What rsync calls a file that is arriving, and leaves when it is killed: `.<name>.<6 characters>`.
_ARRIVING = re.compile(r"\..+\.[A-Za-z0-9]{6}")


class RejectedError(ToolError):
    """An upload is not what it should be. `manifest_sha256` is known when its manifest could be
    read.
    """

    def __init__(self, message: str, manifest_sha256: str | None = None) -> None:
        super().__init__(message)
        self.manifest_sha256 = manifest_sha256


class ReplacedError(Exception):
    """The sender took away what we were looking at in its inbox."""


@contextmanager
def replaceable() -> Iterator[None]:
    """Around calls that look into an inbox, and only these: what is missing of our own is a
    fault.
    """
    try:
        yield
    except FileNotFoundError:
        raise ReplacedError from None


def not_theirs(inbox: int) -> set[str]:
    """The directory that a file system of its own has at its top, which root alone can enter."""
    with suppress(FileNotFoundError):
        if os.stat(LOST, dir_fd=inbox, follow_symlinks=False).st_uid != os.geteuid():
            return {LOST}
    return set()


def names(inbox: int, name: str) -> list[str]:
    descriptor = open_directory(inbox, name)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def check_names(upload: int, expected: tuple[str, ...]) -> None:
    """That an open upload holds these files and nothing else but what a killed transfer left.
    Raises RejectedError.
    """
    names = sorted(entry for entry in os.listdir(upload) if not _ARRIVING.fullmatch(entry))
    if names != sorted(expected):
        raise RejectedError(
            f"holds {', '.join(shown(entry) for entry in names)[:200]};"
            f" exactly {' and '.join(expected)} {'are' if len(expected) > 1 else 'is'} expected"
        )


def touched(inbox: int, name: str, status: os.stat_result) -> float:
    """When an upload last changed (unix seconds, our clock): ctime, which the sender cannot
    choose.
    """
    newest = status.st_ctime
    descriptor = open_directory(inbox, name)
    try:
        for entry in os.listdir(descriptor):
            with suppress(FileNotFoundError):
                newest = max(
                    newest, os.stat(entry, dir_fd=descriptor, follow_symlinks=False).st_ctime
                )
    finally:
        os.close(descriptor)
    return newest


def open_directory(inbox: int, name: str) -> int:
    """A directory, opened without following a link. Raises RejectedError."""
    try:
        with replaceable():
            return os.open(
                name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inbox
            )
    except OSError as problem:
        raise RejectedError(f"is not a directory that can be opened ({problem.strerror})") from None


def manifest_digest(inbox: int, name: str) -> str | None:
    """The identity of what lies in the inbox, None when it has no manifest that can be read."""
    try:
        upload = open_directory(inbox, name)
    except RejectedError:
        return None
    try:
        return manifest_module.sha256(read_small(upload, MANIFEST_NAME, MAX_MANIFEST_BYTES))
    except RejectedError:
        return None
    finally:
        os.close(upload)


def _open_regular(directory: int, name: str) -> int:
    """A regular file, opened without following a link or waiting for a pipe. Raises
    RejectedError.
    """
    try:
        descriptor = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory
        )
    except OSError as problem:
        raise RejectedError(
            f"{name}: is not a regular file that can be read ({problem.strerror})"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RejectedError(f"{name}: is not a regular file")
    return descriptor


def read_small(directory: int, name: str, limit: int) -> bytes:
    with os.fdopen(_open_regular(directory, name), "rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise RejectedError(f"{name}: larger than {limit} bytes")
    return raw


def copy_file(directory: int, name: str, target: Path, limit: int, digest: str) -> zstd.Digest:
    """Copy into a new durable file while hashing. Raises RejectedError when there is more than
    announced.
    """
    with os.fdopen(_open_regular(directory, name), "rb") as file:
        reader = zstd.HashingReader(file, limit)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as output:
            buffer = bytearray(zstd.CHUNK)
            try:
                while count := reader.readinto(buffer):
                    output.write(memoryview(buffer)[:count])
            except zstd.TooLongError as problem:
                raise RejectedError(f"{name}: {problem}", digest) from None
            output.flush()
            os.fsync(output.fileno())
    return reader.digest()


def shown(name: str) -> str:
    return json.dumps(name[:100])[1:-1]


def told(problem: Exception) -> str:
    """What went wrong; what nobody thought of with its type, which says more than its text."""
    if isinstance(problem, (ToolError, OSError)):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"[:500]
