"""Small files for hosts and for this machine, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lab.shell import LabError


def tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """A tar archive of files owned by root: path to (content, mode)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (content, mode) in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = mode
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file whole, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(temporary).chmod(mode)
    Path(temporary).replace(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else holds the lock that this file stands for, and hold it.

    The file stays: who waits for it must wait for the same file as who comes later. A link is not
    followed and nothing is overwritten, so that it may be where others can write. Raises LabError.
    """
    path.parent.mkdir(exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LabError(
            f"the lock {path} cannot be opened ({error.strerror}): see who made it and remove it"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
