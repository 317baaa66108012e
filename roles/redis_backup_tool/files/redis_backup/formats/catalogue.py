"""The catalogue of a set: one JSON line per event, each with the hash of the line before, and its
own, which holds the last line too. `repository.catalogue` reads and writes the file.

A line that was edited, removed or moved breaks the chain from there on. A set or a drill's report
without a line and a line without a set are found by comparing with the store (`verify`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256, Fields, parse_json

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

    def deleted_on(self, backup_id: str) -> str | None:
        """The day on which retention deleted a backup, None when it did not."""
        found = (entry for entry in self.entries if entry.event == "pruned")
        return next((entry.at[:10] for entry in found if entry.id == backup_id), None)

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
        entry = decode(text, f"{where} line {number}")
        if entry.set != set_name:
            raise CatalogueError(f"{where} line {number}: is about set {entry.set}")
        if entry.previous != head:
            raise CatalogueError(
                f"{where} line {number}: does not carry the hash of the line before it:"
                " a line was edited, removed or moved; compare with a copy before anything is added"
            )
        before = events.setdefault(entry.id, set())
        check_order(entry, before, f"{where} line {number}")
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


def check_order(entry: Entry, events: Set[str], where: str) -> None:
    """An id is accepted once; only what was accepted is drilled or pruned, and a tombstone is
    final. `events` are those of the same id before. Raises CatalogueError.
    """
    if entry.event == "accepted" and events:
        raise CatalogueError(f"{where}: {entry.id} is accepted a second time")
    if entry.event != "accepted" and "accepted" not in events:
        raise CatalogueError(f"{where}: {entry.id} is {entry.event} but was never accepted")
    if entry.event == "pruned" and "pruned" in events:
        raise CatalogueError(f"{where}: {entry.id} is pruned a second time")


def decode(line: bytes, where: str) -> Entry:
    """One line without its newline. Raises CatalogueError, which names `where`."""
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
