"""`redis-backup verify` and `scrub`: re-read backups of the store and compare store, catalogue and
manifests. A verdict that is another than the last one is written down.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.files import write_durably
from ..base.output import Output
from ..base.times import timestamp
from ..config.model import ServerConfig
from ..formats.catalogue import CATALOGUE_NAME, Catalogue
from ..formats.identity import REPOSITORY_NAME
from ..repository import catalogue as catalogue_module
from ..repository import identity, ledger, marks, reread, store
from ..repository.ledger import store_lock

SCRUBBED_NAME = "scrubbed.json"
# For a store that this user cannot lock: what is wrong stays wrong.
_SECOND_LOOK = 2.0  # seconds


def run(
    config: ServerConfig,
    target: str | None,
    output: Output,
    clock: Callable[[], float] = time.time,
) -> list[dict[str, Any]]:
    """Verify one backup, or all of every set and the catalogues with them (`target` None), to the
    level *form*.

    Returns one result per thing looked at: `what` (`<set>/<id>` or `<set>/catalogue.jsonl`), `ok`,
    `error`. Raises ToolError when nothing can be looked at.
    """
    reader = _Reader(config, output, clock, store.verify_backup, "form")
    if target is not None:
        name, backup_id = store.find(config, target)
        result = reader.backup(name, backup_id)
        if result is None:
            raise ToolError(store.absent(catalogue_module.read(config.store / name), backup_id))
        return [result]
    results = [reader.repository()]
    for name in store.set_names(config.store):
        results += reader.all_of(name)
    return results


def scrub(
    config: ServerConfig, output: Output, clock: Callable[[], float] = time.time
) -> list[dict[str, Any]]:
    """Compare the stored bytes of every backup with their sha256, and remember when. As `run`."""
    reader = _Reader(config, output, clock, store.scrub_backup, "bytes")
    results = [reader.repository()]
    for name in store.set_names(config.store):
        results += reader.all_of(name)
        found = dict(reader.dates)
        reader.dates.clear()
        with store_lock(config.store):
            write_scrubbed(config.store / name, found)
    return results


class _Reader:
    """Reads backups in one way, and has a verdict that is new written down."""

    def __init__(
        self,
        config: ServerConfig,
        output: Output,
        clock: Callable[[], float],
        read: Callable[[Path, str, Catalogue, Callable[[int, int], None]], None],
        level: str,
    ) -> None:
        self.config = config
        self.output = output
        self.clock = clock
        self.read = read
        self.level = level
        self.dates: dict[str, str] = {}

    def repository(self) -> dict[str, Any]:
        """That the store is the repository of this server."""
        try:
            problem = identity.problem_of(
                self.config, identity.read(self.config.store / REPOSITORY_NAME)
            )
        except ToolError as error:
            problem = str(error)
        return self._result(REPOSITORY_NAME, problem)

    def all_of(self, name: str) -> list[dict[str, Any]]:
        """A set's catalogue and all its backups."""
        where = f"{name}/{CATALOGUE_NAME}"
        try:
            known, complaints = look(self.config, name)
            complaints += _differences(self.config.store / name)
        except (ToolError, OSError) as problem:
            # Without a catalogue that holds, no backup of the set can be vouched for.
            return [self._result(where, str(problem))]
        told: list[str | None] = [*complaints] or [None]
        results = [self._result(where, complaint) for complaint in told]
        found = (self.backup(name, backup_id) for backup_id in known.present())
        return [*results, *filter(None, found)]

    def backup(self, name: str, backup_id: str) -> dict[str, Any] | None:
        """One backup; None for one that retention deletes meanwhile."""
        set_dir = self.config.store / name
        problem, failed = self._read(set_dir, backup_id)
        if problem is not None:
            if catalogue_module.read(set_dir).deleted_on(backup_id) is not None:
                self.output.step(
                    f"skipped: {store.absent(catalogue_module.read(set_dir), backup_id)}"
                )
                return None
            # A disk that failed once, a bit that turned over in memory: it is read again, from the
            # disk, before it counts as bad.
            with suppress(OSError):
                store.forget_pages(set_dir / backup_id)
            problem, failed = self._read(set_dir, backup_id)
        if backup_id in catalogue_module.read(set_dir).present():
            self._remember(name, backup_id, problem, failed)
        return self._result(f"{name}/{backup_id}", problem)

    def _read(self, set_dir: Path, backup_id: str) -> tuple[str | None, str]:
        """What is wrong, and the level that failed; None and the level that was reached."""
        label = f"{set_dir.name}/{backup_id}"
        try:
            self.read(
                set_dir,
                backup_id,
                catalogue_module.read(set_dir),
                lambda done, total: self.output.progress(label, done, total),
            )
        except reread.VerifyError as problem:
            return str(problem), "bytes" if problem.reached is None else "form"
        except (ToolError, OSError) as problem:
            return str(problem), "bytes"
        return None, self.level

    def _remember(self, name: str, backup_id: str, problem: str | None, level: str) -> None:
        now = self.clock()
        if problem is None:
            self.dates[backup_id] = timestamp(now)
        if not os.access(self.config.store / name, os.W_OK):
            return  # a copy, or somebody who may only look
        try:
            new = marks.record_verdict(self.config, name, backup_id, level, problem, now)
        except (ToolError, OSError) as error:
            self.output.warn(f"{name}/{backup_id}: the verdict cannot be written down: {error}")
            return
        if new and problem is None:
            self.output.step(f"withdrawn: {name}/{backup_id} was called bad before")

    def _result(self, what: str, error: str | None) -> dict[str, Any]:
        self.output.step(f"good: {what}" if error is None else f"BAD: {error}")
        return {"what": what, "ok": error is None, "error": error}


