"""What a drill decides: which backup, which server, how old it may be, and what differs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from ..base.errors import ToolError, UsageError
from ..base.fields import is_backup_id, is_name
from ..config.model import DrillConfig
from ..digest.comparison import Difference
from ..formats.catalogue import Catalogue, Entry
from ..formats.manifest import EXAMPLE_ID, Counts, Manifest

# Which RDB version a release writes (RDB_VERSION in its rdb.h); others are not judged.
_REDIS_WRITES = {
    (5, 0): 9,
    (6, 0): 9,
    (6, 2): 9,
    (7, 0): 10,
    (7, 2): 11,
    (7, 4): 12,
    (8, 0): 12,
    (8, 2): 12,
    (8, 4): 12,
    (8, 6): 13,
    (8, 8): 14,
}
_VALKEY_WRITES = {(7, 2): 11, (8, 0): 11, (8, 1): 11, (9, 0): 80}
# Keys of a database that a reason names.
_NAMED = 5
# From this version on Valkey writes its own magic.
_VALKEY_MAGIC_FROM = 80


def targets(config: DrillConfig, target: str | None) -> list[tuple[str, str | None]]:
    """Set and id (None: the newest) of each backup to drill. Raises UsageError."""
    known = ", ".join(sorted(config.sets))
    if not known:
        raise UsageError(f"{config.path}: names no set to drill")
    if target is None:
        return [(set_name, None) for set_name in sorted(config.sets)]
    set_name, slash, backup_id = target.rpartition("/")
    if not slash:
        if len(config.sets) > 1:
            raise UsageError(f"{target!r}: this host drills several sets ({known}); write SET/ID")
        set_name = known
    if not is_name(set_name) or set_name not in config.sets:
        raise UsageError(f"{target!r}: this host drills {known}")
    if not is_backup_id(backup_id):
        raise UsageError(
            f"{target[:100]!r} is not a backup ID; IDs look like {EXAMPLE_ID}; `redis-backup list`"
            " on the backup server shows them"
        )
    return [(set_name, backup_id)]


def choose(catalogue: Catalogue, backup_id: str | None) -> Entry:
    """The line of the wanted backup, of the newest for None. Raises ToolError without one."""
    if backup_id is None:
        newest = catalogue.newest()
        if newest is None:
            raise ToolError(
                f"{catalogue.set}: the catalogue names no backup: there is nothing to restore"
            )
        return newest
    entry = catalogue.present().get(backup_id)
    if entry is not None:
        return entry
    gone = catalogue.deleted_on(backup_id)
    if gone is not None:
        raise ToolError(f"{catalogue.set}/{backup_id}: was deleted by retention on {gone}")
    raise ToolError(
        f"{catalogue.set}/{backup_id}: has no line in the catalogue, so it was never accepted"
    )


def release(version: str) -> tuple[int, int]:
    """(major, minor) of a server version such as `7.0.15`."""
    found = re.match(r"([0-9]{1,9})\.([0-9]{1,9})", version)
    if found is None:
        raise ToolError(f"{version[:40]!r} is not the version of a server")
    return int(found.group(1)), int(found.group(2))


def impossible_pair(manifest: Manifest) -> str | None:
    """Why such a server cannot have written such an RDB; None when it can, or is not known."""
    table = _VALKEY_WRITES if manifest.engine == "valkey" else _REDIS_WRITES
    writes = table.get(release(manifest.server_version))
    claim = f"RDB version {manifest.rdb_version} with the magic {manifest.rdb_magic}"
    server = f"{manifest.engine} {manifest.server_version}"
    if manifest.engine == "redis" and manifest.rdb_magic != "REDIS":
        return f"says that {server} wrote {claim}, which no Redis does"
    if writes is None:
        return None
    magic = "VALKEY" if writes >= _VALKEY_MAGIC_FROM else "REDIS"
    if (manifest.rdb_magic, manifest.rdb_version) != (magic, writes):
        return f"says that {server} wrote {claim}, but it writes version {writes} with {magic}"
    return None


def judge_freshness(by_offset: str, age: float, max_age: int | None) -> str:
    """`stale` also when older (seconds) than allowed; else what the offsets say."""
    return "stale" if max_age is not None and age > max_age else by_offset


def compare_counts(backup: Mapping[int, Counts], restored: Mapping[int, Counts]) -> str | None:
    """The first database that differs, in words; None when all are equal. Empty ones are absent."""
    empty = Counts(0, 0)
    for number in sorted(set(backup) | set(restored)):
        was, now = backup.get(number, empty), restored.get(number, empty)
        if was != now:
            return (
                f"db{number} had {was.keys} keys and {was.expires} expires in the backup,"
                f" the server that loaded it has {now.keys} and {now.expires}"
            )
    return None


def time_allowed(size: int) -> float:
    """Seconds that going through a file of so many bytes may take. Pure.

    Comparing takes less than 0.1 s per MiB, with every value decoded 1 s on a fast machine.
    """
    return 900 + 5 * size / 2**20


def describe(difference: Difference, counts: str | None) -> str:
    """What differs between a backup and what its server holds, in words. Pure."""
    parts = [
        f"db{database}: {', '.join(keys[:_NAMED])}" + (", ..." if len(keys) > _NAMED else "")
        for database, keys in difference.keys.items()
    ]
    if difference.beside:
        parts.append("functions or data of modules")
    if counts is not None:
        parts.append(counts)
    return "; ".join(parts)


def memory_available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of memory that the kernel can give now, None where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
