"""Verdicts and marks on backups in the store: what a reading found, what an operator wants kept,
and that a smaller backup is right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..base.errors import ToolError, UsageError
from ..base.times import timestamp
from ..config.model import ServerConfig
from ..config.reader import DAY
from ..formats.catalogue import Catalogue, Entry
from ..formats.report import LEVELS
from . import catalogue as catalogue_module
from . import identity, retention, store
from .ledger import Ledger, reindex, store_lock

_REASON_MAX = 500
_DAYS_MAX = 36500


def changed(known: Catalogue, backup_id: str, level: str, problem: str | None) -> bool:
    """Whether a reading to a level (or that failed at it) says another thing than the last one. A
    good one withdraws only what failed at a level that it reached. Pure.
    """
    before = known.verdict(backup_id)
    if problem is not None:
        return before is None or bool(before.ok)
    return (
        before is not None
        and not before.ok
        and LEVELS.index(level) >= LEVELS.index(before.level or "form")
    )


def record_verdict(
    config: ServerConfig, set_name: str, backup_id: str, level: str, problem: str | None, now: float
) -> bool:
    """Write down what a reading found, when it is another verdict than the last one. Returns
    whether it was. `problem` is None for a good backup, `now` is unix seconds. Raises ToolError.
    """
    if not changed(catalogue_module.read(config.store / set_name), backup_id, level, problem):
        return False
    identity.require(config)
    with store_lock(config.store):
        ledger = Ledger(config, set_name)
        known = ledger.known
        if backup_id not in known.present() or not changed(known, backup_id, level, problem):
            return False
        about = ledger.about(backup_id, "verified", now)
        reason = None if problem is None else " ".join(problem.split())[:_REASON_MAX]
        ledger.record(replace(about, ok=problem is None, level=level, reason=reason))
    return True


def keep(config: ServerConfig, target: str, days: int, now: float) -> str:
    """Keep a backup for so many days from now, whatever the retention policy says; 0 takes the mark
    away. Returns until when. Raises ToolError.
    """
    if not 0 <= days <= _DAYS_MAX:
        raise UsageError(f"--days must be 0 to {_DAYS_MAX}, it is {days}")
    until = timestamp(now + days * DAY)

    def mark(ledger: Ledger, backup_id: str) -> list[Entry]:
        return [replace(ledger.about(backup_id, "kept", now), until=until)]

    _mark(config, target, mark)
    return until


def acknowledge(config: ServerConfig, target: str, now: float) -> list[str]:
    """Let a backup that is much smaller than the one before count like any other, and with it all
    marked ones that are not much smaller than this one. Returns their ids. Raises ToolError.
    """
    found: list[str] = []

    def mark(ledger: Ledger, backup_id: str) -> list[Entry]:
        marked, present = ledger.known.shrunk(), ledger.known.present()
        if backup_id not in marked:
            raise ToolError(
                f"{ledger.set_dir.name}/{backup_id}: is not marked as much smaller than the one"
                " before: there is nothing to acknowledge"
            )
        for other in marked:
            small = retention.shrunk_from(
                present[backup_id],
                present[other].keys or 0,
                present[other].size or 0,
                config.shrink_limit,
            )
            if other == backup_id or small is None:
                found.append(other)
        return [ledger.about(other, "acknowledged", now) for other in found]

    _mark(config, target, mark)
    return found


def rebuild(config: ServerConfig, set_name: str) -> tuple[Catalogue, list[str]]:
    """Write the catalogue of a set again. Returns it, and what could not be read. Raises UsageError
    when there is no such set, ToolError.
    """
    identity.require(config)
    if set_name not in store.set_names(config.store):
        raise UsageError(f"{set_name[:100]!r} is no set in {config.store}")
    with store_lock(config.store):
        return reindex(config, set_name)


def _mark(config: ServerConfig, target: str, mark: Callable[[Ledger, str], list[Entry]]) -> None:
    set_name, backup_id = store.find(config, target)
    identity.require(config)
    with store_lock(config.store):
        ledger = Ledger(config, set_name)
        if backup_id not in ledger.known.present():
            raise ToolError(store.absent(ledger.known, backup_id))
        ledger.record_all(mark(ledger, backup_id))
