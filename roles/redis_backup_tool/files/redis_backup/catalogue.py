"""The catalogue of a set: one JSON line per event, each with the hash of the line before, and its
own, which holds the last line too.

A line that was edited, removed or moved breaks the chain from there on. A set or a drill's report
without a line and a line without a set are found by comparing with the store (`verify`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import ToolError
from .fields import BACKUP_ID, NAME, SHA256, Fields, is_backup_id, parse_json

CATALOGUE_NAME = "catalogue.jsonl"
EVENTS = ("accepted", "drilled", "pruned")
FIRST_PREVIOUS = "0" * 64


class CatalogueError(ToolError):
    """The catalogue is not what was written: nothing may be added to it before somebody looked."""


@dataclass(frozen=True)
class Entry:
    """One line. `at` is ISO 8601 UTC by the backup server's clock. `host` made the backup, or
    drilled it.
    """

    event: str
    id: str
    set: str
    at: str
    manifest_sha256: str
    host: str
    previous: str
    drill_id: str | None = None
    level: str | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Catalogue:
    """All lines of a set in the order in which they were written, with the chain checked.

    `head` is what the next line must carry as `previous`. `complete_bytes` is where the last whole
    line ends: what follows it (`torn`) is a line whose writer was killed.
    """

    set: str
    entries: tuple[Entry, ...]
    head: str
    complete_bytes: int
    torn: bool

    def accepted(self) -> dict[str, Entry]:
        """Every backup that was ever accepted, by id, in order, pruned ones too."""
        return {entry.id: entry for entry in self.entries if entry.event == "accepted"}

    def pruned(self) -> frozenset[str]:
        """The ids that have a tombstone."""
        return frozenset(entry.id for entry in self.entries if entry.event == "pruned")

    def present(self) -> dict[str, Entry]:
        """Every backup that must be in the store, by id, in the order in which they were accepted:
        ids carry the clocks of the hosts, which may be wrong.
        """
        gone = self.pruned()
        return {key: entry for key, entry in self.accepted().items() if key not in gone}

    def newest(self) -> Entry | None:
        """The last accepted line whose backup must be in the store, None when there is none."""
        return next(reversed(list(self.present().values())), None)

    def drills(self, backup_id: str) -> list[Entry]:
        """The drills of one backup, in order."""
        return self._drills[0].get(backup_id, [])

    def has_drill(self, drill_id: str) -> bool:
        """Whether this drill has its line."""
        return drill_id in self._drills[1]

    @cached_property
    def _drills(self) -> tuple[dict[str, list[Entry]], frozenset[str | None]]:
        """The drills by backup, and their ids: both are asked for once per backup and report."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.event == "drilled":
                found.setdefault(entry.id, []).append(entry)
        return found, frozenset(entry.drill_id for drills in found.values() for entry in drills)


