"""The retention policy: each rule by example, and what must hold over any history.

`RETENTION_EXAMPLES=100000 pytest THIS_FILE` looks at more histories.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_backup.base.errors import UsageError
from redis_backup.base.times import timestamp
from redis_backup.config.model import Policy
from redis_backup.formats.catalogue import Catalogue, Entry
from redis_backup.formats.manifest import KINDS
from redis_backup.repository import prune
from redis_backup.repository.retention import Backup, Plan, plan

EXAMPLES = int(os.environ.get("RETENTION_EXAMPLES", "500"))
HOUR, DAY = 3600, 86400
GAP = 52 * HOUR
HOST = "redis-1"
# A Wednesday.
NOW = datetime(2026, 11, 18, 6, 30, tzinfo=UTC)


def at(days: float) -> int:
    """Unix time some days before NOW."""
    return int((NOW - timedelta(days=days)).timestamp())


def made_at(name: str, host: str, moment: int, **more: Any) -> Backup:
    """A backup whose data are of the moment of its acceptance."""
    return Backup(name, host, moment, moment, **more)


def nightly(count: int, **kinds: str) -> list[Backup]:
    """A backup a night, the newest last: `b0` is the newest. `kinds` are verdicts of drills."""
    return [
        made_at(f"b{age}", HOST, at(age), drill=kinds.get(f"b{age}"))
        for age in reversed(range(count))
    ]


def only(**rules: int) -> Policy:
    """A policy with these rules alone."""
    return Policy(**{"last": 0, "daily": 0, "weekly": 0, "monthly": 0, "minimum": 1, **rules})


def decide(backups: list[Backup], policy: Policy, now: float = at(0)) -> Plan:
    """The plan, checked to be one decision per backup with a reason each."""
    made = plan(backups, policy, now, GAP)
    assert [item.id for item in made.decisions] == [item.id for item in backups if not item.pruned]
    assert all(item.reasons and all(item.reasons) for item in made.decisions)
    return made


def kept(made: Plan) -> list[str]:
    """What stays, oldest first."""
    return [item.id for item in made.decisions if item.keep]


def reasons(made: Plan, backup_id: str) -> str:
    """Why, in one line."""
    [found] = [item for item in made.decisions if item.id == backup_id]
    return "; ".join(found.reasons)


def test_by_count() -> None:
    made = decide(nightly(10), only(last=3))
    assert kept(made) == ["b2", "b1", "b0"]
    assert made.deleted() == ["b9", "b8", "b7", "b6", "b5", "b4", "b3"]
    assert reasons(made, "b2") == "among the last 3 of redis-1"
    assert reasons(made, "b3") == "not among the last 3 of redis-1"
    assert (
        reasons(made, "b0")
        == "newest verified; newest good; never fewer than 1; among the last 3 of redis-1"
    )


def test_by_days_that_have_a_backup() -> None:
    """Three a day for four days, then none for a day, then one."""
    backups = [
        made_at(f"d{day}-{n}", HOST, at(day) + n * HOUR) for day in (5, 4, 3, 2) for n in range(3)
    ]
    backups.append(made_at("d0", HOST, at(0)))
    made = decide(backups, only(daily=3))
    assert kept(made) == ["d3-2", "d2-2", "d0"]
    assert reasons(made, "d3-2") == "day 2026-11-15 of redis-1"
    assert reasons(made, "d3-1") == (
        "not needed: another backup of redis-1 is kept for day 2026-11-15, or that is older than"
        " the newest 3"
    )


def test_by_iso_weeks() -> None:
    """NOW is a Wednesday, so the weeks before it end three, ten, ... nights ago."""
    made = decide(nightly(30), only(weekly=3))
    assert kept(made) == ["b10", "b3", "b0"]
    assert reasons(made, "b10") == "week 2026-W45 of redis-1"


def test_by_months() -> None:
    made = decide(nightly(100), only(monthly=3))
    assert kept(made) == ["b49", "b18", "b0"]
    assert reasons(made, "b18") == "month 2026-10 of redis-1"


def test_a_week_that_spans_two_years_is_one() -> None:
    end = datetime(2027, 1, 2, 6, 0, tzinfo=UTC)
    backups = [
        made_at(f"b{age}", HOST, int((end - timedelta(days=age)).timestamp()))
        for age in range(20, -1, -1)
    ]
    made = decide(backups, only(weekly=2), now=end.timestamp())
    assert kept(made) == ["b6", "b0"]
    assert "week 2026-W53" in reasons(made, "b0")


def test_rules_add_up() -> None:
    made = decide(nightly(400), Policy(last=7, daily=14, weekly=8, monthly=12, minimum=2))
    assert 14 + 6 + 9 <= len(kept(made)) <= 14 + 8 + 12
    assert kept(made)[-14:] == [f"b{age}" for age in range(13, -1, -1)]


def test_a_proven_backup_is_the_one_of_its_day() -> None:
    backups = [
        made_at("early", HOST, at(2)),
        made_at("proven", HOST, at(2) + 1, drill="passed"),
        made_at("later", HOST, at(2) + 2),
        made_at("disproved", HOST, at(2) + 3, drill="failed"),
        *nightly(2, b0="passed"),
    ]
    assert kept(decide(backups, only(daily=9))) == ["proven", "b1", "b0"]


def test_the_newest_proven_one_stays_however_old() -> None:
    made = decide(nightly(50, b40="passed"), only(last=1))
    assert kept(made) == ["b40", "b0"]
    assert reasons(made, "b40") == "newest drilled"


def test_disproved_backups_take_nobody_s_place() -> None:
    """The drill fails for a week: nothing that was good goes for those."""
    failing = dict.fromkeys((f"b{age}" for age in range(7)), "failed")
    made = decide(nightly(10, **failing), only(last=2, minimum=2))
    assert kept(made) == ["b8", "b7", "b1", "b0"]


def test_damaged_backups_take_nobody_s_place_and_go_when_their_time_has_come() -> None:
    backups = nightly(10)
    for index in (1, 8, 9):
        backups[index] = replace(backups[index], verified=False)
    made = decide(backups, only(last=2))
    assert kept(made) == ["b3", "b2", "b1", "b0"]
    assert reasons(made, "b0") == "among the last 2 of redis-1"
    assert reasons(made, "b2").startswith("newest verified; newest good")


def test_one_look_at_a_backup_deletes_nothing() -> None:
    """The disk could not read it this once: it was the newest proven one, and long due."""
    backups = nightly(50, b40="passed")
    assert backups[9].id == "b40"
    backups[9] = replace(backups[9], doubted=True)
    made = decide(backups, only(last=1))
    assert kept(made) == ["b40", "b0"]
    assert "until `redis-backup scrub` has read it" in reasons(made, "b40")
    backups[9] = replace(backups[9], verified=False)
    assert kept(decide(backups, only(last=1))) == ["b0"]


def test_the_last_one_before_each_shrinking_stays() -> None:
    """Twice the data were gone for some nights and came back, and nobody has said why."""
    backups = nightly(30)
    for age in (21, 20, 11, 10):
        backups[29 - age] = replace(backups[29 - age], shrunk_from=f"b{age + 1}")
    made = decide(backups, only(daily=5))
    assert kept(made) == ["b22", "b12", "b4", "b3", "b2", "b1", "b0"]
    assert reasons(made, "b12") == (
        "the last one before b11, which is much smaller, until `redis-backup acknowledge b11`"
    )


def test_who_comes_late_is_not_the_newest() -> None:
    backups = [*nightly(3), Backup("late", HOST, at(0) + 60, at(5))]
    made = decide(backups, only(last=1), now=at(0) + 60)
    assert kept(made) == ["b0"]


def test_never_fewer_than_the_minimum() -> None:
    same_day = [made_at(f"b{n}", HOST, at(0) - 10 + n) for n in range(5)]
    assert kept(decide(same_day, only(daily=5, minimum=3))) == ["b2", "b3", "b4"]
    assert kept(decide(same_day, only(daily=5, minimum=9))) == ["b0", "b1", "b2", "b3", "b4"]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (at(1), "the clock was set back"),
        (at(0) - 1, "the clock was set back"),
        (at(0) + GAP + 1, "53 hours before: backups do not come, or the clock jumped"),
        (at(-365), "the clock jumped ahead"),
    ],
)
def test_a_jump_of_the_clock_deletes_nothing(now: int, words: str) -> None:
    made = decide(nightly(100), only(last=1), now=now)
    if now == at(0) + GAP + 1:
        words = "52 hours before: backups do not come, or the clock jumped"
    assert made.deleted() == []
    assert made.refused is not None
    assert words in made.refused
    assert {item.reasons for item in made.decisions} == {(made.refused,)}
    assert decide(nightly(100), only(last=1)).deleted()


@pytest.mark.parametrize("off", [-20000, -2.5, 1.5, 365])
def test_a_backup_accepted_while_the_clock_was_off_stops_nothing_later(off: float) -> None:
    """The clock was off for the tenth newest and was set right then."""
    backups = nightly(40)
    assert backups[30].id == "b9"
    backups[30] = replace(backups[30], accepted_at=at(9 - off))
    made = decide(backups, only(last=12))
    assert kept(made) == [f"b{age}" for age in range(12, -1, -1)]
    assert "while the clock was off" in reasons(made, "b9")


@pytest.mark.parametrize("policy", [only(), only(last=3, minimum=0)])
def test_an_empty_policy_is_refused(policy: Policy) -> None:
    for backups in ([], nightly(3)):
        with pytest.raises(UsageError, match="the retention policy is empty"):
            plan(backups, policy, at(0), GAP)


def test_nothing_to_decide() -> None:
    assert plan([], only(last=1), at(0), GAP) == Plan((), None)


def lived(attacked: bool) -> set[str]:
    """What is left of the honest backups after 120 days of a backup and a prune each. In the last
    60, if `attacked`, a host that was taken over has eight a day accepted, before the honest one
    and after it, and these are the ones that are drilled.
    """
    policy = Policy(last=7, daily=14, weekly=8, monthly=12, minimum=2)
    history: list[Backup] = []
    for day in range(120):
        start = at(120 - day)
        taken = attacked and day >= 60
        for number in range(8 if taken else 0):
            moment = start + (number - 4) * 60
            history.append(made_at(f"bad-{day}-{number}", "redis-1", moment))
            if number == 4:
                history.insert(-1, made_at(f"good-{day}", "redis-2", start))
        if not taken:
            history.append(made_at(f"good-{day}", "redis-2", start))
        if taken or day < 60:
            history[-1] = replace(history[-1], drill="passed")
        gone = set(plan(history, policy, start + HOUR, GAP).deleted())
        history = [replace(item, pruned=item.pruned or item.id in gone) for item in history]
    return {item.id for item in history if item.host == "redis-2" and not item.pruned}


def test_a_host_that_was_taken_over_pushes_nobody_else_out() -> None:
    honest = lived(attacked=False)
    assert len(honest) > 20
    assert lived(attacked=True) == honest


def test_without_days_a_flood_pushes_nobody_else_out_either() -> None:
    flood = [made_at(f"bad{number}", "redis-2", at(0) - 60 + number) for number in range(50)]
    made = decide([*nightly(4), *flood], only(last=3))
    assert kept(made) == ["b2", "b1", "b0", "bad47", "bad48", "bad49"]
    assert reasons(made, "bad46") == "not among the last 3 of redis-2"


def test_taking_turns_costs_nothing() -> None:
    """Whoever makes the backup of a night: as many are kept, days and count, as of one host."""
    policy = Policy(last=7, daily=14, weekly=0, monthly=0, minimum=1)
    turns = [
        replace(item, host=f"redis-{number // 5 % 3}") for number, item in enumerate(nightly(50))
    ]
    assert kept(decide(turns, policy)) == kept(decide(nightly(50), policy))


def test_what_a_host_left_that_makes_no_more_backups_grows_old() -> None:
    backups = [
        replace(item, host="redis-9") if number < 30 else item
        for number, item in enumerate(nightly(60))
    ]
    made = decide(backups, Policy(last=7, daily=14, weekly=0, monthly=0, minimum=1))
    assert kept(made) == [f"b{age}" for age in range(13, -1, -1)]


# How a backup is, and what is to become of it, by the words of the design and not of the code.
@dataclass
class Lived:
    """A backup of a history. `moment` is of its data; `rotten` after all that was read of it."""

    entry: Entry
    moment: int
    rotten: bool = False
    drill: str | None = None
    shrunk: bool = False
    kept_until: int = 0

    @property
    def counts(self) -> bool:
        return not self.rotten and not self.shrunk and self.entry.kind in ("nightly", "manual")

    @property
    def good(self) -> bool:
        return self.counts and self.drill in (None, "passed")


@dataclass
class History:
    """Events as life makes them, and what they come to."""

    events: list[Entry]
    backups: list[Lived]
    looks: dict[str, str | None]
    leased: frozenset[str]
    now: float
    ordered: bool

    def seen(self) -> list[Backup]:
        """As retention sees them: by the catalogue."""
        known = Catalogue("redis", tuple(self.events), "", 0, torn=False)
        return prune.backups(known, self.looks, self.leased)


def history(dice: random.Random) -> History:
    """Irregular, with all kinds, late arrivals, drills, rot found and withdrawn, shrinking that was
    acknowledged or not, marks, a lease, gaps and a clock that jumps.
    """
    moment = at(dice.randrange(0, 900))
    step = dice.choice((600, HOUR, 6 * HOUR, DAY, 3 * DAY))
    wild = dice.random() < 0.3
    hosts = [f"redis-{number}" for number in range(dice.choice((1, 1, 2, 3)))]
    events: list[Entry] = []
    backups: list[Lived] = []
    looks: dict[str, str | None] = {}
    ordered = True
    for number in range(dice.randrange(0, 60)):
        before = moment
        moment = max(1, moment + dice.randrange(0, 2 * step))
        if wild and dice.random() < 0.1:
            moment = max(1, moment + dice.choice((-1, 1)) * dice.randrange(0, 400 * DAY))
        ordered = ordered and moment >= before
        # Late, on time, or made by a clock that runs ahead.
        fork = max(
            1, moment - dice.choices((0, 60, dice.randrange(3 * DAY), -HOUR), (4, 4, 1, 1))[0]
        )
        shrunk = backups and dice.random() < 0.1
        accepted = Entry(
            event="accepted",
            id=f"b{number}",
            set="redis",
            at=timestamp(moment),
            manifest_sha256="0" * 64,
            host=dice.choice(hosts),
            kind=dice.choices(KINDS, (80, 10, 5, 5))[0],
            fork_time=fork,
            shrunk_from=dice.choice(backups).entry.id if shrunk else None,
        )
        events.append(accepted)
        backups.append(Lived(accepted, min(fork, moment), shrunk=bool(shrunk)))
        looks[f"b{number}"] = "too short" if dice.random() < 0.02 else None
        for item in dice.sample(backups, min(len(backups), dice.choice((0, 0, 0, 1, 2)))):
            about = replace(item.entry, kind=None, fork_time=None, shrunk_from=None)
            what = dice.randrange(6)
            if what < 2:
                item.drill = dice.choices(("passed", "failed", "odd"), (70, 25, 5))[0]
                about = replace(about, event="drilled", drill_id=f"d{number}", verdict=item.drill)
            elif what < 4:
                # A scrub finds rot; a later one may find that there was none.
                item.rotten = not item.rotten
                about = replace(about, event="verified", ok=not item.rotten, level="bytes")
            elif what == 4:
                item.kept_until = max(1, moment + dice.choice((0, DAY, 900 * DAY)))
                about = replace(about, event="kept", until=timestamp(item.kept_until))
            elif item.shrunk:
                item.shrunk = False
                about = replace(about, event="acknowledged")
            else:
                continue
            events.append(replace(about, at=timestamp(moment)))
    leased = [item.entry.id for item in backups if dice.random() < 0.02][:1]
    now = moment + dice.choice((0, 60, HOUR, DAY, -HOUR, GAP + 1, 400 * DAY))
    return History(events, backups, looks, frozenset(leased), max(0, now), ordered)


@settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**48),
    rules=st.tuples(*[st.integers(0, 9)] * 4).filter(any),
    minimum=st.integers(1, 5),
)
def test_what_holds_over_any_history(
    seed: int, rules: tuple[int, int, int, int], minimum: int
) -> None:
    lived = history(random.Random(seed))
    now, backups = lived.now, lived.seen()
    policy = Policy(*rules, minimum=minimum)
    made = decide(backups, policy, now)
    gone = set(made.deleted())
    doubted = {key for key, wrong in lived.looks.items() if wrong}

    # A jump of the clock deletes nothing, and only that refuses.
    jumped = bool(backups) and not 0 <= now - backups[-1].accepted_at <= GAP
    assert (made.refused is not None) == jumped
    if jumped:
        assert not gone
        return
    # What carries a wrong time is a person's to delete, and only a clock that was off makes one.
    off = {item.id for item in made.decisions if "the clock was off" in item.reasons[0]}
    assert not off or not lived.ordered
    assert not gone & off
    # By its data: whoever comes late is not the newest.
    by_data = sorted(
        (item for item in lived.backups if item.entry.id not in off), key=lambda item: item.moment
    )
    counting = [item for item in by_data if item.counts and item.entry.id not in doubted]
    good = [item for item in counting if item.good]
    proven = [item for item in good if item.drill == "passed"]
    # The newest verified, the newest good and the newest proven one stay.
    for kind in (counting, good, proven):
        assert not kind or kind[-1].entry.id not in gone
    # Never fewer good ones than the minimum, or than there were; nothing at all goes before that.
    left = [item for item in by_data if item.entry.id not in gone]
    assert sum(item in good for item in left) >= min(minimum, len(good))
    if len(good) < minimum:
        assert not gone
    # What a person or a restore needs, and what nobody has read since a look found it damaged.
    for item in by_data:
        if item.kept_until > now or item.entry.id in lived.leased:
            assert item.entry.id not in gone
        if item.entry.id in doubted and not item.rotten:
            assert item.entry.id not in gone
    # The last one before the data shrank, each time that they did.
    for number, item in enumerate(by_data):
        if item.shrunk:
            before = [other for other in by_data[:number] if other in good]
            assert not before or before[-1].entry.id not in gone
    # Nothing good goes for the sake of what does not count: without that, it would go as well.
    names = {item.entry.id for item in good}
    alone = [item for item in backups if item.id in names]
    if alone and 0 <= now - alone[-1].accepted_at <= GAP and lived.ordered:
        assert gone & names <= set(decide(alone, policy, now).deleted())
    if lived.ordered:
        _bounds(lived, good, left, policy, doubted)
        _nothing_rotten_for_good(lived, policy, backups, doubted)
    _consistent(lived, policy, backups, made)


def _bounds(
    lived: History,
    good: list[Lived],
    left: list[Lived],
    policy: Policy,
    doubted: set[str],
) -> None:
    """Days, weeks and months that the policy names keep a good backup, if they had one; and how
    many stay is bounded.
    """
    last, minimum = policy.last, policy.minimum
    counts = (policy.daily, policy.weekly, policy.monthly)
    hosts = {item.entry.host for item in left}

    def days(items: list[Lived], form: str) -> list[str]:
        return sorted({datetime.fromtimestamp(item.moment, UTC).strftime(form) for item in items})

    if last:
        newest = set(days(good, "%Y-%m-%d")[-last:])
        for host in hosts:
            made = [item for item in good if item.entry.host == host][-last:]
            assert all(item in left for item in made if set(days([item], "%Y-%m-%d")) <= newest)
    for count, form in zip(counts, ("%Y-%m-%d", "%G-%V", "%Y-%m"), strict=True):
        wanted = set(days(good, form)[-count:] if count else [])
        for host in hosts:
            assert wanted & set(days([item for item in good if item.entry.host == host], form)) <= (
                set(days([item for item in left if item in good and item.entry.host == host], form))
            )
    # Of each host two pools of each rule, and what is protected besides: of each shrinking one.
    most = 2 * (last + sum(counts)) * len(hosts) + minimum + 3 + sum(item.shrunk for item in left)
    wanted_ids = lived.leased | doubted
    plain = [item for item in left if not item.kept_until and item.entry.id not in wanted_ids]
    assert len(good) < minimum or len(plain) <= most


def _nothing_rotten_for_good(
    lived: History, policy: Policy, backups: list[Backup], doubted: set[str]
) -> None:
    """When enough good ones came, nothing that does not count is left but what somebody wants."""
    later = [
        made_at(f"later-{number}", HOST, int(lived.now) + (number + 1) * 9 * DAY, drill="passed")
        for number in range(36)
    ]
    end = later[-1].accepted_at
    history = [*backups, *later]
    for _ in range(2):  # one may have been kept for the sake of a smaller one
        gone = set(decide(history, policy, end).deleted())
        history = [replace(item, pruned=item.pruned or item.id in gone) for item in history]
    gone = {item.id for item in history if item.pruned}
    for item in lived.backups:
        wanted = item.kept_until > end or item.entry.id in lived.leased
        if not item.good and not wanted and (item.rotten or item.entry.id not in doubted):
            assert item.entry.id in gone


def _consistent(lived: History, policy: Policy, backups: list[Backup], made: Plan) -> None:
    now, gone = lived.now, set(made.deleted())
    # What was decided once is decided: by asking again nothing more goes but what was kept for the
    # sake of a smaller one that is gone now, ...
    after = [replace(item, pruned=item.id in gone) for item in backups]
    again = decide(after, policy, now)
    before = {item.id: item.reasons for item in made.decisions}
    assert all("the last one before" in before[item][0] for item in again.deleted())
    # ... and how backups are named plays no part.
    renamed = [replace(item, id=f"x{-number}") for number, item in enumerate(backups)]
    assert [item.keep for item in decide(renamed, policy, now).decisions] == [
        item.keep for item in made.decisions
    ]
    # A stricter policy never keeps what a looser one deletes.
    looser = Policy(
        policy.last + 1, policy.daily + 1, policy.weekly + 1, policy.monthly + 1, policy.minimum + 1
    )
    assert set(decide(backups, looser, now).deleted()) <= gone
    # A new backup pushes out one of each rule, of those that were good and of all, and no more. Of
    # another host it may be a new day: it pushes out what others made on one. And when it is the
    # last one that was missing to the minimum, what was kept until then goes.
    if lived.ordered and sum(item.good and not item.pruned for item in after) >= policy.minimum:
        newer = [*after, made_at("new", HOST, int(now))]
        others = {item.host for item in backups} - {HOST}
        rules = (policy.last, policy.daily, policy.weekly, policy.monthly)
        most = 2 * sum(map(bool, rules)) * (1 + len(others)) + 2 * policy.last * len(others) + 3
        pushed = set(decide(newer, policy, now).deleted()) - set(again.deleted())
        assert len(pushed) <= most
