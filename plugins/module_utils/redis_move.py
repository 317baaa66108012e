"""Moving the data files of a stopped server to another directory or name.

At every moment the old place or the new one holds all of the data: files are linked (or copied, to
another file system), and the old names are given up only when the server runs from the new ones.
What is done to files is done as the server's user: it may write to both directories, and must not
be able to make root follow a link of its own.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.directories import few
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import data_names

# What may lie in a data directory and is no data of a server.
STAGING_OF_BACKUPS = ".redis-backup"
MARKER = ".redis-move-unfinished"
KEPT = "moved-"
NOT_DATA = frozenset(["lost+found", STAGING_OF_BACKUPS, MARKER])
RESERVE = 64 << 20  # bytes that stay free beside the data and its next snapshot
CHUNK = 1 << 20
NO_LINK = frozenset([errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])


class MoveError(Exception):
    """The data cannot be moved; the text says why. Nothing is left in the new place."""


class Place(NamedTuple):
    """Where a server keeps its data: a directory, and the names in it."""

    dir: str
    dbfilename: str
    appenddirname: str
    appendfilename: str

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Place:
        """From the settings of a configuration file; what it does not set is Redis's default.

        Which for `dir` is where the server is started: systemd does that in the root directory.
        """
        return cls(os.path.realpath(values.get("dir", "/")), **data_names(values))

    def paths(self) -> list[str]:
        """Where data may lie: the RDB, and the append-only file of 7.0 and of 6.x."""
        names = (self.dbfilename, self.appenddirname, self.appendfilename)
        return [os.path.join(self.dir, name) for name in names]

    def names(self) -> dict[str, str]:
        """The names, as `redis_disk.data_files` takes them."""
        return {key: value for key, value in self._asdict().items() if key != "dir"}


class Survey(NamedTuple):
    """What has to be known before a move; see `objections`.

    Attributes:
        others: what lies in the new directory, or under the new names, and would be in the way.
        odd: data paths of the old place that are links or mount points.
        size: bytes of the data.
        free: bytes free on the file system of the new directory.
        linkable: both directories are on one file system, so that nothing has to be copied.
        obstacle: why the new directory cannot be one; empty where it can.
    """

    others: tuple[str, ...]
    odd: tuple[str, ...]
    size: int
    free: int
    linkable: bool
    obstacle: str


def survey(source: Place, target: Place) -> Survey:
    """Look at both places. Changes nothing; the new directory need not exist yet."""
    obstacle = ""
    base = target.dir
    while not os.path.lexists(base):
        base = os.path.dirname(base)
    if not os.path.isdir(base):
        obstacle = f"{base} is no directory"
    elif os.statvfs(base).f_flag & os.ST_RDONLY:
        obstacle = f"the file system of {base} is read-only"
    elif any(os.path.commonpath([path, target.dir]) == path for path in source.paths()):
        obstacle = f"{target.dir} lies within the data"
    statistics = os.statvfs(os.path.dirname(base) if not os.path.isdir(base) else base)
    paths = [path for path in source.paths() if os.path.lexists(path)]
    return Survey(
        others=tuple(_in_the_way(source, target)),
        odd=tuple(path for path in paths if os.path.islink(path) or os.path.ismount(path)),
        size=sum(_size(path) for path in paths),
        free=statistics.f_bavail * statistics.f_frsize,
        linkable=os.path.isdir(source.dir) and os.stat(source.dir).st_dev == os.stat(base).st_dev,
        obstacle=obstacle,
    )


def objections(found: Survey, source: Place, target: Place) -> list[str]:
    """Why this move is not begun; empty where nothing speaks against it."""
    reasons = []
    if found.obstacle:
        reasons.append(f"{found.obstacle}.")
    if found.others:
        reasons.append(
            f"In {target.dir} there is already {few(found.others)}. Move it away, or name a "
            "directory that is empty."
        )
    if found.odd:
        reasons.append(
            f"{', '.join(found.odd)} is a link or a mount point of its own, in {source.dir}; the "
            "data has to lie there in plain files."
        )
    # As much again for the next snapshot, which is written beside the data: without that room
    # the server would refuse writes (MISCONF).
    needed = 2 * found.size + RESERVE
    if not found.linkable and found.free < needed:
        reasons.append(
            f"The file system of {target.dir} has {found.free >> 20} MiB free, and the data with "
            f"its next snapshot takes {needed >> 20} MiB."
        )
    return reasons


def _in_the_way(source: Place, target: Place) -> list[str]:
    unfinished = os.path.exists(os.path.join(target.dir, MARKER))
    new_paths = [new for _, new in _renamed(source, target)]
    if source.dir == target.dir:
        found = [os.path.basename(path) for path in new_paths if os.path.lexists(path)]
    elif os.path.isdir(target.dir):
        found = [
            name
            for name in sorted(os.listdir(target.dir))
            if name not in NOT_DATA and not name.startswith(KEPT)
        ]
    else:
        found = []
    # What a killed move left is its own: it is put there again.
    own = [os.path.basename(path) for path in new_paths] if unfinished else []
    return [name for name in found if name not in own]


def _renamed(source: Place, target: Place) -> list[tuple[str, str]]:
    """Old and new path of what gets another one."""
    return [(old, new) for old, new in zip(source.paths(), target.paths()) if old != new]


def _size(path: str) -> int:
    """Bytes of a file, or of the files of a directory."""
    if not os.path.isdir(path) or os.path.islink(path):
        return os.lstat(path).st_size
    return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))


@contextmanager
def acting_as(uid: int, gid: int, more_groups: Sequence[int] = ()) -> Iterator[None]:
    """Touch files with the rights of another user, where this process may choose."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    os.setgroups(list(more_groups))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def check_writable(target: Place) -> None:
    """Fail unless files can be made in the new directory, which exists by now.

    Raises:
        MoveError: they cannot.
    """
    try:
        handle, path = tempfile.mkstemp(prefix=f"{KEPT}probe-", dir=target.dir)
        os.close(handle)
        os.unlink(path)
    except OSError as error:
        raise MoveError(
            f"The server's user cannot write to {target.dir}: {error}. Every directory above it "
            "must let that user pass."
        ) from None


