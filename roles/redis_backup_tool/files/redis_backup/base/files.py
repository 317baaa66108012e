"""Small promises about files: locks that die with their holder, writes that are whole or absent,
safe removal.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import NotNow, ToolError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file (made when missing) that ends with this process, however it
    ends.

    The descriptor is not inherited by children. Raises NotNow when another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow(f"{path} is locked: another run is at work; nothing to do now") from None
        yield
    finally:
        os.close(descriptor)


def fsync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(
    path: Path, data: bytes, mode: int = 0o600, *, sync_directory: bool = True
) -> None:
    """Write a file so that after any crash it is there as a whole or not at all. Who writes several
    may leave the directory to one `fsync_directory` at their end.
    """
    temporary = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode
    )
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if sync_directory:
        fsync_directory(path.parent)


def read_if_there(path: Path) -> bytes | None:
    """The bytes of a file, None where there is none. Raises ToolError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ToolError(f"{path}: cannot be read ({problem.strerror})") from None


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Make a directory, durably; one that is there already is left as it is. Raises ToolError when
    it is a link.
    """
    try:
        path.mkdir(mode=mode)
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ToolError(
                f"{path}: a directory of this name is needed, something else is there"
            ) from None
    else:
        fsync_directory(path.parent)


def check_owner(path: Path) -> None:
    """Refuse to work as root on what belongs to another user: what root leaves there, that user
    cannot use later.

    Raises ToolError, which says as whom to run.
    """
    owner = path.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise ToolError(
            f"{path} belongs to {name}: run this as that user (sudo -u {name} redis-backup ...)"
        )


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write on the file system of a path."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def total_bytes(path: Path) -> int:
    """The size of the file system of a path."""
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def remove_entry(directory: int, name: str) -> None:
    """Remove a file, link or whole tree in an open directory without following anything.

    Directories further down are first moved up beside it, so that a tree of any depth needs
    neither recursion nor many descriptors: whoever made it may have meant to exhaust them.
    """
    pending = [name]
    moved = 0
    while pending:
        current = pending.pop()
        try:
            inner = os.open(
                current,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=directory,
            )
        except FileNotFoundError:
            continue
        except OSError:
            # Not a directory, or a link: the name goes, whatever it points at stays.
            os.unlink(current, dir_fd=directory)
            continue
        try:
            for entry in os.listdir(inner):
                status = os.stat(entry, dir_fd=inner, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    target = f".removed-{os.getpid()}-{moved}"
                    moved += 1
                    os.rename(entry, target, src_dir_fd=inner, dst_dir_fd=directory)
                    pending.append(target)
                else:
                    os.unlink(entry, dir_fd=inner)
        finally:
            os.close(inner)
        os.rmdir(current, dir_fd=directory)


def remove_tree(path: Path) -> None:
    """Remove a file, link or tree by its path, nothing when it is not there."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_entry(descriptor, path.name)
    finally:
        os.close(descriptor)
