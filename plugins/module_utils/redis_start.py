"""What a stopped server has to load, and whether one that was started has loaded it. No I/O.

Redis loads the append-only file or the RDB, never both, by its setting `appendonly` and not by what
lies there. With `appendonly yes` and no append-only file it starts empty, and its next save puts
that emptiness over the RDB. So whoever starts a server decides by the files which data are newest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.redis_disk import Aof, DataFiles, Rdb

RDB = "load RDB"
AOF = "load AOF"
EMPTY = "start empty"
STOP = "stop"

# Longer than a save takes: an RDB that got its bytes so much later than its data was copied.
A_SAVE = 3600
# Clocks of one machine do not differ; one that was set back leaves files of the future.
A_CLOCK = 60
# A command that a crash cut off is as long as what was on its way to the disk.
CUT_OFF = 1 << 20


class Choice(NamedTuple):
    """What is to be loaded, or why nothing is started."""

    load: str
    why: str = ""


def newest(rdb: Rdb, aof: Aof, now: float) -> str:
    """Which of the two has the newest data, by time: RDB, AOF or, where time does not tell, "".

    The RDB says itself when its data was read out of memory. It holds all that an append-only file
    holds which was not written to since that second. In the same second, either may be ahead.
    """
    if rdb.saved > now + A_CLOCK:
        return ""
    if aof.written >= rdb.written or int_of(aof.written) > rdb.saved:
        # Whoever copied the one may have copied the other: then its time is that of the copy.
        return "" if rdb.written - rdb.saved > A_SAVE else AOF
    return RDB if rdb.saved > int_of(aof.written) else ""


def int_of(moment: float) -> float:
    """Whole seconds, of a time that may be infinite."""
    return moment if moment in (float("inf"), float("-inf")) else int(moment)


def what_to_load(files: DataFiles, was: bool | None, ended_with_aof: bool, now: float) -> Choice:
    """What a server that does not run has to load.

    Args:
        files: what lies there.
        was: `appendonly` in the present file, by which the last server wrote its files. None where
            there is no file.
        ended_with_aof: the last server wrote its append-only file until it ended, and nobody has
            touched the data since; see `ended_with_aof`.
        now: the time.
    """
    rdb, aof, other = files
    if other.has_data and not _is_older(other, files, now):
        return Choice(
            STOP,
            "The newest data is in an append-only file of the layout that this release does not "
            "load.",
        )
    choice = _choose(rdb, aof, was, ended_with_aof, now)
    if choice.load == RDB and rdb.damage:
        return Choice(STOP, damaged("RDB", rdb.damage))
    if choice.load == AOF and aof.damage:
        return Choice(STOP, damaged("append-only file", aof.damage))
    return choice


def damaged(kind: str, problem: str) -> str:
    """Why nothing is started on a file that cannot be loaded."""
    return f"The newest data is in the {kind}, and no server can load it: {problem}."


def _is_older(other: Aof, files: DataFiles, now: float) -> bool:
    """Whether an append-only file that nobody looks at was left behind by an upgrade."""
    if files.aof.has_data and files.aof.written > other.written:
        return True
    return files.rdb.has_data and newest(files.rdb, other, now) == RDB


def _choose(rdb: Rdb, aof: Aof, was: bool | None, ended: bool, now: float) -> Choice:
    if not rdb.has_data and not aof.has_data:
        return Choice(EMPTY)
    if not aof.there or aof.blank:
        return Choice(RDB)
    if not rdb.there:
        return Choice(AOF)
    by_time = newest(rdb, aof, now)
    if not aof.has_data:
        if by_time == RDB or (not by_time and was is False):
            return Choice(RDB)
        return Choice(
            STOP,
            "An append-only file without keys lies beside an RDB with keys, and is not older: "
            "either somebody deleted all keys, or this is not the file of these data.",
        )
    if not rdb.has_data:
        if by_time != RDB or was:
            return Choice(AOF)
        return Choice(
            STOP,
            "An RDB without keys lies beside an older append-only file with keys, and the "
            "configuration file says appendonly no: either somebody deleted all keys, or a server "
            "was started without its append-only file.",
        )
    if by_time == RDB:
        # Whoever shuts a server down in order makes it save last: both files have everything, and
        # the append-only file stays in use.
        return Choice(AOF if was and ended and not aof.damage else RDB)
    return Choice(AOF if by_time == AOF or was is not False else RDB)


# What a server logs when it is shut down, in this order; the second where it has save points.
_SHUTDOWN = re.compile(
    r"Calling fsync\(\) on the AOF file\."
    r"(?:(?!Server initialized|oO0OoO0OoO0Oo).)*"
    r"(?:Redis|Valkey) is now ready to exit, bye bye\.\.\.[^\n]*\n?\Z",
    re.DOTALL,
)


def ended_with_aof(log: str, logged: float, touched: float) -> bool:
    """Whether the last server wrote its append-only file until it ended, and the data are as then.

    Args:
        log: the end of its log.
        logged: when that was last written to.
        touched: when any of the data files was last changed, moved or put there.
    """
    return touched <= logged and _SHUTDOWN.search(log) is not None


def is_cut_off(tail: bytes) -> bool:
    """Whether commands of an append-only file just end too early, as after a crash.

    Args:
        tail: what lies behind the last whole command, or the last whole transaction.
    """
    place = 0
    while place < len(tail):
        if tail[place : place + 1] == b"#":
            end = tail.find(b"\n", place)
            place = len(tail) if end < 0 else end + 1
            continue
        count, place = _header(tail, place, b"*")
        if count < 0:
            return place < 0
        for _ in range(count):
            size, place = _header(tail, place, b"$")
            if size < 0:
                return place < 0
            if tail[place + size : place + size + 2] not in (b"\r\n", b"\r", b""):
                return False
            place += size + 2
    return True


def _header(tail: bytes, place: int, kind: bytes) -> tuple[int, int]:
    """A number behind its sign, and where the line ends: -1, -1 where it is cut off, and -1, 0
    where it is none."""
    line, newline, _ = tail[place : place + 32].partition(b"\r\n")
    if not newline:
        whole = tail[place : place + 32]
        fits = re.fullmatch(re.escape(kind) + rb"[0-9]*\r?", whole) is not None
        return (-1, -1) if not whole or (fits and place + len(whole) == len(tail)) else (-1, 0)
    if re.fullmatch(re.escape(kind) + rb"[0-9]+", line) is None:
        return -1, 0
    return int(line[1:]), place + len(line) + 2


class Held(NamedTuple):
    """How many keys that do not expire a server had, and whether it was being written to."""

    keys: int
    quiet: bool


def lasting_keys(info: Mapping[str, Any]) -> int:
    """The keys that do not expire, by INFO; the others may go at any time."""
    databases = info.get("keyspace", {}).values()
    return sum(database["keys"] - database["expires"] for database in databases)


def held(info: Mapping[str, Any]) -> Held:
    """What a server has, just after a snapshot and just before it is stopped."""
    quiet = (
        info["persistence"]["rdb_changes_since_last_save"] == 0
        and info["stats"]["evicted_keys"] == 0
    )
    return Held(lasting_keys(info), quiet)


def missing_keys(before: Held, info: Mapping[str, Any]) -> int:
    """How many keys a server has lost by its start, that its clients cannot have deleted.

    Of a server that was written to nobody knows how many were there at its end; half of them gone
    is no work of clients in that moment. Since the start each command may have deleted a key.
    """
    expected = before.keys if before.quiet else before.keys // 2
    lost = expected - lasting_keys(info) - info["stats"]["total_commands_processed"]
    return before.keys - lasting_keys(info) if lost > 0 else 0


def expected_keys(files: DataFiles, loads: str) -> Held | None:
    """What a server that loads these files will hold at least; None where its files do not tell."""
    if loads == RDB:
        keys = files.rdb.keys
    elif loads == AOF and files.aof.bytes == 0:
        keys = files.aof.keys
    else:
        keys = None
    return Held(keys.keys - keys.expires, quiet=True) if keys else None


def _moment(seconds: float) -> str:
    if seconds in (float("inf"), float("-inf")):
        return "nobody knows when"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def describe_rdb(name: str, rdb: Rdb, counted: int | None = None) -> str:
    """One file in words, with its numbers."""
    if not rdb.there:
        return f"{name}: not there"
    if counted is not None:
        holds = f"{counted} keys"
    elif not rdb.has_data:
        holds = "no keys"
    elif rdb.keys:
        holds = f"{rdb.keys.keys} keys in database {rdb.keys.database}"
    else:
        holds = "an unknown number of keys"
    return f"{name}: {rdb.damage or holds}, saved {_moment(rdb.saved)}"


def describe_aof(name: str, aof: Aof) -> str:
    """One append-only file in words, with its numbers."""
    if not aof.there:
        return f"{name}: not there"
    if aof.blank:
        return f"{name}: nothing was ever written to it"
    base = f"{aof.keys.keys} keys in its base" if aof.keys else "no keys in its base"
    holds = f"{base} and {aof.bytes} bytes of commands"
    if aof.damage:
        holds = f"{aof.damage} ({holds})"
    return f"{name}: {holds}, last written {_moment(aof.written)}"