def _differences(set_dir: Path) -> list[str]:
    """What documents and catalogue disagree about. A run that was at work during one look has gone
    on at the next, so what is true is seen twice; the lock would be held for too long for it.
    """
    found = list(ledger.differences(set_dir, catalogue_module.read(set_dir)))
    if not found:
        return []
    again = set(ledger.differences(set_dir, catalogue_module.read(set_dir)))
    return [complaint for complaint in found if complaint in again]


def look(config: ServerConfig, name: str) -> tuple[Catalogue, list[str]]:
    """The catalogue of a set, and what it and the store disagree about, seen while nobody changes
    either. Raises ToolError or OSError for a catalogue that is damaged.
    """
    set_dir = config.store / name

    def once() -> tuple[Catalogue, list[str]]:
        known = catalogue_module.read(set_dir)
        there = set_dir.is_dir()
        return known, list(store.consistency(set_dir, known)) if there else []

    try:
        known, complaints = once()
        if not complaints:
            return known, []
    except (ToolError, OSError):
        pass
    try:
        with store_lock(config.store):
            return once()
    except ToolError:
        time.sleep(_SECOND_LOOK)
        return once()


def read_scrubbed(set_dir: Path) -> dict[str, str]:
    """When each backup was read to its end last (ISO 8601 UTC), by id; what cannot be read counts
    as never.
    """
    with suppress(OSError, ValueError, AttributeError):
        data = json.loads((set_dir / SCRUBBED_NAME).read_bytes())
        return {str(key): str(value) for key, value in data["backups"].items()}
    return {}


def write_scrubbed(set_dir: Path, found: dict[str, str]) -> None:
    """Add what was read now, and drop what is not in the store any more."""
    dates = {**read_scrubbed(set_dir), **found}
    there = set(store.backup_ids(set_dir))
    kept = {key: value for key, value in sorted(dates.items()) if key in there}
    write_durably(set_dir / SCRUBBED_NAME, json.dumps({"backups": kept}, indent=2).encode("utf-8"))
