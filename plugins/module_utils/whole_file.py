"""Files that are read without following a link and written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile


def read_bytes(path: str) -> bytes | None:
    """What is in a file, None where there is none.

    A link is not followed: whoever may write to the directory must not make root read elsewhere.

    Raises:
        OSError: it is a link, or cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read()


def write_bytes(path: str, content: bytes, mode: int, uid: int, gid: int) -> None:
    """Put a file with this content, mode and owner in the place of what is there.

    It has its mode and its owner before it has its name, so that a secret is at no moment open.
    """
    temporary = write_beside(path, content, mode, uid, gid)
    os.replace(temporary, path)


def existing_bytes(path: str) -> bytes:
    """What is in a file that has to be there.

    Raises:
        OSError: it is not there, is a link, or cannot be read.
    """
    content = read_bytes(path)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return content


def write_beside(path: str, content: bytes, mode: int, uid: int, gid: int) -> str:
    """Write what is to replace a file into the same directory; the path of that.

    A name with a dot in front: what a killed run leaves is no configuration to anybody.
    """
    folder, name = os.path.split(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            os.fchown(handle, uid, gid)
            file.write(content)
            file.flush()
            os.fsync(handle)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary
