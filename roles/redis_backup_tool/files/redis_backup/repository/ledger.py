"""What is written down of backups: documents beside them, lines of the catalogue, receipts.

Each event has its truth in a document that is there before its line, so whatever a killed run left
is finished by the next one, and the whole catalogue can be written again:

* *accepted*: `<set>/<id>/receipt.json`, which appears with the backup;
* *drilled*: `<set>/drills/<drill id>/receipt.json`, which appears with the report;
* the others: `<set>/events/<n>-<event>.json`. A tombstone has the accepted event with it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..base.errors import NotNow, ToolError
from ..base.fields import whole_number
from ..base.files import check_owner, fsync_directory, locked, make_directory, write_durably
from ..base.times import timestamp
from ..config.model import ServerConfig
from ..formats import catalogue as formats
from ..formats import document, receipts
from ..formats.catalogue import (
    CATALOGUE_NAME,
    FIRST_PREVIOUS,
    Catalogue,
    CatalogueError,
    Entry,
)
from ..formats.receipts import ACCEPTED, RECEIPT_NAME, Receipt
from ..formats.report import REPORT_NAME
from . import catalogue as catalogue_module
from . import store

#: How long the lock of the store is waited for (seconds): it is held for moments.
LOCK_TIMEOUT = 60.0
_LOCK_POLL = 0.02  # seconds


@contextmanager
def store_lock(directory: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """The lock under which anything in the store is changed. Raises ToolError when it never comes,
    or the store cannot be written.
    """
    deadline = time.monotonic() + timeout
    with ExitStack() as held:
        while True:
            try:
                check_owner(directory)
                held.enter_context(locked(directory / store.LOCK_NAME))
                break
            except NotNow:
                if time.monotonic() >= deadline:
                    raise ToolError(
                        f"{directory / store.LOCK_NAME}: another run of redis-backup held it for"
                        f" {timeout:.0f} s, which is for moments as a rule: is the disk stuck?"
                        f" `fuser -v {directory / store.LOCK_NAME}` names its process"
                    ) from None
                time.sleep(_LOCK_POLL)
            except OSError as problem:
                raise ToolError(
                    f"{directory}: the store cannot be written ({problem.strerror}); run as the"
                    " user redis-backup"
                ) from None
        yield


class Ledger:
    """The catalogue of one set, under the store's lock: opened, what a killed run left in it
    finished, and added to. `finished` are the events whose lines were missing.

    Raises CatalogueError when the catalogue is damaged, and ToolError or OSError when a document
    cannot be read.
    """

    def __init__(self, config: ServerConfig, set_name: str) -> None:
        self.config = config
        self.set_dir = config.store / set_name
        make_directory(self.set_dir)
        self.known = catalogue_module.read(self.set_dir)
        _clear(self.set_dir / store.EVENTS_NAME)
        missing = sorted(_missing(self.set_dir, self.known), key=lambda entry: entry.n)
        if missing and missing[0].n < self.known.next:
            raise CatalogueError(
                f"{set_name}/{CATALOGUE_NAME}: has no line for event {missing[0].n}"
                f" ({missing[0].event}: {missing[0].id}), and lines for later ones; run"
                f" `redis-backup reindex {set_name}`"
            )
        self.finished: Sequence[Entry] = missing
        if missing or self.known.torn:
            self.known = catalogue_module.append(self.set_dir, self.known, missing)
        for entry in missing:
            if entry.event == "accepted":
                self.publish(entry.id)

    def accept(self, work: Path, receipt: Receipt) -> None:
        """Take a verified backup from `work` into the store: with its receipt, which says when and
        as what, by one rename. Then its line, then the copy of the receipt.
        """
        event = self._numbered(receipt.event)
        write_durably(work / RECEIPT_NAME, receipts.encode(replace(receipt, event=event)), 0o400)
        work.rename(self.set_dir / receipt.id)
        fsync_directory(self.set_dir)
        self._append(event)
        self.publish(receipt.id)

    def take_report(self, work: Path, receipt: Receipt) -> Receipt:
        """As `accept`, for the report of a drill. One that drilled no backup has no line: there is
        nothing to say it of.
        """
        event = None if receipt.event is None else self._numbered(receipt.event)
        receipt = replace(receipt, event=event)
        raw = receipts.encode(receipt)
        write_durably(work / RECEIPT_NAME, raw, 0o400)
        drills = self.set_dir / store.DRILLS_NAME
        make_directory(drills)
        work.rename(drills / receipt.id)
        fsync_directory(drills)
        if event is not None:
            self._append(event)
        return receipt

    def record(self, event: Entry) -> None:
        """Any other event about a backup in the store: its document, then its line."""
        self.record_all([event])

    def record_all(self, events: Iterable[Entry]) -> None:
        """As `record`, of several at once."""
        numbered = [replace(event, n=self.known.next + index) for index, event in enumerate(events)]
        if not numbered:
            return
        directory = self.set_dir / store.EVENTS_NAME
        make_directory(directory)
        for event in numbered:
            accepted = self.known.accepted()[event.id] if event.event == "pruned" else None
            data = {
                **formats.to_json(event),
                "accepted": None if accepted is None else formats.to_json(accepted),
            }
            path = directory / f"{event.n:08d}-{event.event}.json"
            write_durably(path, document.encode(data), 0o400, sync_directory=False)
        fsync_directory(directory)
        self.known = catalogue_module.append(self.set_dir, self.known, numbered)

    def about(self, backup_id: str, event: str, now: float) -> Entry:
        """The beginning of an event about an accepted backup."""
        accepted = self.known.accepted()[backup_id]
        return Entry(
            event=event,
            id=accepted.id,
            set=accepted.set,
            at=timestamp(now),
            manifest_sha256=accepted.manifest_sha256,
            host=accepted.host,
        )

    def publish(self, backup_id: str) -> None:
        """Give the hosts of the set the receipt of a backup in the store."""
        raw = (self.set_dir / backup_id / RECEIPT_NAME).read_bytes()
        directory = self.config.receipts / self.set_dir.name
        make_directory(directory)
        write_durably(directory / f"{backup_id}.json", raw)

    def _numbered(self, event: Entry | None) -> Entry:
        if event is None:
            raise ValueError("an accepted backup has an event")
        return replace(event, n=self.known.next)

    def _append(self, event: Entry) -> None:
        self.known = catalogue_module.append(self.set_dir, self.known, [event])


def reindex(config: ServerConfig, set_name: str) -> tuple[Catalogue, list[str]]:
    """Write the catalogue of a set again from the documents, under the store's lock. Returns it,
    and what could not be read: such a backup has no line then. Raises ToolError, OSError.
    """
    set_dir = config.store / set_name
    problems: list[str] = []
    events: dict[int, Entry] = {}
    for read in _documents(set_dir):
        try:
            found = read()
        except ToolError as problem:
            problems.append(str(problem))
            continue
        for event in found:
            if events.setdefault(event.n, event) != event:
                problems.append(
                    f"{set_name}: two documents are event {event.n}: {events[event.n].event} of"
                    f" {events[event.n].id} and {event.event} of {event.id}"
                )
    accepted = {event.id for event in events.values() if event.event == "accepted"}
    kept = []
    for number in sorted(events):
        if events[number].id in accepted:
            kept.append(events[number])
        else:
            problems.append(
                f"{set_name}: event {number} is about {events[number].id}, whose receipt is gone"
            )
    return catalogue_module.rewrite(set_dir, kept), problems


def _clear(directory: Path) -> None:
    """Remove what a run that was killed in the middle of a document left of it."""
    with suppress(FileNotFoundError):
        for name in os.listdir(directory):
            if name.startswith("."):
                (directory / name).unlink()


def differences(set_dir: Path, known: Catalogue) -> Iterator[str]:
    """What the documents of a set and the lines of its catalogue disagree about, one complaint
    each. An event behind the last line is none: a run is between the two, or was killed there.
    """
    lines = {entry.n: replace(entry, previous=FIRST_PREVIOUS) for entry in known.entries}
    proven: set[int] = set()
    for read in _documents(set_dir):
        try:
            found = read()
        except ToolError as problem:
            yield str(problem)
            continue
        for event in found:
            line = lines.get(event.n)
            proven.add(event.n)
            if event.n < known.next and event != line:
                yield (
                    f"{set_dir.name}: the document of event {event.n} ({event.event}: {event.id})"
                    f" is not what {CATALOGUE_NAME} says: one of them was changed or damaged"
                )
    there = set(store.backup_ids(set_dir))
    for number in sorted(set(lines) - proven):
        line = lines[number]
        # The directory of a backup that is gone is another complaint.
        if line.event != "accepted" or line.id in there:
            yield (
                f"{set_dir.name}: event {number} ({line.event}: {line.id}) has a line in"
                f" {CATALOGUE_NAME} and no document that can be read: restore it from a copy"
            )


def _missing(set_dir: Path, known: Catalogue) -> Iterator[Entry]:
    """The events that have a document and no line. By the names alone, so that a store of
    thousands of backups costs a listing.
    """
    accepted = known.accepted()
    for backup_id in store.backup_ids(set_dir):
        if backup_id not in accepted and (set_dir / backup_id / RECEIPT_NAME).exists():
            yield _of_receipt(set_dir, set_dir / backup_id)
    for drill_id in store.drill_ids(set_dir):
        if not known.has_drill(drill_id):
            yield from _of_report(set_dir, drill_id)
    numbers = {entry.n for entry in known.entries}
    for path in store.event_paths(set_dir):
        if whole_number(path.name.partition("-")[0]) not in numbers:
            yield _of_document(set_dir, path)[0]


def _documents(set_dir: Path) -> Iterator[Callable[[], list[Entry]]]:
    """One function per document, which reads its events."""
    for backup_id in store.backup_ids(set_dir):
        yield lambda path=set_dir / backup_id: [_of_receipt(set_dir, path)]  # type: ignore[misc]
    for drill_id in store.drill_ids(set_dir):
        yield lambda name=drill_id: _of_report(set_dir, name)  # type: ignore[misc]
    for path in store.event_paths(set_dir):
        yield lambda path=path: _of_document(set_dir, path)  # type: ignore[misc]


def _of_receipt(set_dir: Path, directory: Path) -> Entry:
    where = f"{set_dir.name}/{directory.name}/{RECEIPT_NAME}"
    receipt = store.read_receipt(directory / RECEIPT_NAME, where)
    event = receipt.event
    if event is None or (
        (receipt.id, receipt.set, receipt.status) != (directory.name, set_dir.name, ACCEPTED)
        or (receipt.host, receipt.manifest_sha256) != (event.host, event.manifest_sha256)
    ):
        raise ToolError(f"{where}: is not the receipt of this backup")
    return event


def _of_report(set_dir: Path, drill_id: str) -> list[Entry]:
    """The event of a drill; none of one that drilled no backup."""
    where = f"{set_dir.name}/{store.DRILLS_NAME}/{drill_id}"
    receipt = store.drill_receipt(set_dir, drill_id)
    event = receipt.event
    if (receipt.id, receipt.set, receipt.status) != (drill_id, set_dir.name, ACCEPTED) or (
        event is not None and (event.drill_id, event.host) != (drill_id, receipt.host)
    ):
        raise ToolError(f"{where}/{RECEIPT_NAME}: is not the receipt of this drill")
    try:
        raw = (set_dir / store.DRILLS_NAME / drill_id / REPORT_NAME).read_bytes()
    except OSError as problem:
        raise ToolError(f"{where}/{REPORT_NAME}: cannot be read ({problem.strerror})") from None
    if hashlib.sha256(raw).hexdigest() != receipt.manifest_sha256:
        raise ToolError(f"{where}/{REPORT_NAME}: is not what was accepted: changed or damaged")
    return [] if event is None else [event]


def _of_document(set_dir: Path, path: Path) -> list[Entry]:
    """The event of a document; for a tombstone the one of the acceptance too."""
    where = f"{set_dir.name}/{store.EVENTS_NAME}/{path.name}"
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise ToolError(f"{where}: cannot be read ({problem.strerror})") from None
    fields = document.opened(raw, where)
    found = [formats.from_fields(fields)]
    if fields.has("accepted"):
        found.append(formats.from_fields(fields.fields("accepted")))
    return found
