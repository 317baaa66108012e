"""`redis-backup status`: every number that `check` decides from, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.files import free_bytes
from ..base.times import parse_timestamp, timestamp
from ..config.model import ServerConfig
from ..config.reader import load_uploaders
from ..formats.catalogue import Catalogue, Entry
from ..formats.identity import REPOSITORY_NAME
from ..formats.report import PASSED
from ..repository import identity, lease, store
from ..repository.patience import Patience
from . import verify

# The disk is nearly full when it has no room for this many more of each set's newest backup.
ROOM_FOR = 3


def collect(config: ServerConfig, now: float) -> dict[str, Any]:
    """The state of the repository at `now` (unix seconds). Times in it are ISO 8601 UTC, ages and
    limits seconds, sizes bytes. Raises ToolError when nothing can be looked at.
    """
    expected = {item.set for item in load_uploaders(config.uploaders_dir) if item.set}
    names = sorted(expected | set(store.set_names(config.store)))
    sets = [_set(config, name, name in expected, now) for name in names]
    sizes = sum(item["newest"]["stored_size"] for item in sets if item["newest"] is not None)
    return {
        "at": timestamp(now),
        "store": str(config.store),
        "repository": _repository(config),
        "sets": sets,
        "deferred": [
            {"host": item.host, "id": item.id, "age": int(now - item.since), "budget": item.budget}
            for item in Patience(config.store).deferred()
        ],
        "disk": {
            "free": free_bytes(config.store),
            "needed": config.disk_reserve + ROOM_FOR * sizes,
            "reserve": config.disk_reserve,
        },
        "limits": {
            "backup_age": config.max_backup_age,
            "drill_age": config.max_drill_age,
            "scrub_age": config.max_scrub_age,
            "shrink_percent": config.shrink_limit,
        },
    }


def _repository(config: ServerConfig) -> dict[str, Any]:
    try:
        found = identity.read(config.store / REPOSITORY_NAME)
        problem = identity.problem_of(config, found)
    except ToolError as error:
        return {"id": None, "created": None, "problem": str(error)}
    return {
        "id": None if found is None else found.id,
        "created": None if found is None else found.created,
        "problem": problem,
    }


def _set(config: ServerConfig, name: str, expected: bool, now: float) -> dict[str, Any]:
    result: dict[str, Any] = {
        "set": name,
        "expected": expected,
        "catalogue": {"backups": 0, "lines": 0, "problems": []},
        "newest": None,
        "drill": None,
        "bad": [],
        "shrunk": [],
        "unread": {"never": 0, "oldest_age": None},
        "lease": None,
    }
    set_dir = config.store / name
    try:
        known, complaints = verify.look(config, name)
    except (ToolError, OSError) as problem:
        result["catalogue"]["problems"] = [str(problem)]
        return result
    result["catalogue"] = {
        "backups": len(known.present()),
        "lines": len(known.entries),
        "problems": complaints,
    }
    newest = known.newest()
    if newest is not None:
        result["newest"] = _newest(set_dir, newest, now)
    result["bad"] = _bad(known, now)
    result["shrunk"] = _shrunk(known)
    result["drill"] = _drill(set_dir, known, newest, now)
    result["unread"] = _unread(set_dir, known, now)
    try:
        found = lease.read(set_dir)
        if found is not None:
            left = int(parse_timestamp(found.until) - now)
            result["lease"] = {"whose": found.words(), "left": left}
    except ToolError as problem:
        result["lease"] = {"whose": str(problem), "left": 0}
    return result


def _newest(set_dir: Path, entry: Entry, now: float) -> dict[str, Any]:
    problem = None
    try:
        store.check_backup(set_dir, entry)
    except ToolError as error:
        problem = str(error)
    return {
        "id": entry.id,
        "kind": entry.kind,
        "accepted_at": entry.at,
        "accepted_age": int(now - parse_timestamp(entry.at)),
        "data_age": int(now - entry.moment),
        "keys": entry.keys,
        "size": entry.size,
        "stored_size": entry.stored_size or 0,
        "problem": problem,
    }


def _bad(known: Catalogue, now: float) -> list[dict[str, Any]]:
    """The backups that were read as bad and are still in the store."""
    found = []
    for backup_id in known.present():
        verdict = known.verdict(backup_id)
        if verdict is not None and not verdict.ok:
            age = int(now - parse_timestamp(verdict.at))
            found.append({"id": backup_id, "age": age, "reason": verdict.reason})
    return found


def _shrunk(known: Catalogue) -> list[dict[str, Any]]:
    found = []
    for backup_id, before in known.shrunk().items():
        small, large = known.accepted()[backup_id], known.accepted().get(before)
        found.append(
            {
                "id": backup_id,
                "keys": small.keys,
                "size": small.size,
                "from": before,
                "from_keys": None if large is None else large.keys,
                "from_size": None if large is None else large.size,
            }
        )
    return found


def _drill(
    set_dir: Path, known: Catalogue, newest: Entry | None, now: float
) -> dict[str, Any] | None:
    """The last drill of the set; the last one of its newest backup; and what the newest report says
    that drilled no backup, which has no line. None where there was none at all.
    """
    drilled = [entry for entry in known.entries if entry.event == "drilled"]
    ids = store.drill_ids(set_dir)
    last = drilled[-1] if drilled else None
    without = None
    if ids and (last is None or ids[-1] > str(last.drill_id)):
        try:
            report = store.read_drill(set_dir, ids[-1])
            if report.get("verdict") != PASSED:
                without = {"drill_id": ids[-1], "reason": str(report.get("reason"))[:300]}
        except ToolError as problem:
            without = {"drill_id": ids[-1], "reason": str(problem)}
    if last is None and without is None:
        return None
    of_newest = known.drills(newest.id) if newest is not None else []
    return {
        "last": None if last is None else _drilled(last, now),
        "of_newest": _drilled(of_newest[-1], now) if of_newest else None,
        "without_backup": without,
    }


def _drilled(entry: Entry, now: float) -> dict[str, Any]:
    return {
        "id": entry.id,
        "drill_id": entry.drill_id,
        "verdict": entry.verdict,
        "level": entry.level,
        "age": int(now - parse_timestamp(entry.at)),
    }


def _unread(set_dir: Path, known: Catalogue, now: float) -> dict[str, Any]:
    """How long ago the backup was read to its end that was not for longest. One that was never read
    since counts from its acceptance.
    """
    dates = verify.read_scrubbed(set_dir)
    ages = []
    for backup_id, entry in known.present().items():
        try:
            ages.append(now - parse_timestamp(dates.get(backup_id, entry.at)))
        except ValueError:
            ages.append(now - parse_timestamp(entry.at))
    never = sum(backup_id not in dates for backup_id in known.present())
    return {"never": never, "oldest_age": int(max(ages)) if ages else None}
