"""One new RDB of a running server, pinned by a hard link: BGSAVE, never SAVE, and proof that the
file is ours.

An RDB is never modified after Redis renamed it into place, so a hard link in the same file system
keeps it as it is and copies nothing.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import ToolError
from .files import free_bytes
from .output import human_bytes
from .server import RedisServer, ServerError, integer

_POLL_FIRST = 0.05  # seconds
_POLL_MAX = 2.0  # seconds
# A last dump this much smaller than the data in memory is one of another time and says nothing
# about the next.
_YOUNG_FACTOR = 10
# rdb.c and replication.c: BGSAVE by the child's pid, a replica's sync by the time and its pid.
_TEMPORARY = re.compile(r"temp-([0-9]+\.)?[0-9]+\.rdb")
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


def needed_bytes(last_dump: int | None, used_memory: int) -> int:
    """Free bytes that a BGSAVE may need: 1.5 times the last dump, or 1.1 times the memory where
    there is none. Pure.
    """
    if last_dump is None or last_dump * _YOUNG_FACTOR < used_memory:
        return used_memory * 11 // 10
    return last_dump * 3 // 2


def sweep(server: RedisServer, place: Place) -> list[Path]:
    """Remove what saves and syncs of a killed server left: nobody else does, and it may be as large
    as the data. Returns what was removed.

    Older than the server that runs now, so that nobody writes it any more.
    """
    started = server.time() - integer(server.info(), "uptime_in_seconds") - 1
    left = []
    for path in place.directory.iterdir():
        if _TEMPORARY.fullmatch(path.name) is not None:
            # One that goes away meanwhile is somebody's after all.
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_mtime < started:
                    path.unlink()
                    left.append(path)
    return left


def check_room(place: Place, info: Mapping[str, str], reserve: int) -> None:
    """Refuse before BGSAVE rather than let it fail: a failed one can make Redis refuse writes.
    Raises ToolError.
    """
    try:
        last: int | None = place.dump.stat().st_size
    except OSError:
        last = None
    needed = (
        needed_bytes(last, integer(info, "used_memory_dataset", integer(info, "used_memory")))
        + reserve
    )
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
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> int:
    """Make a new RDB and hard-link it to `link`. Returns the server's time (unix seconds) just
    before the request.

    The caller still has to see that the RDB's own `ctime` is not older than that. Raises ToolError
    when no new RDB came of it within `timeout` seconds.
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
        _wait_for_save(server, deadline, progress)
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


def _wait_for_save(server: RedisServer, deadline: float, progress: Progress) -> None:
    delay = _POLL_FIRST
    while True:
        info = server.info()
        if info.get("rdb_bgsave_in_progress") == "0":
            return
        progress(
            integer(info, "current_save_keys_processed"), integer(info, "current_save_keys_total")
        )
        if time.monotonic() >= deadline:
            raise ToolError(
                "BGSAVE is still running after bgsave_timeout_seconds: it goes on, this backup"
                " does not"
            )
        time.sleep(delay)
        delay = min(delay * 1.5, _POLL_MAX)


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
