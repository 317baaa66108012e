"""Which backups of a set are kept, and why: one decision per backup, from data alone.

Rules are counts of what there is, not ages: the newest N backups, and one backup of each of the
newest N days, weeks and months that have any. So a clock that runs ahead, or backups that stop
coming, make nothing expire; only a new backup can push an old one out.

Only good backups count: verified, of a kind that counts, not marked as shrunk, and not failed in a
drill. The others take nobody's place, and stay as long as they would have if they counted: nothing
good is deleted for their sake, and nothing rotten is kept for good.

Of each host by itself: a host that was taken over cannot push out what others made, however many
backups it adds. Days, weeks and months are those of all hosts, so what a host left that makes no
more backups grows old as it would have by its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..base.errors import UsageError
from ..config.model import Policy
from ..formats.catalogue import Entry
from ..formats.manifest import COUNTING
from ..formats.report import PASSED


@dataclass(frozen=True)
class Backup:
    """A backup of the store. `host` made it; `accepted_at` is unix time (seconds) by the backup
    server's clock; `moment` is that of its data, and never later. `verified` is False where a
    reading has found that it is not what was accepted, `doubted` is True where a mere look says so;
    `drill` is the verdict of its last drill, None without one. `shrunk_from` is the backup than
    which it is much smaller, as long as nobody has acknowledged that; `kept_until` is an operator's
    mark (unix seconds); `leased` is whether a restore needs it.
    """

    id: str
    host: str
    accepted_at: int
    moment: int
    kind: str = "nightly"
    verified: bool = True
    doubted: bool = False
    drill: str | None = None
    shrunk_from: str | None = None
    kept_until: int | None = None
    leased: bool = False
    pruned: bool = False

    @property
    def counts(self) -> bool:
        """Whether it may be the newest backup of its set."""
        return (
            self.verified
            and not self.doubted
            and self.kind in COUNTING
            and self.shrunk_from is None
        )

    @property
    def good(self) -> bool:
        """It counts, and no drill has disproved it."""
        return self.counts and self.drill in (None, PASSED)


@dataclass(frozen=True)
class Decision:
    """What becomes of one backup. `reasons` are never empty."""

    id: str
    keep: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"id": self.id, "keep": self.keep, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Plan:
    """One decision per backup that is not pruned, in the order in which they were given. `refused`
    says why nothing at all may be deleted, None when the policy was applied.
    """

    decisions: tuple[Decision, ...]
    refused: str | None

    def deleted(self) -> list[str]:
        """The ids to delete, oldest first."""
        return [decision.id for decision in self.decisions if not decision.keep]


def plan(history: Sequence[Backup], policy: Policy, now: float, max_gap: float) -> Plan:
    """Decide about all backups of a set, given in the order in which they were accepted, pruned
    ones too.

    `now` is unix time by the backup server's clock; nothing is deleted when the last backup is
    from after it, or older than `max_gap` seconds. Raises UsageError when the policy is empty.
    """
    check(policy)
    backups = [item for item in history if not item.pruned]
    if not backups:
        return Plan((), None)
    refused = _clock(history[-1], now, max_gap)
    if refused is not None:
        return Plan(tuple(Decision(item.id, True, (refused,)) for item in backups), refused)
    reasons: dict[str, list[str]] = {item.id: [] for item in backups}
    in_order = []
    for item, trusted in zip(history, _in_order(history)):
        if item.pruned:
            continue
        if trusted:
            in_order.append(item)
        else:
            reasons[item.id].append(
                f"accepted while the clock was off ({_iso(item.accepted_at)}): counts for nothing"
            )
    in_order.sort(key=lambda item: item.moment)
    good = [item for item in in_order if item.good]
    _protect(in_order, good, policy.minimum, now, reasons)
    if len(good) < policy.minimum:
        # Whatever says that so many are bad may be wrong itself.
        for item in in_order:
            if not item.good:
                reasons[item.id].append(f"fewer than {policy.minimum} good ones are left")
    _apply(good, policy, reasons)
    _apply(in_order, policy, reasons)
    return Plan(tuple(_decision(item, reasons[item.id], policy) for item in backups), None)


def shrunk_from(newest: Entry | None, keys: int, size: int, limit: int) -> str | None:
    """The id of the newest backup when one with so many keys and bytes (plain) is below `limit` per
    cent of it in either; None when it is not, or there is none. Pure.
    """
    if newest is None or newest.keys is None or newest.size is None:
        return None
    small = keys * 100 < newest.keys * limit or size * 100 < newest.size * limit
    return newest.id if small else None


def check(policy: Policy) -> None:
    """Raises UsageError when a policy would keep next to nothing."""
    if policy.minimum < 1 or max(policy.last, policy.daily, policy.weekly, policy.monthly) < 1:
        raise UsageError(
            "the retention policy is empty: it names nothing to keep, so nothing is deleted;"
            " set keep_minimum and at least one of keep_last, keep_daily, keep_weekly, keep_monthly"
        )


def _clock(newest: Backup, now: float, max_gap: float) -> str | None:
    gap = now - newest.accepted_at
    if gap < 0:
        return (
            f"nothing is deleted: the clock says {_iso(now)}, the last backup was accepted at"
            f" {_iso(newest.accepted_at)}: the clock was set back; set it right"
        )
    if gap > max_gap:
        return (
            f"nothing is deleted: the clock says {_iso(now)}, the last backup was accepted at"
            f" {_iso(newest.accepted_at)}, {gap / 3600:.0f} hours before: backups do not come, or"
            " the clock jumped ahead; see `redis-backup check`"
        )
    return None


def _in_order(history: Sequence[Backup]) -> list[bool]:
    """Which backups carry a time that fits the order in which they were accepted: the longest run
    of times that never go back and ends with the last one. The others were accepted while the
    clock was off. Pruned ones take part, else deleting could change who is believed.
    """
    last = history[-1].accepted_at
    times: list[int] = []  # the smallest time that ends a run of each length
    ends: list[int] = []  # and the backup that it is of
    before: list[int] = []
    for index, item in enumerate(history):
        if item.accepted_at > last:
            before.append(-1)
            continue
        length = bisect_right(times, item.accepted_at)
        before.append(ends[length - 1] if length else -1)
        times[length : length + 1] = [item.accepted_at]
        ends[length : length + 1] = [index]
    fits = [False] * len(history)
    # The last one is the latest of those looked at, so it ends the longest run.
    index = len(history) - 1
    while index >= 0:
        fits[index] = True
        index = before[index]
    return fits


def _protect(
    backups: Sequence[Backup],
    good: Sequence[Backup],
    minimum: int,
    now: float,
    reasons: dict[str, list[str]],
) -> None:
    """What no policy can delete. Both in the order of their data."""
    for what, found in (
        ("newest verified", [item for item in backups if item.counts]),
        ("newest good", good),
        ("newest drilled", [item for item in good if item.drill == PASSED]),
    ):
        if found:
            reasons[found[-1].id].append(what)
    for item in good[-minimum:]:
        reasons[item.id].append(f"never fewer than {minimum}")
    # The last one before the data shrank, each time that they did: the shrinking may be the fault.
    last_good, last_counting, told = None, None, set()
    for item in backups:
        if item.counts:
            last_counting = item
            last_good = item if item.good else last_good
        before = last_good or last_counting
        if item.shrunk_from is not None and before is not None and before.id not in told:
            told.add(before.id)
            reasons[before.id].append(
                f"the last one before {item.id}, which is much smaller, until"
                f" `redis-backup acknowledge {item.id}`"
            )
    for item in backups:
        if item.doubted and item.verified:
            # One look that failed is no reason to delete it: `scrub` reads twice before it says so.
            reasons[item.id].append("damaged at a look, until `redis-backup scrub` has read it")
        if item.leased:
            reasons[item.id].append("a restore is at work with it")
        if item.kept_until is not None and item.kept_until > now:
            reasons[item.id].append(f"kept until {_iso(item.kept_until)} (redis-backup keep)")


def _apply(pool: Sequence[Backup], policy: Policy, reasons: dict[str, list[str]]) -> None:
    """The rules over backups in the order of their data."""

    def keep(item: Backup, reason: str) -> None:
        if reason not in reasons[item.id]:
            reasons[item.id].append(reason)

    if policy.last:
        days = _newest(pool, _day, policy.last)
        kept = Counter[str]()
        for item in reversed(pool):
            kept[item.host] += 1
            if kept[item.host] <= policy.last and _day(item.moment) in days:
                keep(item, f"among the last {policy.last} of {item.host}")
    for count, bucket in _buckets(policy):
        named = _newest(pool, bucket, count)
        chosen: dict[tuple[str, str], Backup] = {}
        for item in pool:
            key = (bucket(item.moment), item.host)
            if key[0] in named and (key not in chosen or _rank(item) >= _rank(chosen[key])):
                chosen[key] = item
        for (name, host), item in chosen.items():
            keep(item, f"{name} of {host}")


def _newest(pool: Sequence[Backup], bucket: Callable[[int], str], count: int) -> set[str]:
    """The newest days, weeks or months that have a backup. The pool is in order of time."""
    names = list(dict.fromkeys(bucket(item.moment) for item in pool))
    return set(names[max(0, len(names) - count) :])


def _buckets(policy: Policy) -> tuple[tuple[int, Callable[[int], str]], ...]:
    return ((policy.daily, _day), (policy.weekly, _week), (policy.monthly, _month))


def _rank(item: Backup) -> int:
    """Of a host's within a day, week or month the newest of the best is kept: a proven one, else
    one that nobody disproved.
    """
    if not item.good:
        return 0
    return 2 if item.drill == PASSED else 1


def _decision(item: Backup, reasons: Sequence[str], policy: Policy) -> Decision:
    if reasons:
        return Decision(item.id, True, tuple(reasons))
    why = [f"not among the last {policy.last} of {item.host}"] if policy.last else []
    why += [
        f"not needed: another backup of {item.host} is kept for {bucket(item.moment)}, or that"
        f" is older than the newest {count}"
        for count, bucket in _buckets(policy)
        if count
    ]
    return Decision(item.id, False, tuple(why))


def _utc(unix_time: float) -> datetime:
    return datetime.fromtimestamp(unix_time, timezone.utc)


def _iso(unix_time: float) -> str:
    return _utc(unix_time).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(unix_time: int) -> str:
    return f"day {_utc(unix_time):%Y-%m-%d}"


def _week(unix_time: int) -> str:
    year, week, _ = _utc(unix_time).isocalendar()
    return f"week {year}-W{week:02d}"


def _month(unix_time: int) -> str:
    return f"month {_utc(unix_time):%Y-%m}"
