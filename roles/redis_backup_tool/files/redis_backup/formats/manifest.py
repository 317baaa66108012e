"""The manifest: what a backup is, in one JSON file that travels with it and is sent last.

The sha256 of the file's bytes is the identity of the backup: receipts and catalogue name it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256, Fields, parse_json
from . import document
from .settings import VALUE as SETTING

#: What backups are made for: by cron, by a person, before a restore, for the archive.
KINDS = ("nightly", "manual", "safety", "base")
#: The kinds of which one may be the newest backup.
COUNTING = ("nightly", "manual")
#: For people who typed something else.
EXAMPLE_ID = "20260131T000500Z-redis-2"
MANIFEST_NAME = "manifest.json"
PAYLOAD_NAME = "dump.rdb"
STORED_NAME = "dump.rdb.zst"
CODEC = "zstd"
# 16 databases by default, 10 000 at most in practice: a megabyte holds them all.
MAX_MANIFEST_BYTES = 1024 * 1024
_REPL_ID = re.compile(r"[0-9a-f]{40}")
# Bounded, because its numbers are compared as numbers and `int` fails on very many digits.
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){1,3}[A-Za-z0-9.+~-]{0,40}")
# Of a setting and of a phase, and how many of them there may be.
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_MOST_WORDS = 100
# Seconds that a phase may claim: far above anything real.
_LONGEST = 10**9
_DATABASE = re.compile(r"0|[1-9][0-9]{0,9}")


@dataclass(frozen=True)
class Counts:
    """Keys of one database at the moment of the fork, and how many of them have a time to live."""

    keys: int
    expires: int


@dataclass(frozen=True)
class StoredFile:
    """One file of a backup: sizes in bytes and sha256 (hex), plain and as it is stored."""

    name: str
    stored_name: str
    codec: str
    size: int
    sha256: str
    stored_size: int
    stored_sha256: str


@dataclass(frozen=True)
class Position:
    """A place in a replication history: its id (40 hex digits) and an offset (bytes)."""

    repl_id: str
    repl_offset: int


@dataclass(frozen=True)
class Manifest:
    """What a backup claims to be. `kind` is one of KINDS. `fork_time` is unix seconds, by the clock
    of the Redis host.

    `repl_id` and `repl_offset` are those inside the RDB, None where it has none. `master` is where
    the master was just before the snapshot was asked for, None where that is not known.
    `settings` are those of the server that decide how it writes an RDB (`formats.settings`), empty
    where they are not known. `seconds` is what each phase of making the backup took.
    """

    id: str
    set: str
    host: str
    engine: str
    server_version: str
    rdb_magic: str
    rdb_version: int
    repl_id: str | None
    repl_offset: int | None
    master: Position | None
    fork_time: int
    databases: Mapping[int, Counts]
    settings: Mapping[str, str]
    seconds: Mapping[str, float]
    files: tuple[StoredFile, ...]
    tool_version: str
    kind: str = "nightly"

    @property
    def keys(self) -> int:
        """Keys of all databases."""
        return sum(counts.keys for counts in self.databases.values())

    @property
    def payload(self) -> StoredFile:
        """The RDB of the backup."""
        return self.files[0]

    @property
    def freshness(self) -> str:
        """`ok`, `stale` or `unknown`: whether the snapshot holds all that the master had when it
        was asked for.
        """
        return freshness(self.repl_id, self.repl_offset, self.master)


def freshness(repl_id: str | None, repl_offset: int | None, master: Position | None) -> str:
    """Compare the position inside an RDB with the master's at the request: `ok`, `stale` or
    `unknown`.

    Offsets of two different histories say nothing about each other, so another id is `unknown`.
    """
    if master is None or repl_id is None or repl_offset is None or repl_id != master.repl_id:
        return "unknown"
    return "ok" if repl_offset >= master.repl_offset else "stale"


def make_id(unix_time: float, host: str) -> str:
    """The id of a backup or drill that starts at this time (seconds) on this host."""
    return (
        datetime.fromtimestamp(int(unix_time), timezone.utc).strftime("%Y%m%dT%H%M%SZ") + f"-{host}"
    )


def id_time(backup_id: str) -> int:
    """The unix time (seconds) inside an id. Raises ToolError when the id is not one."""
    if BACKUP_ID.fullmatch(backup_id) is None:
        raise ToolError(f"{backup_id[:80]!r} is not an id of the form YYYYMMDDTHHMMSSZ-<host>")
    try:
        moment = datetime.strptime(backup_id[:16] + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError:
        raise ToolError(f"{backup_id!r} is not an id: its time is not in any calendar") from None
    return int(moment.timestamp())


def id_host(backup_id: str) -> str:
    """The host inside an id."""
    return backup_id[17:]


def sha256(raw: bytes) -> str:
    """The identity of a manifest: sha256 (hex) of the bytes of its file."""
    return hashlib.sha256(raw).hexdigest()


def encode(manifest: Manifest) -> bytes:
    """The bytes of a manifest file."""
    return document.encode(to_json(manifest))


def decode(raw: bytes, where: str) -> Manifest:
    """Parse the bytes of a manifest file. Raises ToolError, which names `where`, when anything is
    off.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ToolError(f"{where}: larger than {MAX_MANIFEST_BYTES} bytes, this is no manifest")
    return from_json(parse_json(raw, where), where)