class Carried:
    """Data that lies in both places, with the server stopped.

    Attributes:
        copied: at least one file is a copy; else all are links, and take no room.
    """

    def __init__(self, source: Place, target: Place) -> None:
        self.source = source
        self.target = target
        self.copied = False
        self._old: list[str] = []
        self._new: list[str] = []
        self._as_put: list[tuple[str, int, int, int]] = []

    def untouched(self) -> bool:
        """Whether no server has written to the new files yet."""
        return self._as_put == self._look()

    def discard(self) -> None:
        """Give the new place up; the old one has everything."""
        for path in [*self._new, os.path.join(self.target.dir, MARKER)]:
            remove(path)
        sync_directory(self.target.dir)

    def retire(self) -> str | None:
        """Give the old names up, now that the server runs from the new ones.

        Links are removed: the same files go on under their new names. Copies are kept.

        Returns:
            The directory in which the old files are kept, None where nothing is kept.
        """
        if not self.copied:
            for path in self._old:
                remove(path)
            return None
        kept = os.path.join(self.source.dir, time.strftime(f"{KEPT}%Y%m%dT%H%M%SZ", time.gmtime()))
        os.mkdir(kept, 0o700)
        for path in self._old:
            os.rename(path, os.path.join(kept, os.path.basename(path)))
        sync_directory(self.source.dir)
        return kept

    def _carry(self) -> None:
        marker = os.path.join(self.target.dir, MARKER)
        if os.path.exists(marker):
            for _, path in _renamed(self.source, self.target):
                remove(path)
        with open(marker, "w", encoding="utf-8") as file:
            file.write(
                f"A move from {self.source.dir} did not end; what lies here is incomplete.\n"
            )
        for old, new in _renamed(self.source, self.target):
            if os.path.lexists(old):
                if os.path.lexists(new):
                    raise MoveError(f"There is already {new}.")
                self._old.append(old)
                self._new.append(new)
                self._put(old, new)
        sync_directory(self.target.dir)
        os.unlink(marker)
        self._as_put = self._look()

    def _put(self, old: str, new: str) -> None:
        mode = os.lstat(old).st_mode
        if stat.S_ISDIR(mode):
            os.mkdir(new, stat.S_IMODE(mode))
            for name in os.listdir(old):
                self._put(os.path.join(old, name), os.path.join(new, name))
            sync_directory(new)
        elif stat.S_ISREG(mode):
            try:
                os.link(old, new, follow_symlinks=False)
            except OSError as error:
                if error.errno not in NO_LINK:
                    raise
                self.copied = True
                copy(old, new)
        else:
            raise MoveError(f"{old} is neither a file nor a directory.")

    def _look(self) -> list[tuple[str, int, int, int]]:
        found = []
        for top in self._new:
            for folder, _, names in os.walk(top):
                found += [_fingerprint(os.path.join(folder, name)) for name in sorted(names)]
            if os.path.isfile(top):
                found.append(_fingerprint(top))
        return found


def carry(source: Place, target: Place) -> Carried:
    """Put the data of a stopped server into the new place too.

    Raises:
        MoveError: that did not work; nothing is left in the new place.
    """
    carried = Carried(source, target)
    try:
        try:
            carried._carry()
        except (OSError, MoveError):
            carried.discard()
            raise
    except OSError as error:
        raise MoveError(f"The data could not be put into {target.dir}: {error}.") from None
    return carried


def _fingerprint(path: str) -> tuple[str, int, int, int]:
    status = os.lstat(path)
    return path, status.st_ino, status.st_size, status.st_mtime_ns


def copy(old: str, new: str) -> None:
    """Copy a file, and read what then lies on the disk."""
    digest = hashlib.sha256()
    with open(os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(new, flags, 0o600), "wb") as target:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
            # Read from the disk, not from memory.
            os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    shutil.copystat(old, new, follow_symlinks=False)
    again = hashlib.sha256()
    with open(new, "rb") as target_again:
        while chunk := target_again.read(CHUNK):
            again.update(chunk)
    if again.digest() != digest.digest():
        raise MoveError(f"{new} reads back other bytes than were written. Check that disk.")


def remove(path: str) -> None:
    """Remove a file or a directory of files; an absent one is no error."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def sync_directory(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