def timestamp(unix_time: float) -> str:
    """ISO 8601 in UTC with whole seconds, as lines and receipts carry it."""
    return datetime.fromtimestamp(int(unix_time), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_timestamp(text: str) -> int:
    """Unix time (seconds) of a timestamp as written by `timestamp`. Raises ValueError."""
    moment = datetime.strptime(text + "+0000", "%Y-%m-%dT%H:%M:%SZ%z")
    return int(moment.timestamp())


def encode(entry: Entry, *, sealed: bool = True) -> bytes:
    """The bytes of a line, without its newline. Keys that do not apply are left out. `sealed`:
    with the sha256 of these bytes as the last key; lines of an older release have none.
    """
    data: dict[str, Any] = {
        "event": entry.event,
        "id": entry.id,
        "set": entry.set,
        "at": entry.at,
        "manifest_sha256": entry.manifest_sha256,
        "host": entry.host,
        "drill_id": entry.drill_id,
        "level": entry.level,
        "verdict": entry.verdict,
        "previous": entry.previous,
    }
    kept = {key: value for key, value in data.items() if value is not None}
    line = json.dumps(kept, separators=(",", ":")).encode("utf-8")
    if sealed:
        kept["line_sha256"] = line_hash(line)
        line = json.dumps(kept, separators=(",", ":")).encode("utf-8")
    return line


def line_hash(line: bytes) -> str:
    """What the next line carries as `previous`: sha256 (hex) of the line without its newline."""
    return hashlib.sha256(line).hexdigest()


def parse(raw: bytes, set_name: str) -> Catalogue:
    """Parse a catalogue and check its chain. Raises CatalogueError, which names
    `<set>/catalogue.jsonl` and the line.
    """
    where = f"{set_name}/{CATALOGUE_NAME}"
    complete = raw.rfind(b"\n") + 1
    entries: list[Entry] = []
    events: dict[str, set[str]] = {}
    head = FIRST_PREVIOUS
    for number, line in enumerate(raw[:complete].splitlines(keepends=True), start=1):
        text = line[:-1] if line.endswith(b"\n") else line
        entry = _entry(text, f"{where} line {number}")
        if entry.set != set_name:
            raise CatalogueError(f"{where} line {number}: is about set {entry.set}")
        if entry.previous != head:
            raise CatalogueError(
                f"{where} line {number}: does not carry the hash of the line before it:"
                " a line was edited, removed or moved; compare with a copy before anything is added"
            )
        before = events.setdefault(entry.id, set())
        _check_order(entry, before, f"{where} line {number}")
        before.add(entry.event)
        entries.append(entry)
        head = line_hash(text)
    return Catalogue(
        set=set_name,
        entries=tuple(entries),
        head=head,
        complete_bytes=complete,
        torn=complete != len(raw),
    )


def read(set_dir: Path) -> Catalogue:
    """Read the catalogue of a set's directory (its name is the set's). Raises CatalogueError, also
    for one without lines beside several backups; beside none or one it is that of a new set.
    """
    found = read_lines(set_dir)
    if not found.entries:
        with suppress(FileNotFoundError):
            names = (path.name for path in set_dir.iterdir())
            backups = sorted(name for name in names if is_backup_id(name))
            if len(backups) > 1:
                raise CatalogueError(lost_lines(set_dir.name, "is gone", backups))
    return found


def read_lines(set_dir: Path) -> Catalogue:
    """As `read`, whatever lies beside it; a missing file has no lines."""
    try:
        raw = (set_dir / CATALOGUE_NAME).read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as problem:
        raise CatalogueError(
            f"{set_dir.name}/{CATALOGUE_NAME}: cannot be read ({problem.strerror})"
        ) from None
    return parse(raw, set_dir.name)


def lost_lines(set_name: str, seen: str, backups: Sequence[str]) -> str:
    """What to tell when backups have no line and no killed run explains it."""
    named = ", ".join([*backups[:1], *(["..."] if len(backups) > 2 else []), *backups[1:][-1:]])
    return (
        f"{set_name}/{CATALOGUE_NAME}: the catalogue {seen}, {len(backups)}"
        f" {'backups have' if len(backups) > 1 else 'backup has'} no line: {named};"
        " nothing is accepted into this set or deleted from it: put back the newest copy of the"
        f" file if there is one, then run `redis-backup accept --rebuild {set_name}`"
    )


def append(set_dir: Path, entry: Entry) -> Catalogue:
    """Write a line, durably, and return the catalogue with it. `entry.previous` is filled in here.

    Only the holder of the store's lock may call this. A line whose writer was killed half-way is
    cut off first: nobody was told of it. Raises CatalogueError when the chain is broken, OSError
    when the disk fails.
    """
    before = read_lines(set_dir)
    entry = Entry(**{**vars(entry), "previous": before.head})
    events = {item.event for item in before.entries if item.id == entry.id}
    _check_order(entry, events, f"{set_dir.name}/{CATALOGUE_NAME}")
    line = encode(entry)
    _entry(line, f"{set_dir.name}/{CATALOGUE_NAME}")
    descriptor = os.open(
        set_dir / CATALOGUE_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
    )
    try:
        if before.torn:
            os.ftruncate(descriptor, before.complete_bytes)
        os.lseek(descriptor, before.complete_bytes, os.SEEK_SET)
        _write_all(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _fsync_directory(set_dir)
    return Catalogue(
        set=before.set,
        entries=(*before.entries, entry),
        head=line_hash(line),
        complete_bytes=before.complete_bytes + len(line) + 1,
        torn=False,
    )


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_order(entry: Entry, events: Set[str], where: str) -> None:
    """An id is accepted once; only what was accepted is drilled or pruned, and a tombstone is
    final. `events` are those of the same id before.
    """
    if entry.event == "accepted" and events:
        raise CatalogueError(f"{where}: {entry.id} is accepted a second time")
    if entry.event != "accepted" and "accepted" not in events:
        raise CatalogueError(f"{where}: {entry.id} is {entry.event} but was never accepted")
    if entry.event == "pruned" and "pruned" in events:
        raise CatalogueError(f"{where}: {entry.id} is pruned a second time")


def _entry(line: bytes, where: str) -> Entry:
    fields = Fields(parse_json(line, where, CatalogueError), where, CatalogueError)
    event = fields.choice("event", EVENTS)
    drilled = event == "drilled"
    entry = Entry(
        event=event,
        id=fields.text("id", BACKUP_ID),
        set=fields.text("set", NAME),
        at=fields.text("at"),
        manifest_sha256=fields.text("manifest_sha256", SHA256),
        host=fields.text("host", NAME),
        previous=fields.text("previous", SHA256),
        drill_id=fields.text("drill_id", BACKUP_ID) if drilled else None,
        level=fields.text("level") if drilled else None,
        verdict=fields.text("verdict") if drilled else None,
    )
    sealed = fields.optional_text("line_sha256", SHA256) is not None
    fields.done()
    if encode(entry, sealed=sealed) != line:
        raise CatalogueError(
            f"{where}: is not as it was written: its own hash does not fit; compare with a copy"
            " before anything is added"
        )
    try:
        parse_timestamp(entry.at)
    except ValueError:
        raise CatalogueError(f'{where}: "at" is not a time: {entry.at[:40]!r}') from None
    return entry
