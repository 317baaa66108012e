"""The catalogue of a set: one JSON line per event, each with a number, the hash of the line before,
and its own. It is an index: every line can be written again from a document beside the backup,
the report or in `events/` (`repository.ledger`).

A line that was edited, removed or moved breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cached_property
from typing import Any

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, SHA256, Fields, parse_json
from ..base.times import parse_timestamp
from . import document
from .manifest import COUNTING, KINDS

CATALOGUE_NAME = "catalogue.jsonl"
EVENTS = ("accepted", "drilled", "verified", "kept", "acknowledged", "pruned")
FIRST_PREVIOUS = "0" * 64
_SEAL = re.compile(rb',"line_sha256":"([0-9a-f]{64})"\}')


class CatalogueError(ToolError):
    """The catalogue is not what was written: nothing may be added to it before somebody looked."""


@dataclass(frozen=True)
class Entry:
    """One line. `n` counts the events of the set; `at` is ISO 8601 UTC by the backup server's
    clock; `host` made the backup, or drilled it. What an event does not have is None.

    Of *accepted*: `kind`, `level` (proved when it was accepted), `fork_time` (unix seconds by the
    clock of the Redis host), `keys` (of all databases), `size` and `stored_size` (bytes), and
    `shrunk_from`: the backup than which it is much smaller. Of *drilled*: `drill_id`, `level`,
    `verdict`. Of *verified*: `ok`, `level`, `reason`. Of *kept*: `until` (as `at`).
    """

    event: str
    id: str
    set: str
    at: str
    manifest_sha256: str
    host: str
    n: int = 0
    previous: str = FIRST_PREVIOUS
    kind: str | None = None
    level: str | None = None
    fork_time: int | None = None
    keys: int | None = None
    size: int | None = None
    stored_size: int | None = None
    shrunk_from: str | None = None
    drill_id: str | None = None
    verdict: str | None = None
    ok: bool | None = None
    reason: str | None = None
    until: str | None = None

    @property
    def moment(self) -> int:
        """Of which moment the data are (unix seconds): that of the fork, and never later than the
        acceptance, whatever the clock of the Redis host said.
        """
        accepted = parse_timestamp(self.at)
        return accepted if self.fork_time is None else min(self.fork_time, accepted)


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

    @property
    def next(self) -> int:
        """The number of the next event."""
        return self.entries[-1].n + 1 if self.entries else 1

    def accepted(self) -> Mapping[str, Entry]:
        """Every backup that was ever accepted, by id, in order, pruned ones too."""
        return self._of("accepted")

    def pruned(self) -> Set[str]:
        """The ids that have a tombstone."""
        return self._of("pruned").keys()

    def deleted_on(self, backup_id: str) -> str | None:
        """The day on which retention deleted a backup, None when it did not."""
        entry = self._of("pruned").get(backup_id)
        return None if entry is None else entry.at[:10]

    def present(self) -> Mapping[str, Entry]:
        """Every backup that must be in the store, by id, in the order in which they were
        accepted.
        """
        return self._present

    def verdict(self, backup_id: str) -> Entry | None:
        """What the last reading said of a backup, None when none said another thing than the one
        before.
        """
        return self._of("verified").get(backup_id)

    def verified(self, backup_id: str) -> bool:
        """Whether nothing that was read since speaks against an accepted backup."""
        verdict = self.verdict(backup_id)
        return verdict is None or bool(verdict.ok)

    def kept_until(self, backup_id: str) -> int | None:
        """Until when (unix seconds) an operator keeps a backup, None without such a mark."""
        entry = self._of("kept").get(backup_id)
        return None if entry is None or entry.until is None else parse_timestamp(entry.until)

    def shrunk(self) -> Mapping[str, str]:
        """The backups in the store that are much smaller than the one before and that nobody
        acknowledged, with that one.
        """
        return self._shrunk

    def newest(self) -> Entry | None:
        """The backup with the latest data, among those that count: of a kind that does, verified
        and not marked as shrunk. None when there is none.
        """
        marked = self.shrunk()
        counting = [
            entry
            for key, entry in self._present.items()
            if entry.kind in COUNTING and self.verified(key) and key not in marked
        ]
        return max(counting, key=lambda entry: (entry.moment, entry.n), default=None)

    def drills(self, backup_id: str) -> list[Entry]:
        """The drills of one backup, in order."""
        return self._drills[0].get(backup_id, [])

    def has_drill(self, drill_id: str) -> bool:
        """Whether this drill has its line."""
        return drill_id in self._drills[1]

    def _of(self, event: str) -> dict[str, Entry]:
        return self._last.get(event, {})

    @cached_property
    def _last(self) -> dict[str, dict[str, Entry]]:
        """By event, the last line about each backup."""
        found: dict[str, dict[str, Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.event, {})[entry.id] = entry
        return found

    @cached_property
    def _present(self) -> dict[str, Entry]:
        gone = self.pruned()
        return {key: entry for key, entry in self.accepted().items() if key not in gone}

    @cached_property
    def _shrunk(self) -> dict[str, str]:
        known = self._of("acknowledged")
        return {
            key: entry.shrunk_from
            for key, entry in self._present.items()
            if entry.shrunk_from is not None and key not in known
        }

    @cached_property
    def _drills(self) -> tuple[dict[str, list[Entry]], frozenset[str | None]]:
        """The drills by backup, and their ids: both are asked for once per backup and report."""
        found: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.event == "drilled":
                found.setdefault(entry.id, []).append(entry)
        return found, frozenset(entry.drill_id for drills in found.values() for entry in drills)


_KEYS = tuple(field.name for field in dataclass_fields(Entry) if field.name != "previous")


def to_json(entry: Entry) -> dict[str, Any]:
    """An event as JSON data, without its place in the chain. What it does not have is left out."""
    values = {key: getattr(entry, key) for key in _KEYS}
    return {key: value for key, value in values.items() if value is not None}


def from_fields(fields: Fields) -> Entry:
    """An event out of a document; keys that nobody asked for are ignored. Raises the error of the
    fields.
    """
    event = fields.choice("event", EVENTS)
    accepted, drilled, verified = (event == name for name in ("accepted", "drilled", "verified"))
    entry = Entry(
        event=event,
        id=fields.text("id", BACKUP_ID),
        set=fields.text("set", NAME),
        at=fields.text("at"),
        manifest_sha256=fields.text("manifest_sha256", SHA256),
        host=fields.text("host", NAME),
        n=fields.integer("n", 1),
        kind=fields.choice("kind", KINDS) if accepted else None,
        level=fields.text("level") if accepted or drilled or verified else None,
        fork_time=fields.integer("fork_time", 1) if accepted else None,
        keys=fields.integer("keys") if accepted else None,
        size=fields.integer("size", 1) if accepted else None,
        stored_size=fields.integer("stored_size", 1) if accepted else None,
        shrunk_from=fields.optional_text("shrunk_from", BACKUP_ID) if accepted else None,
        drill_id=fields.text("drill_id", BACKUP_ID) if drilled else None,
        verdict=fields.text("verdict") if drilled else None,
        ok=fields.boolean("ok") if verified else None,
        reason=fields.optional_text("reason") if verified else None,
        until=fields.text("until") if event == "kept" else None,
    )
    for key in ("at", "until"):
        value = getattr(entry, key)
        try:
            if value is not None:
                parse_timestamp(value)
        except ValueError:
            raise fields.fail(f'"{key}" is not a time: {value[:40]!r}') from None
    return entry


def encode(entry: Entry) -> bytes:
    """The bytes of a line, without its newline. Its last key is the sha256 of the bytes before
    that, closed with a brace.
    """
    data = {"schema": document.SCHEMA, **to_json(entry), "previous": entry.previous}
    line = json.dumps(data, separators=(",", ":")).encode("utf-8")
    return line[:-1] + f',"line_sha256":"{line_hash(line)}"}}'.encode("ascii")


def line_hash(line: bytes) -> str:
    """What the next line carries as `previous`: sha256 (hex) of the line without its newline."""
    return hashlib.sha256(line).hexdigest()


def decode(line: bytes, where: str) -> Entry:
    """One line without its newline. Raises CatalogueError, which names `where`."""
    seal = _SEAL.fullmatch(line, max(0, len(line) - 82))
    if seal is None or line_hash(line[: seal.start()] + b"}") != seal[1].decode("ascii"):
        raise CatalogueError(f"{where}: is not as it was written: its own hash does not fit")
    fields = document.checked(parse_json(line, where, CatalogueError), where, CatalogueError)
    return replace(from_fields(fields), previous=fields.text("previous", SHA256))


def parse(raw: bytes, set_name: str, before: Catalogue | None = None) -> Catalogue:
    """Parse a catalogue and check its chain; `before` is what the first lines of it were parsed to.
    Raises CatalogueError, which names `<set>/catalogue.jsonl`, the line and what to do.
    """
    where = f"{set_name}/{CATALOGUE_NAME}"
    complete = raw.rfind(b"\n") + 1
    before = before or Catalogue(set_name, (), FIRST_PREVIOUS, 0, torn=False)
    chain = Chain(set_name, before.entries)
    head = before.head
    lines = raw[before.complete_bytes : complete].split(b"\n")[:-1]
    for number, line in enumerate(lines, start=len(before.entries) + 1):
        try:
            entry = decode(line, f"{where} line {number}")
            if entry.previous != head:
                raise CatalogueError(
                    f"{where} line {number}: does not carry the hash of the line before it: a line"
                    " was edited, removed or moved"
                )
            chain.add(entry, f"{where} line {number}")
        except CatalogueError as problem:
            raise CatalogueError(
                f"{problem}; nothing is accepted into this set or deleted from it; on the backup"
                f" server, `redis-backup reindex {set_name}` writes the catalogue again from what"
                " lies beside the backups"
            ) from None
        head = line_hash(line)
    return Catalogue(
        set=set_name,
        entries=tuple(chain.entries),
        head=head,
        complete_bytes=complete,
        torn=complete != len(raw),
    )


class Chain:
    """Events in their order: an id is accepted once, only what was accepted has others, and a
    tombstone is final.
    """

    def __init__(self, set_name: str, entries: Iterable[Entry] = ()) -> None:
        self.set = set_name
        self.entries: list[Entry] = []
        self._accepted: set[str] = set()
        self._pruned: set[str] = set()
        for entry in entries:
            self.add(entry, set_name)

    def add(self, entry: Entry, where: str) -> None:
        """Take the next event. Raises CatalogueError, which names `where`."""
        if entry.set != self.set:
            raise CatalogueError(f"{where}: is about set {entry.set}")
        if self.entries and entry.n <= self.entries[-1].n:
            raise CatalogueError(f"{where}: is event {entry.n}, after event {self.entries[-1].n}")
        if entry.event == "accepted":
            if entry.id in self._accepted:
                raise CatalogueError(f"{where}: {entry.id} is accepted a second time")
            self._accepted.add(entry.id)
        elif entry.id not in self._accepted:
            raise CatalogueError(f"{where}: {entry.id} is {entry.event} but was never accepted")
        if entry.event == "pruned":
            if entry.id in self._pruned:
                raise CatalogueError(f"{where}: {entry.id} is pruned a second time")
            self._pruned.add(entry.id)
        self.entries.append(entry)
