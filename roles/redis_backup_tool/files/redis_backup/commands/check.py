"""`redis-backup check`: is the newest backup fresh, was it proven, is the store in order? One line
per check, for monitoring; late is what the backup server's clock says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from ..base.fields import is_backup_id
from ..base.files import free_bytes
from ..base.output import Output, human_bytes
from ..config.model import ServerConfig
from ..config.reader import load_uploaders
from ..formats.catalogue import CATALOGUE_NAME, Catalogue, parse_timestamp
from ..formats.report import PASSED
from ..repository import catalogue as catalogue_module
from ..repository import store

# `accept` or `prune` may be between a directory and its line: what is wrong stays wrong.
SECOND_LOOK = 2.0  # seconds
# The disk is nearly full when it has no room for this many more of each set's newest backup.
_ROOM_FOR = 3


@dataclass(frozen=True)
class Result:
    """One check. `set` is None for what is about the whole store."""

    check: str
    set: str | None
    ok: bool
    message: str

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return dict(vars(self))


def run(
    config: ServerConfig,
    output: Output,
    *,
    clock: Callable[[], float] = time.time,
    second_look: float = SECOND_LOOK,
) -> list[Result]:
    """All checks, each told as one line. Raises ToolError when nothing can be looked at."""
    expected = {item.set for item in load_uploaders(config.uploaders_dir) if item.set}
    results: list[Result] = []
    sizes = 0
    for name in sorted(expected | set(store.set_names(config.store))):
        set_dir = config.store / name
        known, complaints = _look(set_dir)
        if complaints and second_look > 0:
            time.sleep(second_look)
            known, again = _look(set_dir)
            complaints = [item for item in again if item in complaints]
        results.append(_catalogue(name, known, complaints))
        if known is not None:
            sizes += _newest_size(set_dir, known)
            if name in expected:
                results.append(_backup(config, name, known, clock()))
                if config.max_drill_age is not None:
                    results.append(_drill(set_dir, known, config.max_drill_age, clock()))
    if not results:
        results.append(
            Result("backup", None, False, "no set: no Redis host uploads to this server")
        )
    results.append(_disk(config, sizes))
    for result in results:
        about = result.check if result.set is None else f"{result.check} {result.set}"
        output.step(f"{'ok' if result.ok else 'FAILED'}: {about}: {result.message}")
    return results


def _look(set_dir: Path) -> tuple[Catalogue | None, list[str]]:
    """The catalogue of a set, None when it is broken, and what is wrong with it."""
    try:
        known = catalogue_module.read(set_dir)
        there = set_dir.is_dir()
        return known, list(store.consistency(set_dir, known)) if there else []
    except (ToolError, OSError) as problem:
        return None, [str(problem)]


def _catalogue(name: str, known: Catalogue | None, complaints: list[str]) -> Result:
    if complaints or known is None:
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        return Result("catalogue", name, False, complaints[0] + more)
    return Result(
        "catalogue",
        name,
        True,
        f"{len(known.present())} backups, {len(known.entries)} lines in {CATALOGUE_NAME}",
    )


def _backup(config: ServerConfig, name: str, known: Catalogue, now: float) -> Result:
    newest = known.newest()
    if newest is None:
        return Result("backup", name, False, "there is none yet")
    age = now - parse_timestamp(newest.at)
    ok, words = _judge(age, config.max_backup_age)
    text = f"{newest.id}: accepted {words}"
    if ok:
        try:
            manifest = store.check_backup(config.store / name, newest)
        except ToolError as problem:
            return Result("backup", name, False, str(problem))
        # By the clock of its host, which may be ahead.
        if manifest.fork_time <= now:
            text += f", data {_span(now - manifest.fork_time)} old"
    return Result("backup", name, ok, text)


def _drill(set_dir: Path, known: Catalogue, max_age: int, now: float) -> Result:
    name = set_dir.name
    drilled = [entry for entry in known.entries if entry.event == "drilled"]
    failure = _failed_since(set_dir, max((str(entry.drill_id) for entry in drilled), default=""))
    if failure is not None:
        return Result("drill", name, False, failure)
    if not drilled:
        return Result("drill", name, False, "there was none yet")
    last, newest = drilled[-1], known.newest()
    # An older backup that is proven after it does not make the newest a good one.
    of_newest = known.drills(newest.id) if newest is not None else []
    for entry in (last, *of_newest[-1:]):
        if entry.verdict != PASSED:
            which = "the last one" if entry is last else "the last one of the newest backup"
            return Result(
                "drill",
                name,
                False,
                f"{which}, {entry.drill_id} of {entry.id}, {entry.verdict};"
                f" `redis-backup show {name}/{entry.id}` says why",
            )
    age = now - parse_timestamp(last.at)
    ok, words = _judge(age, max_age)
    return Result(
        "drill", name, ok, f"{last.id} was proven to level {last.level} by {last.drill_id} {words}"
    )


def _failed_since(set_dir: Path, drill_id: str) -> str | None:
    """What is wrong with the newest report that came after a drill: one that drilled no backup has
    no line in the catalogue.
    """
    paths = (set_dir / store.DRILLS_NAME).glob("*.json")
    later = [name for name in (path.name[: -len(".json")] for path in paths) if is_backup_id(name)]
    newest = max(later, default="")
    if newest <= drill_id:
        return None
    try:
        report = store.read_drill(set_dir, newest)
    except ToolError as problem:
        return str(problem)
    if report.get("verdict") == PASSED:
        return None
    reason = report.get("reason")
    return f"the last one, {newest}, {report.get('verdict')}: {str(reason)[:300]}"


def _judge(age: float, limit: int) -> tuple[bool, str]:
    """Whether an age (seconds) is within its limit, and words for it."""
    if age < 0:
        return False, f"{_hours(-age)} from now: this server's clock was set back; set it right"
    if age > limit:
        return False, f"{_hours(age)} ago, {_hours(limit)} are allowed"
    return True, f"{_span(age)} ago"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"


def _span(seconds: float) -> str:
    """A time for people, to the minute or hour."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 2 * 3600:
        minutes = int(seconds // 60)
        return f"{minutes} minute" + ("s" if minutes > 1 else "")
    return f"{seconds / 3600:.0f} h"


def _newest_size(set_dir: Path, known: Catalogue) -> int:
    """Stored bytes of the newest backup, 0 where there is none to measure: `_backup` tells."""
    newest = known.newest()
    if newest is None:
        return 0
    try:
        return store.check_backup(set_dir, newest).payload.stored_size
    except ToolError:
        return 0


def _disk(config: ServerConfig, sizes: int) -> Result:
    free = free_bytes(config.store)
    needed = config.disk_reserve + _ROOM_FOR * sizes
    text = f"{config.store} has {human_bytes(free)} free"
    if free < needed:
        text += (
            f", less than {human_bytes(needed)}: the reserve and {_ROOM_FOR} more backups of each"
            " set; make room"
        )
    return Result("disk", None, free >= needed, text)
