"""`redis-backup prune`: delete from the store what the retention policy does not keep.

Order for one backup, so that a kill at any point is finished by the next run: tombstone in the
catalogue → manifest → payload → directory. A directory with a tombstone is what a killed run left
and is removed; a directory without a line, or a line without directory and tombstone, is never
taken for that. Receipts are not touched: `accept` drops them when they are old enough.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..base.errors import NotNow, ToolError, UsageError
from ..base.files import check_owner, fsync_directory, locked, remove_tree
from ..base.output import Output
from ..config.model import Policy, ServerConfig
from ..formats.catalogue import FIRST_PREVIOUS, Catalogue, Entry, parse_timestamp, timestamp
from ..formats.manifest import MANIFEST_NAME
from . import catalogue as catalogue_module
from . import retention, store
from .retention import Backup, Plan

# `accept` runs every few seconds and holds the lock while it verifies, for longer than this only
# when an upload is very large.
LOCK_TIMEOUT = 1800.0  # seconds
# One that ends is followed by the next at once: short, to come between them.
_LOCK_POLL = 0.05  # seconds


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

    Raises UsageError without a policy, ToolError when the store stays locked.
    """
    policy = config.retention
    if policy is None:
        raise UsageError(
            f'{config.path}: there is no "retention" in it, so nothing is deleted; deploy the'
            " backup server again"
        )
    retention.check(policy)
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(_store_lock(config.store, lock_timeout))
        return _all_sets(config, policy, output, dry_run, clock)


def _all_sets(
    config: ServerConfig,
    policy: Policy,
    output: Output,
    dry_run: bool,
    clock: Callable[[], float],
) -> dict[str, Any]:
    problems: list[str] = []
    sets: list[dict[str, Any]] = []

    def problem(text: str) -> None:
        problems.append(text)
        output.warn(text)

    for name in store.set_names(config.store):
        try:
            sets.append(_set(config, policy, name, output, dry_run, clock(), problem))
        except (ToolError, OSError) as error:
            # Without a catalogue that holds nothing of the set may go; the others have their own.
            problem(f"set {name}: nothing more is deleted: {error}")
    return {"dry_run": dry_run, "problems": problems, "sets": sets}


def _set(
    config: ServerConfig,
    policy: Policy,
    name: str,
    output: Output,
    dry_run: bool,
    now: float,
    problem: Callable[[str], None],
) -> dict[str, Any]:
    set_dir = config.store / name
    known = catalogue_module.read(set_dir)
    store.check_lines(set_dir, known)
    gone = known.pruned()
    finished = [backup_id for backup_id in store.backup_ids(set_dir) if backup_id in gone]
    for backup_id in finished:
        if not dry_run:
            _remove(set_dir, backup_id)
        output.step(f"{'would finish' if dry_run else 'finished'}: {name}/{backup_id} is deleted")
    for complaint in store.consistency(set_dir, known):
        if not dry_run or complaint.partition(":")[0].rpartition("/")[2] not in finished:
            problem(complaint)
    present = known.present()
    backups = [
        _backup(set_dir, known, entry, entry.id not in present, problem)
        for entry in known.accepted().values()
    ]
    # One backup that did not come is no reason to stop, two are.
    decided = retention.plan(backups, policy, now, 2 * config.max_backup_age)
    if decided.refused is not None:
        problem(f"set {name}: {decided.refused}")
    for decision in decided.decisions:
        if not decision.keep:
            if not dry_run:
                _delete(set_dir, present[decision.id], now)
            output.step(
                f"{'would delete' if dry_run else 'deleted'}: {name}/{decision.id}:"
                f" {'; '.join(decision.reasons)}"
            )
        elif dry_run and decided.refused is None:
            output.step(f"keeps: {name}/{decision.id}: {'; '.join(decision.reasons)}")
    return _result(name, finished, decided)


def _result(name: str, finished: list[str], decided: Plan) -> dict[str, Any]:
    return {
        "set": name,
        "refused": decided.refused,
        "finished": finished,
        "deleted": decided.deleted(),
        "decisions": [decision.to_json() for decision in decided.decisions],
    }


def _backup(
    set_dir: Path,
    known: Catalogue,
    entry: Entry,
    pruned: bool,
    problem: Callable[[str], None],
) -> Backup:
    """A backup as the policy sees it. What is not as it was accepted is found without reading the
    payload: `verify` does that.
    """
    accepted_at = parse_timestamp(entry.at)
    if pruned:
        return Backup(entry.id, entry.host, accepted_at, pruned=True)
    drills = known.drills(entry.id)
    verdict = drills[-1].verdict if drills else None
    backup = Backup(entry.id, entry.host, accepted_at, drill=verdict)
    if not (set_dir / entry.id).is_dir():
        return replace(backup, verified=False)  # told already: a line without a set
    try:
        store.check_backup(set_dir, entry)
    except ToolError as error:
        problem(str(error))
        return replace(backup, verified=False)
    return backup


def _delete(set_dir: Path, entry: Entry, now: float) -> None:
    catalogue_module.append(
        set_dir,
        Entry(
            event="pruned",
            id=entry.id,
            set=entry.set,
            at=timestamp(now),
            manifest_sha256=entry.manifest_sha256,
            host=entry.host,
            previous=FIRST_PREVIOUS,
        ),
    )
    _remove(set_dir, entry.id)


def _remove(set_dir: Path, backup_id: str) -> None:
    """Manifest first: what is left of a backup is then none, for whoever reads it meanwhile."""
    directory = set_dir / backup_id
    with suppress(FileNotFoundError):
        (directory / MANIFEST_NAME).unlink()
        fsync_directory(directory)
    remove_tree(directory)
    fsync_directory(set_dir)


@contextmanager
def _store_lock(directory: Path, timeout: float) -> Iterator[None]:
    """The lock of `accept`, waited for. Raises ToolError when it never comes, or the store
    cannot be written.
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
                        f"{directory / store.LOCK_NAME}: `redis-backup accept` held it for"
                        f" {timeout / 60:.0f} minutes: nothing was deleted, and this may be so"
                        " every day; `journalctl -u redis-backup-accept` says what it is at"
                    ) from None
                time.sleep(_LOCK_POLL)
            except OSError as error:
                raise ToolError(
                    f"{directory}: the store cannot be written ({os.strerror(error.errno or 0)});"
                    " run as the user redis-backup"
                ) from None
        yield


def render(result: dict[str, Any]) -> str:
    """The end of a run for a person."""
    verb = "would be deleted" if result["dry_run"] else "deleted"
    rows = []
    for item in result["sets"]:
        gone = len(item["deleted"])
        rows.append(f"{item['set']}: {gone} {verb}, {len(item['decisions']) - gone} kept")
    return "\n".join(rows) if rows else "no backups yet"
