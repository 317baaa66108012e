"""`redis-backup check`: is the newest backup fresh, was it proven, is the store in order? One line
per check, for monitoring; late is what the backup server's clock says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..base.output import Output, human_bytes
from ..config.model import ServerConfig
from ..formats.catalogue import CATALOGUE_NAME
from ..formats.report import PASSED
from . import status as status_module


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
    config: ServerConfig, output: Output, *, clock: Callable[[], float] = time.time
) -> list[Result]:
    """All checks, each told as one line. Raises ToolError when nothing can be looked at."""
    results = judge(status_module.collect(config, clock()))
    for result in results:
        about = result.check if result.set is None else f"{result.check} {result.set}"
        output.step(f"{'ok' if result.ok else 'FAILED'}: {about}: {result.message}")
    return results


def judge(status: Mapping[str, Any]) -> list[Result]:
    """What is right and wrong by the numbers of `status.collect`. Pure."""
    results = [_repository(status)]
    for item in status["sets"]:
        results += _set(item, status["limits"])
    if not status["sets"]:
        results.append(
            Result("backup", None, False, "no set: no Redis host uploads to this server")
        )
    if status["deferred"]:
        results.append(_deferred(status["deferred"]))
    results.append(_disk(status))
    return results


def _repository(status: Mapping[str, Any]) -> Result:
    found = status["repository"]
    if found["problem"] is not None:
        return Result("repository", None, False, found["problem"])
    return Result("repository", None, True, f"{found['id']}, made at {found['created']}")


def _set(item: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Result]:
    name, catalogue = item["set"], item["catalogue"]
    problems = catalogue["problems"]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        yield Result("catalogue", name, False, problems[0] + more)
    else:
        text = f"backups: {catalogue['backups']}, lines in {CATALOGUE_NAME}: {catalogue['lines']}"
        yield Result("catalogue", name, True, text)
    if problems and not catalogue["lines"]:
        return
    if item["expected"]:
        yield Result("backup", name, *_backup(item["newest"], limits["backup_age"]))
        if limits["drill_age"] is not None:
            yield Result("drill", name, *_drill(item["drill"], limits["drill_age"]))
    yield from _contents(name, item, limits)


def _backup(newest: Mapping[str, Any] | None, limit: int) -> tuple[bool, str]:
    if newest is None:
        return False, "there is none yet that counts"
    if newest["problem"] is not None:
        return False, newest["problem"]
    age = newest["data_age"]
    text = f"{newest['id']}: accepted {_ago(newest['accepted_age'])}, its data are {span(age)} old"
    if newest["accepted_age"] < 0:
        ahead = f"{newest['id']}: accepted {_ago(newest['accepted_age'])}"
        return False, f"{ahead}: this server's clock was set back; set it right"
    if age > limit:
        return False, f"{text}, {span(limit)} are allowed"
    return True, text


def _drill(drill: Mapping[str, Any] | None, limit: int) -> tuple[bool, str]:
    if drill is None:
        return False, "there was none yet"
    without = drill["without_backup"]
    if without is not None:
        return False, f"the last one, {without['drill_id']}, failed: {without['reason']}"
    last = drill["last"]
    # An older backup that is proven after it does not make the newest a good one.
    for which, entry in (
        ("the last one", last),
        ("the last one of the newest backup", drill["of_newest"]),
    ):
        if entry is not None and entry["verdict"] != PASSED:
            return False, (
                f"{which}, {entry['drill_id']} of {entry['id']}, {entry['verdict']};"
                f" `redis-backup show {entry['id']}` says why"
            )
    age = last["age"]
    text = f"{last['id']} was proven to level {last['level']} by {last['drill_id']} {_ago(age)}"
    if age < 0:
        return False, f"{text}: this server's clock was set back; set it right"
    if age > limit:
        return False, f"{text}, {span(limit)} are allowed"
    return True, text


def _contents(name: str, item: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Result]:
    """What is only told when it is not as it ought to be, but for the scrub."""
    if item["bad"]:
        *others, last = item["bad"]
        more = f"; damaged too: {', '.join(other['id'] for other in others[-5:])}" if others else ""
        more += f" and {len(others) - 5} more" if len(others) > 5 else ""
        text = (
            f"{last['id']} is damaged, found {_ago(last['age'])}: {last['reason']}{more}; what is"
            " damaged counts for nothing, and retention deletes it when its time has come"
        )
        yield Result("scrub", name, False, text)
    else:
        yield Result("scrub", name, *_scrub(item["unread"], limits["scrub_age"]))
    if item["shrunk"]:
        last = item["shrunk"][-1]
        text = (
            f"{last['id']} has {last['keys']} keys in {human_bytes(last['size'] or 0)}, where"
            f" {last['from']} had {last['from_keys']} in {human_bytes(last['from_size'] or 0)}:"
            " data are missing, or were meant to go; in the latter case run `redis-backup"
            f" acknowledge {name}/{last['id']}`; until then {last['from']} stays and counts as the"
            " newest"
        )
        yield Result("shrunk", name, False, text)
    if item["lease"] is not None:
        lease = item["lease"]
        over = lease["left"] <= 0
        text = f"{lease['whose']} is at work" + (
            ": its time has run out; finish it or abort it" if over else ""
        )
        yield Result("lease", name, not over, text)


def _scrub(unread: Mapping[str, Any], limit: int | None) -> tuple[bool, str]:
    age = unread["oldest_age"]
    if age is None:
        return True, "there is nothing to read yet"
    text = f"every backup was read within the last {span(age)}"
    if limit is not None and age > limit:
        return False, (
            f"a backup was last read {_ago(age)}, {span(limit)} are allowed: does"
            " redis-backup-scrub.timer run?"
        )
    return True, text


def _deferred(items: list[Mapping[str, Any]]) -> Result:
    first = items[0]
    more = f", and {len(items) - 1} more" if len(items) > 1 else ""
    return Result(
        "deferred",
        None,
        False,
        f"{first['id']} of {first['host']} waits since {span(first['age'])}{more}: verifying it"
        f" takes longer than its host's backups did so far; it is tried again with"
        f" {first['budget']:.0f} s of CPU; check whether {first['host']} was compromised",
    )


def _disk(status: Mapping[str, Any]) -> Result:
    disk = status["disk"]
    text = f"{status['store']} has {human_bytes(disk['free'])} free"
    if disk["free"] < disk["needed"]:
        text += (
            f", less than {human_bytes(disk['needed'])}: the reserve and"
            f" {status_module.ROOM_FOR} more backups of each set; make room"
        )
    return Result("disk", None, disk["free"] >= disk["needed"], text)


def _ago(age: float) -> str:
    return f"{span(age)} ago" if age >= 0 else f"{span(-age)} from now"


def span(seconds: float) -> str:
    """A time for people, to the minute or hour."""
    if seconds < 60:
        return "less than a minute"
    if seconds < 2 * 3600:
        minutes = int(seconds // 60)
        return f"{minutes} minute" + ("s" if minutes > 1 else "")
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86400:.0f} days"
