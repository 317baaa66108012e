"""Whether a walked RDB is the one that a manifest describes. Pure."""

from __future__ import annotations

from ..base.fields import whole_number
from ..rdb import walker
from .manifest import Counts, Manifest


def compare(info: walker.RdbInfo, manifest: Manifest) -> str | None:
    """What in an RDB disagrees with the manifest, None when nothing does. Pure."""
    if (info.magic, info.rdb_version) != (manifest.rdb_magic, manifest.rdb_version):
        return other_version(info.magic, info.rdb_version, manifest)
    if info.aux.get("ctime") != str(manifest.fork_time):
        return f"made at {info.aux.get('ctime')}, the manifest says {manifest.fork_time}"
    position = replication_position(info)
    if position != (manifest.repl_id, manifest.repl_offset):
        return (
            f"replication position is {position}, the manifest says"
            f" {(manifest.repl_id, manifest.repl_offset)}"
        )
    found = counts_of(info)
    for number in sorted(set(found) | set(manifest.databases)):
        here = found.get(number, Counts(0, 0))
        claimed = manifest.databases.get(number, Counts(0, 0))
        if here != claimed:
            return (
                f"db{number} has {here.keys} keys, {here.expires} that expire;"
                f" the manifest says {claimed.keys} and {claimed.expires}"
            )
    return None


def counts_of(info: walker.RdbInfo) -> dict[int, Counts]:
    """The counts per database of a walked RDB, as the manifest has them."""
    return {number: Counts(item.keys, item.expires) for number, item in info.databases.items()}


def replication_position(info: walker.RdbInfo) -> tuple[str | None, int | None]:
    """`repl-id` and `repl-offset` of a walked RDB, None and None where it has none or they are not
    usable.
    """
    repl_id, offset = info.aux.get("repl-id"), info.aux.get("repl-offset")
    number = None if offset is None else whole_number(offset)
    if repl_id is None or number is None:
        return None, None
    return repl_id, number


def other_version(magic: str, version: int, manifest: Manifest) -> str:
    """What to say of a file whose header is not the manifest's."""
    return (
        f"the file is {magic} version {version},"
        f" the manifest says {manifest.rdb_magic} version {manifest.rdb_version}"
    )
