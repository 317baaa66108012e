"""One new RDB of a running server, pinned by a hard link: BGSAVE, never SAVE, and proof that the
file is ours.

An RDB is never modified after Redis renamed it into place, so a hard link in the same file system
keeps it as it is and copies nothing.

A BGSAVE that fails can make Redis refuse writes (MISCONF), so none may fail for want of room: it is
not started where it may not fit, and stopped when the disk runs full beside it. Redis does not
count a save whose child is told to stop (SIGUSR1) as a failed one.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import ToolError
from ..base.files import free_bytes
from ..base.output import human_bytes
from ..transport.redis_client import ServerError
from .server import RedisServer, integer

_POLL_FIRST = 0.05  # seconds
_POLL_MAX = 2.0  # seconds
# rdb.c and replication.c: BGSAVE by the child's pid, a replica's sync by the time and its pid.
_TEMPORARY = re.compile(r"temp-([0-9]+\.)?(?P<pid>[0-9]+)\.rdb")
# No disk is filled faster than this (bytes per second): how soon to look at it again.
_WRITTEN_PER_SECOND = 1_000_000_000
_STOP_TIMEOUT = 10.0  # seconds for a save to end that was told to
# The fields that say how much memory the server used stand at the beginning of the file.
_HEAD_BYTES = 1024
_USED_MEMORY = b"\xfa\x08used-mem"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Place:
    """Where the server keeps its RDB, on this host."""

    directory: Path
    filename: str

    @property
    def dump(self) -> Path:
        """The file that Redis renames a finished RDB to."""
        return self.directory / self.filename


def locate(server: RedisServer) -> Place:
    """Ask the server where its RDB is. Raises ToolError when that is no directory of this host."""
    place = Place(Path(server.config("dir")), server.config("dbfilename"))
    if not place.directory.is_dir():
        raise ToolError(
            f"{place.directory}, the data directory of Redis at {server.name}, is not on this host:"
            " a backup is made on the host of the server"
        )
    return place


def needed_bytes(last_dump: int | None, memory_then: int | None, memory: int, dataset: int) -> int:
    """Free bytes that a BGSAVE may need: 1.5 times the last dump and 1.1 times what the server has
    grown by since; without a dump to learn from, 1.1 times the data in memory. Pure.

    `memory_then` and `memory` are the server's used memory at the last dump and now.
    """
    if last_dump is None or memory_then is None:
        return dataset * 11 // 10
    return last_dump * 3 // 2 + max(0, memory - memory_then) * 11 // 10


def memory_of_dump(head: bytes) -> int | None:
    """The server's used memory when it wrote the RDB that begins like this, None where it does not
    say. Pure. The field is an RDB string: digits, or an integer of 8, 16 or 32 bits.
    """
    at = head.find(_USED_MEMORY) + len(_USED_MEMORY)
    if at < len(_USED_MEMORY) or at >= len(head):
        return None
    kind, rest = head[at], head[at + 1 :]
    if kind in (0xC0, 0xC1, 0xC2):
        return int.from_bytes(rest[: 1 << (kind - 0xC0)], "little")
    digits = rest[:kind] if kind < 64 else b""
    return int(digits) if digits.isdigit() else None


def sweep(server: RedisServer, place: Place) -> list[Path]:
    """Remove what saves and syncs of a killed server left: nobody else does, and it may be as large
    as the data. Returns what was removed.

    Older than the server that runs now, while that neither saves nor syncs, and of a process that
    is gone, so that nobody writes it any more: by the clock alone it may be of a save that runs, if
    the clock was ahead when the server started.
    """
    info = server.info()
    uptime = integer(info, "uptime_in_seconds")
    busy = ("rdb_bgsave_in_progress", "master_sync_in_progress", "loading", "async_loading")
    if uptime < 0 or any(info.get(field, "0") != "0" for field in busy):
        return []
    started = server.time() - uptime - 1
    left = []
    for path in place.directory.iterdir():
        name = _TEMPORARY.fullmatch(path.name)
        if name is not None and not _runs(name["pid"]):
            # One that goes away meanwhile is somebody's after all.
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime < started:
                    path.unlink()
                    left.append(path)
    return left


def _runs(pid: str) -> bool:
    """Whether there is a process of this number, whosever it is."""
    return Path("/proc", pid).exists()


def check_room(place: Place, info: Mapping[str, str], reserve: int) -> None:
    """Refuse before BGSAVE rather than let it fail. Raises ToolError."""
    last: int | None = None
    then: int | None = None
    with suppress(OSError), place.dump.open("rb") as dump:
        last = os.fstat(dump.fileno()).st_size
        then = memory_of_dump(dump.read(_HEAD_BYTES))
    memory = integer(info, "used_memory")
    dataset = integer(info, "used_memory_dataset", memory)
    needed = needed_bytes(last, then, memory, dataset) + reserve
    free = free_bytes(place.directory)
    if free < needed:
        raise ToolError(
            f"{place.directory} has {human_bytes(free)} free, a snapshot may need"
            f" {human_bytes(needed)}"
            f" ({human_bytes(reserve)} of it in reserve): no BGSAVE was started; make room"
        )


def take(
    server: RedisServer,
    place: Place,
    link: Path,
    timeout: float,
    reserve: int,
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> int:
    """Make a new RDB and hard-link it to `link`. Returns the server's time (unix seconds) just
    before the request.

    The caller still has to see that the RDB's own `ctime` is not older than that. Raises ToolError
    when no new RDB came of it within `timeout` seconds, or less than half of the `reserve` (bytes)
    was left on the disk.
    """
    deadline = time.monotonic() + timeout
    # Held open, so that its inode cannot be given to the new file.
    try:
        previous: int | None = os.open(place.dump, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        previous = None
    except OSError as problem:
        raise ToolError(
            f"{place.dump}: cannot be opened ({problem.strerror}); run as the user of the Redis"
            " server"
        ) from None
    try:
        requested = _start(server, deadline, say)
        _wait_for_save(server, place, deadline, timeout, reserve // 2, progress)
        status = server.info().get("rdb_last_bgsave_status")
        if status != "ok":
            raise ToolError(
                f"BGSAVE failed (rdb_last_bgsave_status:{status}): Redis could not write"
                f" {place.dump};"
                " its log says why (disk full, rights of the directory?). With save points set"
                " it may refuse writes"
                " until a save succeeds"
            )
        _link(place, link, previous)
    finally:
        if previous is not None:
            os.close(previous)
    return requested


def _start(server: RedisServer, deadline: float, say: Callable[[str], None]) -> int:
    """Wait for children that are running, then start ours. Returns the server's time before the
    request.
    """
    told = False
    delay = _POLL_FIRST
    while True:
        requested = server.settled_time()
        try:
            server.command("BGSAVE")
            return requested
        except ServerError as problem:
            # 6.0 to 8: "Background save already in progress", "… AOF … in progress", "Another
            # child process is active".
            low = problem.reply.lower()
            if "in progress" not in low and "child process" not in low:
                if problem.reply:
                    raise ToolError(
                        f"BGSAVE was refused: {problem.reply}; could the server not fork"
                        " (memory, overcommit)?"
                    ) from None
                raise
        if not told:
            say("another save or rewrite is running; ours starts after it")
            told = True
        if time.monotonic() >= deadline:
            raise ToolError(
                "another save or rewrite is still running: no BGSAVE could be started in time"
            )
        time.sleep(delay)
        delay = min(delay * 1.5, _POLL_MAX)


def _wait_for_save(
    server: RedisServer,
    place: Place,
    deadline: float,
    timeout: float,
    least: int,
    progress: Progress,
) -> None:
    """Wait until our save has ended; stop it when fewer than `least` bytes are free."""
    delay = _POLL_FIRST
    while True:
        info = server.info()
        if info.get("rdb_bgsave_in_progress") == "0":
            return
        free = free_bytes(place.directory)
        if free < least:
            _stop_save(server, info)
            raise ToolError(
                f"{place.directory} ran full while Redis saved, {human_bytes(free)} are free: the"
                " save was stopped before it failed, what it had written is gone; make room"
            )
        progress(
            integer(info, "current_save_keys_processed"), integer(info, "current_save_keys_total")
        )
        if time.monotonic() >= deadline:
            raise ToolError(
                f"BGSAVE did not finish within {timeout:g} s (bgsave_timeout_seconds): backup given"
                " up; the BGSAVE goes on"
            )
        time.sleep(max(_POLL_FIRST, min(delay, (free - least) / _WRITTEN_PER_SECOND)))
        delay = min(delay * 1.5, _POLL_MAX)


def _stop_save(server: RedisServer, info: Mapping[str, str]) -> None:
    """Tell the saving child of the server to stop, and see that it did. Raises ToolError."""
    parent = integer(info, "process_id")
    try:
        for child in _children(parent):
            os.kill(child, signal.SIGUSR1)
    except ProcessLookupError:
        pass  # it has just ended
    except OSError as problem:
        raise ToolError(
            "the disk runs full while Redis saves, and its save cannot be stopped"
            f" ({problem.strerror}); run as the user of the Redis server, and make room at once"
        ) from None
    deadline = time.monotonic() + _STOP_TIMEOUT
    while server.info().get("rdb_bgsave_in_progress") != "0":
        if time.monotonic() >= deadline:
            raise ToolError(
                "the disk runs full while Redis saves, and its save did not stop when it was told"
                " to; make room at once"
            )
        time.sleep(_POLL_FIRST)


def _children(parent: int) -> list[int]:
    """The processes whose parent is this one; Redis has one child at a time."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        # The fields after the name, which stands in parentheses: state, parent, ...
        with suppress(OSError, ValueError, IndexError):
            if int(path.read_text("utf-8", "replace").rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _link(place: Place, link: Path, previous: int | None) -> None:
    try:
        os.link(place.dump, link, follow_symlinks=False)
    except OSError as problem:
        raise ToolError(
            f"{place.dump}: cannot be hard-linked to {link} ({problem.strerror});"
            " run as the user of the Redis server, and keep .redis-backup on the file system of"
            " its directory"
        ) from None
    if previous is not None:
        new, old = link.stat(), os.fstat(previous)
        if (new.st_dev, new.st_ino) == (old.st_dev, old.st_ino):
            raise ToolError(
                f"{place.dump} is the same file as before BGSAVE, although Redis says ok: no new"
                " snapshot was made"
            )
