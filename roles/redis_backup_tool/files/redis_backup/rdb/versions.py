"""The versions of the RDB format that this tool reads, and who writes them: the one list of them.

A version is a magic and a number. Redis counts from 1. Valkey counted along up to 11, and has a
format of its own since 9.0, whose numbers begin at 80, so that a number alone names the format.
Sources: RDB_VERSION of rdb.h in the releases of Redis and Valkey, and the files that they write.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .cursor import RdbError, text

#: So many bytes of a file are its magic and version.
HEADER_SIZE = 9
#: The first version of Valkey's own format.
VALKEY = 80


class Writer(NamedTuple):
    """Releases of an engine (`redis` or `valkey`), from the oldest to the newest, as major and
    minor version.
    """

    engine: str
    oldest: tuple[int, int]
    newest: tuple[int, int]


#: What is read: the version, and who writes it. Test: tests/tool/test_rdb_versions.py.
READ: dict[int, tuple[Writer, ...]] = {
    9: (Writer("redis", (5, 0), (6, 2)),),
    10: (Writer("redis", (7, 0), (7, 0)),),
    11: (Writer("redis", (7, 2), (7, 2)), Writer("valkey", (7, 2), (8, 1))),
    12: (Writer("redis", (7, 4), (8, 4)),),
    13: (Writer("redis", (8, 6), (8, 6)),),
    14: (Writer("redis", (8, 8), (8, 8)),),
    VALKEY: (Writer("valkey", (9, 0), (9, 1)),),
}
# Who writes what is newer, as far as that is known.
_NEWER = {15: "Redis 8.10"}

_NAMES = {"redis": "Redis", "valkey": "Valkey"}
_RELEASE = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})(?:\.|$)")


def magic(version: int) -> str:
    """The magic of a version's files."""
    return "REDIS" if version < VALKEY else "VALKEY"


def _releases(engine: str, versions: list[int]) -> str:
    writers = [
        writer for version in versions for writer in READ[version] if writer.engine == engine
    ]
    if not writers:
        return ""
    oldest, newest = min(writer.oldest for writer in writers), max(w.newest for w in writers)
    return f"{_NAMES[engine]} {oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"


def readable() -> str:
    """What is read, for people: versions and the releases that write them."""
    told = []
    for name in ("REDIS", "VALKEY"):
        versions = [version for version in READ if magic(version) == name]
        numbers = f"{versions[0]} to {versions[-1]}" if versions[1:] else str(versions[0])
        releases = filter(None, (_releases(engine, versions) for engine in _NAMES))
        told.append(f"{name} {numbers} ({', '.join(releases)})")
    return "RDB versions " + " and ".join(told)


def unreadable(engine: str, release: str) -> str:
    """Why backups of a release of an engine (`redis` or `valkey`), e.g. 7.0 or 8.0.2, cannot be
    read; empty where they can.
    """
    found = _RELEASE.match(release)
    number = None if found is None else (int(found[1]), int(found[2]))
    writers = [writer for item in READ.values() for writer in item if writer.engine == engine]
    if number is not None and writers:
        # A release between two of the list writes what the older of them writes, or it would be in
        # the list.
        oldest, newest = min(w.oldest for w in writers), max(w.newest for w in writers)
        if oldest <= number <= newest:
            return ""
    return (
        f"{_NAMES.get(engine, engine)} {release} writes RDB files of a version that this"
        f" redis-backup does not read, so no backup of it can be made or proven; it reads"
        f" {readable()}"
    )


def header(data: bytes) -> tuple[str, int]:
    """Magic and RDB version by the first bytes of a file, `HEADER_SIZE` of them. Raises RdbError
    also for one that this tool does not read.
    """
    start = data[:HEADER_SIZE]
    found = re.fullmatch(rb"(REDIS)([0-9]{4})|(VALKEY)([0-9]{3})", start)
    if found is not None:
        name, version = text(found[1] or found[3]), int(found[2] or found[4])
        if version in READ and magic(version) == name:
            return name, version
        raise RdbError(
            0,
            f"{text(start)}, RDB version {version}" + (" of Valkey" if name == "VALKEY" else ""),
            f"written by {_writer(name, version)}; this tool reads {readable()}",
        )
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        raise RdbError(0, "a file compressed by zstd", "no RDB: decompress it first (zstd -d)")
    if start.startswith(b"$EOF:"):
        raise RdbError(0, "$EOF:", "no RDB file but a replication stream with its end marks")
    raise RdbError(
        0, repr(start)[1:], "an RDB begins with REDIS or VALKEY and its version, this is none"
    )


def _writer(name: str, version: int) -> str:
    """Who writes a version that is not read."""
    if name == "REDIS" and version < min(READ):
        return f"a Redis older than {'.'.join(map(str, READ[min(READ)][0].oldest))}"
    engine = "redis" if name == "REDIS" else "valkey"
    newest = max(w.newest for item in READ.values() for w in item if w.engine == engine)
    return _NEWER.get(version, f"a {_NAMES[engine]} newer than {newest[0]}.{newest[1]}")
