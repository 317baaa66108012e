"""`redis-backup prune`: delete from the store what the retention policy does not keep.

Order for one backup, so that a kill at any point is finished by the next run: tombstone → its line
in the catalogue → out of the set by a rename to `<store>/.pruned/` → the files. A directory with a
tombstone is what a killed run left and is removed; a directory without a receipt, or a line without
directory and tombstone, is never taken for that. Receipts are not touched: `accept` drops them when
they are old enough.

The store's lock is held for some deletions at a time, and the files go outside of it. When somebody
else has written meanwhile, the decision is made anew: what it was based on may be another by then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import ToolError, UsageError
from ..base.files import fsync_directory, make_directory, remove_tree
from ..base.output import Output
from ..base.times import parse_timestamp
from ..config.model import Policy, ServerConfig
from ..formats.catalogue import Catalogue
from . import catalogue as catalogue_module
from . import identity, lease, retention, store
from .ledger import LOCK_TIMEOUT, Ledger, store_lock
from .retention import Backup, Decision, Plan

# Deletions under one lock: each is one fsync, of 10 ms on a slow disk.
_BATCH = 25


def run(
    config: ServerConfig,
    output: Output,
    *,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
    lock_timeout: float = LOCK_TIMEOUT,
) -> dict[str, Any]:
    """Apply the policy to every set. Returns `dry_run`, `problems` and, per set, `set`, `refused`,
    `finished` (ids that a killed run had left), `deleted` and the decision about each backup.

    Raises UsageError without a policy, ToolError when the store is not the repository of this
    server, or stays locked.
    """
    policy = config.retention
    if policy is None:
        raise UsageError(
            f'{config.path}: there is no "retention" in it, so nothing is deleted; deploy the'
            " backup server again"
        )
    retention.check(policy)
    if not dry_run:
        identity.require(config)
        with store_lock(config.store, lock_timeout):
            make_directory(config.store / store.PRUNED_NAME)
        _empty(config.store)
    problems: list[str] = []

    def problem(text: str) -> None:
        problems.append(text)
        output.warn(text)

    sets = []
    for name in store.set_names(config.store):
        work = _Set(config, policy, name, output, clock, problem)
        try:
            sets.append(work.show() if dry_run else work.prune(lock_timeout))
        except (ToolError, OSError) as error:
            # Without a catalogue that holds nothing of the set may go; the others have their own.
            problem(f"set {name}: nothing more is deleted: {error}")
    return {"dry_run": dry_run, "problems": problems, "sets": sets}


@dataclass
class _Set:
    """One set under the policy."""

    config: ServerConfig
    policy: Policy
    name: str
    output: Output
    clock: Callable[[], float]
    problem: Callable[[str], None]

    def show(self) -> dict[str, Any]:
        """What would be done."""
        set_dir = self.config.store / self.name
        known = catalogue_module.read(set_dir)
        finished = _left(set_dir, known)
        for backup_id in finished:
            self.output.step(f"would finish: {self.name}/{backup_id} is deleted")
        for complaint in store.consistency(set_dir, known):
            if complaint.partition(":")[0].rpartition("/")[2] not in finished:
                self.problem(complaint)
        decided = self._plan(known, self._survey(known), lease.backups(set_dir))
        self._tell_refused(decided)
        for decision in decided.decisions:
            if not decision.keep:
                verb = "would delete"
            elif decided.refused is None:
                verb = "keeps"
            else:
                continue
            self.output.step(f"{verb}: {self.name}/{decision.id}: {'; '.join(decision.reasons)}")
        return self._result(finished, decided, decided.deleted())

    def prune(self, lock_timeout: float) -> dict[str, Any]:
        """Delete. Raises ToolError or OSError when it cannot go on."""
        set_dir = self.config.store / self.name
        # What lies there is looked at before the lock is taken; the rest of it is quick.
        surveyed = self._survey(catalogue_module.read(set_dir))
        finished: list[str] = []
        deleted: list[str] = []
        first: Plan | None = None
        pending: list[Decision] = []
        seen = None
        while True:
            with store_lock(self.config.store, lock_timeout):
                ledger = Ledger(self.config, self.name)
                leased = lease.backups(set_dir)
                if seen != (ledger.known.head, leased):
                    decided = self._plan(ledger.known, surveyed, leased)
                    pending = [item for item in decided.decisions if not item.keep]
                batch, pending = pending[:_BATCH], pending[_BATCH:]
                left = _left(set_dir, ledger.known)
                complaints = list(store.consistency(set_dir, ledger.known)) if first is None else []
                now = self.clock()
                ledger.record_all(ledger.about(item.id, "pruned", now) for item in batch)
                _put_out(self.config.store, self.name, [*left, *(item.id for item in batch)])
                seen = (ledger.known.head, leased)
            if first is None:
                first = decided
                for complaint in complaints:
                    if complaint.partition(":")[0].rpartition("/")[2] not in left:
                        self.problem(complaint)
                for reason in surveyed.values():
                    if reason is not None:
                        self.problem(reason)
                self._tell_refused(decided)
            for backup_id in left:
                self.output.step(f"finished: {self.name}/{backup_id} is deleted")
            for item in batch:
                self.output.step(f"deleted: {self.name}/{item.id}: {'; '.join(item.reasons)}")
            finished += left
            deleted += [item.id for item in batch]
            _empty(self.config.store)
            if not pending:
                return self._result(finished, first, deleted)

    def _survey(self, known: Catalogue) -> dict[str, str | None]:
        """Of each backup in the store, what is wrong with it at a look: it is not the accepted one,
        or its payload is not there in full size. `scrub` and `verify` read it.
        """
        found: dict[str, str | None] = {}
        for backup_id, entry in known.present().items():
            try:
                store.check_backup(self.config.store / self.name, entry)
                found[backup_id] = None
            except ToolError as error:
                found[backup_id] = str(error)
        return found

    def _plan(
        self, known: Catalogue, surveyed: dict[str, str | None], leased: frozenset[str]
    ) -> Plan:
        history = backups(known, surveyed, leased)
        # One backup that did not come is no reason to stop, two are.
        return retention.plan(history, self.policy, self.clock(), 2 * self.config.max_backup_age)

    def _tell_refused(self, decided: Plan) -> None:
        if decided.refused is not None:
            self.problem(f"set {self.name}: {decided.refused}")

    def _result(self, finished: list[str], decided: Plan, deleted: list[str]) -> dict[str, Any]:
        return {
            "set": self.name,
            "refused": decided.refused,
            "finished": finished,
            "deleted": deleted,
            "decisions": [decision.to_json() for decision in decided.decisions],
        }


def backups(
    known: Catalogue, surveyed: dict[str, str | None], leased: frozenset[str]
) -> list[Backup]:
    """The backups of a set as the policy sees them, pruned ones too, in the order in which they
    were accepted. `surveyed` says what is wrong with each at a look, None where nothing is; one
    that came after the survey is as it was accepted. Pure.
    """
    present, marked = known.present(), known.shrunk()
    found = []
    for entry in known.accepted().values():
        drills = known.drills(entry.id)
        found.append(
            Backup(
                id=entry.id,
                host=entry.host,
                accepted_at=parse_timestamp(entry.at),
                moment=entry.moment,
                kind=entry.kind or "nightly",
                verified=known.verified(entry.id),
                doubted=surveyed.get(entry.id) is not None,
                drill=drills[-1].verdict if drills else None,
                shrunk_from=marked.get(entry.id),
                kept_until=known.kept_until(entry.id),
                leased=entry.id in leased,
                pruned=entry.id not in present,
            )
        )
    return found


def _left(set_dir: Path, known: Catalogue) -> list[str]:
    """What a killed run left: a tombstone, and the directory still in the set."""
    gone = known.pruned()
    return [backup_id for backup_id in store.backup_ids(set_dir) if backup_id in gone]


def _put_out(directory: Path, set_name: str, backup_ids: Sequence[str]) -> None:
    """Out of the set as a whole: what is left of a backup is then none, for whoever reads it."""
    for backup_id in backup_ids:
        target = directory / store.PRUNED_NAME / f"{set_name}-{backup_id}"
        remove_tree(target)
        with suppress(FileNotFoundError):
            (directory / set_name / backup_id).rename(target)
    fsync_directory(directory / set_name)


def _empty(directory: Path) -> None:
    """Remove the files of what was put out, outside the lock."""
    with suppress(FileNotFoundError):
        for path in sorted((directory / store.PRUNED_NAME).iterdir()):
            remove_tree(path)


def render(result: dict[str, Any]) -> str:
    """The end of a run for a person."""
    verb = "would be deleted" if result["dry_run"] else "deleted"
    rows = []
    for item in result["sets"]:
        gone = len(item["deleted"])
        rows.append(f"{item['set']}: {gone} {verb}, {len(item['decisions']) - gone} kept")
    return "\n".join(rows) if rows else "no backups yet"
