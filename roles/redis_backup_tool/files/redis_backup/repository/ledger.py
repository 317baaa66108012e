"""What is written down of uploads: catalogue lines and receipts. It also finishes what a killed run
left half-written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import ToolError, UsageError
from ..base.fields import is_backup_id
from ..base.files import fsync_directory, make_directory, write_durably
from ..base.output import Output
from ..config.model import ServerConfig
from ..formats import manifest as manifest_module
from ..formats import receipts
from ..formats.catalogue import FIRST_PREVIOUS, Catalogue, Entry, timestamp
from ..formats.manifest import Manifest
from ..formats.receipts import ACCEPTED, Receipt
from . import catalogue as catalogue_module
from . import reread, store

_REASON_MAX = 500


@dataclass
class Outcome:
    """What a run did: ids as `<set>/<id>`, and what went wrong on our side."""

    accepted: list[str]
    rejected: list[dict[str, str]]
    drills: list[str]
    healed: list[str]
    problems: list[str]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return dict(vars(self))


class Ledger:
    """Of one run, under the store's lock. `clock` is unix time in seconds."""

    def __init__(
        self, config: ServerConfig, output: Output, clock: Callable[[], float], outcome: Outcome
    ) -> None:
        self.config = config
        self.output = output
        self.clock = clock
        self.outcome = outcome

    def problem(self, text: str) -> None:
        """Something went wrong on our side: told once, and in the outcome."""
        if text not in self.outcome.problems:
            self.outcome.problems.append(text)
            self.output.warn(text)

    def heal(self) -> None:
        """Finish in every set what a killed run began."""
        for name in store.set_names(self.config.store):
            try:
                self._heal_set(self.config.store / name)
            except Exception as problem:
                self.problem(f"set {name}: {told(problem)}")

    def settled(self, set_dir: Path) -> Catalogue:
        """The catalogue of a set, once the one backup that a killed run may have left in the store
        has its line: two that lack theirs are then never a kill's doing. Raises CatalogueError when
        lines were lost.
        """
        known = catalogue_module.read(set_dir)
        store.check_lines(set_dir, known)
        for backup_id in store.without_line(set_dir, known):
            try:
                known = self._finish(set_dir, known, backup_id, self.clock())
            except Exception as problem:
                raise ToolError(
                    f"{set_dir.name}/{backup_id}: not finished: {told(problem)}"
                ) from None
        return known

    def rebuild(self, set_name: str) -> None:
        """Give each backup of a set that has no line one, of the time in its id: that is never more
        than a day from when it was accepted, and tells the retention what it is old enough for.
        """
        set_dir = self.config.store / set_name
        if set_name not in store.set_names(self.config.store):
            raise UsageError(f"{set_name[:100]!r} is no set in {self.config.store}")
        known = catalogue_module.read_lines(set_dir)
        for backup_id in store.without_line(set_dir, known):
            try:
                known = self._finish(set_dir, known, backup_id, self._time_of(backup_id))
            except Exception as problem:
                self.problem(f"{set_name}/{backup_id}: not finished: {told(problem)}")

    def _time_of(self, name: str) -> float:
        """The time in an id, as far as it is past by our clock."""
        return min(self.clock(), manifest_module.id_time(name))

    def _heal_set(self, set_dir: Path) -> None:
        known = self.settled(set_dir)
        for entry in known.present().values():
            if not self.receipt_path(entry.set, entry.id).exists():
                self.give_receipt(entry)
        for path in sorted((set_dir / store.DRILLS_NAME).glob("*.json")):
            drill_id = path.name[: -len(".json")]
            if is_backup_id(drill_id) and not known.has_drill(drill_id):
                report = store.read_drill(set_dir, drill_id)
                known = self.record_drill(set_dir, known, drill_id, report, self._time_of(drill_id))

    def _finish(self, set_dir: Path, known: Catalogue, backup_id: str, at: float) -> Catalogue:
        """Give a backup in the store the line that it lacks, accepted `at` (unix seconds); one that
        is damaged is moved away, so that it is read and told once.
        """
        try:
            manifest, digest = reread.read_manifest(set_dir / backup_id, set_dir.name, backup_id)
            reread.verify_set(set_dir / backup_id, manifest)
        except reread.VerifyError as problem:
            target = self.config.store / store.QUARANTINE_NAME
            make_directory(target)
            target /= set_dir.name
            make_directory(target)
            now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.clock()))
            target /= f"{backup_id}-{now}"
            (set_dir / backup_id).rename(target)
            fsync_directory(set_dir)
            fsync_directory(target.parent)
            self.problem(
                f"{problem} (it was in the store without a line in the catalogue, so nobody was"
                f" told that it is; moved to {target}: look at it, then remove it)"
            )
            return known
        known = self.record(set_dir, manifest, digest, at)
        self.outcome.healed.append(f"{set_dir.name}/{backup_id}")
        self.output.step(f"finished: {set_dir.name}/{backup_id} was in the store without a line")
        return known

    def record(self, set_dir: Path, manifest: Manifest, digest: str, at: float) -> Catalogue:
        """Catalogue line, then receipt."""
        entry = Entry(
            event="accepted",
            id=manifest.id,
            set=manifest.set,
            at=timestamp(at),
            manifest_sha256=digest,
            host=manifest.host,
            previous=FIRST_PREVIOUS,
        )
        known = catalogue_module.append(set_dir, entry)
        self.give_receipt(entry)
        return known

    def record_drill(
        self, set_dir: Path, known: Catalogue, drill_id: str, report: dict[str, Any], at: float
    ) -> Catalogue:
        """The line of a stored report. One that drilled no backup has no line: there is nothing to
        say it of.
        """
        accepted = known.accepted().get(str(report.get("backup_id")))
        if accepted is None:
            return known
        entry = Entry(
            event="drilled",
            id=accepted.id,
            set=accepted.set,
            at=timestamp(at),
            manifest_sha256=accepted.manifest_sha256,
            host=manifest_module.id_host(drill_id),
            previous=FIRST_PREVIOUS,
            drill_id=drill_id,
            level=str(report["level"]),
            verdict=str(report["verdict"]),
        )
        return catalogue_module.append(set_dir, entry)

    def receipt_path(self, set_name: str, backup_id: str) -> Path:
        """Where the receipt of an upload lies."""
        return self.config.receipts / set_name / f"{backup_id}.json"

    def give_receipt(self, entry: Entry) -> None:
        """The receipt of an accepted backup."""
        self.write_receipt(
            Receipt(
                id=entry.id,
                set=entry.set,
                host=entry.host,
                status=ACCEPTED,
                reason=None,
                manifest_sha256=entry.manifest_sha256,
                accepted_at=entry.at,
            )
        )

    def write_receipt(self, receipt: Receipt) -> None:
        """Leave a receipt for its host."""
        directory = self.config.receipts / receipt.set
        make_directory(directory)
        write_durably(self.receipt_path(receipt.set, receipt.id), receipts.encode(receipt))

    def drop_receipts(self) -> None:
        """Receipts of what is not in the store go when they are old enough."""
        try:
            names = store.set_names(self.config.receipts)
        except ToolError as problem:
            self.problem(f"receipts: {problem}")
            return
        for name in names:
            try:
                known = catalogue_module.read(self.config.store / name)
                with suppress(FileNotFoundError):
                    store.check_lines(self.config.store / name, known)
                present = known.present()
                for path in (self.config.receipts / name).glob("*.json"):
                    age = self.clock() - path.stat().st_mtime
                    if (
                        path.name[: -len(".json")] not in present
                        and age > self.config.receipts_min_age
                    ):
                        path.unlink()
            except (ToolError, OSError) as problem:
                self.problem(f"receipts of set {name}: {problem}")


def told(problem: Exception) -> str:
    """What went wrong; what nobody thought of with its type, which says more than its text."""
    if isinstance(problem, (ToolError, OSError)):
        return str(problem)
    return f"{type(problem).__name__}: {problem}"[:_REASON_MAX]