def to_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest as JSON data."""
    return {
        "id": manifest.id,
        "set": manifest.set,
        "kind": manifest.kind,
        "host": manifest.host,
        "engine": manifest.engine,
        "server_version": manifest.server_version,
        "rdb": {"magic": manifest.rdb_magic, "version": manifest.rdb_version},
        "repl_id": manifest.repl_id,
        "repl_offset": manifest.repl_offset,
        "master": (
            None
            if manifest.master is None
            else {"repl_id": manifest.master.repl_id, "repl_offset": manifest.master.repl_offset}
        ),
        "fork_time": manifest.fork_time,
        "databases": databases_to_json(manifest.databases),
        "settings": dict(manifest.settings),
        "seconds": dict(manifest.seconds),
        "files": [
            {
                "name": item.name,
                "stored_name": item.stored_name,
                "codec": item.codec,
                "size": item.size,
                "sha256": item.sha256,
                "stored_size": item.stored_size,
                "stored_sha256": item.stored_sha256,
            }
            for item in manifest.files
        ],
        "tool_version": manifest.tool_version,
    }


def databases_to_json(databases: Mapping[int, Counts]) -> dict[str, dict[str, int]]:
    """Counts per database as JSON data, in order of the database's number."""
    return {
        str(number): {"keys": databases[number].keys, "expires": databases[number].expires}
        for number in sorted(databases)
    }


def from_json(data: object, where: str) -> Manifest:
    """Validate JSON data as a manifest. Raises ToolError, which names `where` and the key."""
    fields = document.checked(data, where)
    rdb = fields.fields("rdb")
    manifest = Manifest(
        id=fields.text("id", BACKUP_ID),
        set=fields.text("set", NAME),
        host=fields.text("host", NAME),
        engine=fields.choice("engine", ("redis", "valkey")),
        server_version=fields.text("server_version", _VERSION),
        rdb_magic=rdb.choice("magic", ("REDIS", "VALKEY")),
        rdb_version=rdb.integer("version", 1, 9999),
        repl_id=fields.optional_text("repl_id", _REPL_ID),
        repl_offset=fields.optional_integer("repl_offset"),
        master=position(fields, "master"),
        fork_time=fields.integer("fork_time", 1),
        databases=_databases(fields),
        settings=_settings(fields),
        seconds=_seconds(fields),
        files=_files(fields),
        tool_version=fields.text("tool_version"),
        kind=fields.choice("kind", KINDS),
    )
    id_time(manifest.id)
    if id_host(manifest.id) != manifest.host:
        raise fields.fail(f"id {manifest.id} is not one of host {manifest.host}")
    return manifest


def position(fields: Fields, key: str) -> Position | None:
    """The position under a key of a document, None where there is none."""
    if not fields.has(key):
        return None
    item = fields.fields(key)
    return Position(item.text("repl_id", _REPL_ID), item.integer("repl_offset"))


def _words(fields: Fields, key: str) -> tuple[Fields, list[str]]:
    """An object with free keys, and those, or with none where it is absent."""
    if not fields.has(key):
        return Fields({}, key), []
    words = list(fields.mapping(key))
    if len(words) > _MOST_WORDS:
        raise fields.fail(f'"{key}" has {len(words)} keys, more than {_MOST_WORDS}')
    for word in words:
        if _WORD.fullmatch(word) is None:
            raise fields.fail(f'"{key}" has a key of a form that is not allowed: {word[:80]!r}')
    return fields.fields(key), words


def _settings(fields: Fields) -> dict[str, str]:
    item, names = _words(fields, "settings")
    return {name: item.text(name, SETTING) for name in names}


def _seconds(fields: Fields) -> dict[str, float]:
    item, phases = _words(fields, "seconds")
    seconds = {phase: item.number(phase) for phase in phases}
    if any(spent > _LONGEST for spent in seconds.values()):
        raise item.fail(f"more than {_LONGEST} seconds")
    return seconds


def _databases(fields: Fields) -> dict[int, Counts]:
    databases = {}
    for number in fields.mapping("databases"):
        if _DATABASE.fullmatch(number) is None:
            raise fields.fail(f'"databases": {number[:20]!r} is not the number of a database')
        item = fields.fields("databases").fields(number)
        counts = Counts(item.integer("keys"), item.integer("expires"))
        if counts.expires > counts.keys:
            raise item.fail("more keys that expire than keys")
        databases[int(number)] = counts
    return databases


def _files(fields: Fields) -> tuple[StoredFile, ...]:
    files = []
    for item in fields.each("files"):
        files.append(
            StoredFile(
                name=item.choice("name", (PAYLOAD_NAME,)),
                stored_name=item.choice("stored_name", (STORED_NAME,)),
                codec=item.choice("codec", (CODEC,)),
                size=item.integer("size", 1),
                sha256=item.text("sha256", SHA256),
                stored_size=item.integer("stored_size", 1),
                stored_sha256=item.text("stored_sha256", SHA256),
            )
        )
    if len(files) != 1:
        raise fields.fail(
            f'"files" must name exactly one file, {PAYLOAD_NAME}; it names {len(files)}'
        )
    return tuple(files)
