"""The retention policy: each rule by example, and what must hold over any history.

`RETENTION_EXAMPLES=100000 pytest THIS_FILE` looks at more histories.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_backup.base.errors import UsageError
from redis_backup.config.model import Policy
from redis_backup.repository.retention import Backup, Plan, plan

EXAMPLES = int(os.environ.get("RETENTION_EXAMPLES", "2000"))
HOUR, DAY = 3600, 86400
GAP = 52 * HOUR
HOST = "redis-1"
# A Wednesday.
NOW = datetime(2026, 11, 18, 6, 30, tzinfo=UTC)


def at(days: float) -> int:
    """Unix time some days before NOW."""
    return int((NOW - timedelta(days=days)).timestamp())


def nightly(count: int, **kinds: str) -> list[Backup]:
    """A backup a night, the newest last: `b0` is the newest. `kinds` are verdicts of drills."""
    return [
        Backup(f"b{age}", HOST, at(age), drill=kinds.get(f"b{age}"))
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
        Backup(f"d{day}-{n}", HOST, at(day) + n * HOUR) for day in (5, 4, 3, 2) for n in range(3)
    ]
    backups.append(Backup("d0", HOST, at(0)))
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
        Backup(f"b{age}", HOST, int((end - timedelta(days=age)).timestamp()))
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
        Backup("early", HOST, at(2)),
        Backup("proven", HOST, at(2) + 1, drill="passed"),
        Backup("later", HOST, at(2) + 2),
        Backup("disproved", HOST, at(2) + 3, drill="failed"),
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


def test_damaged_backups_count_for_nothing_and_are_not_deleted() -> None:
    backups = nightly(10)
    for index in (1, 8, 9):
        backups[index] = replace(backups[index], verified=False)
    made = decide(backups, only(last=2))
    assert kept(made) == ["b8", "b3", "b2", "b1", "b0"]
    assert reasons(made, "b0") == "damaged or missing: counts for nothing, look at it"
    assert reasons(made, "b2").startswith("newest verified; newest good")


def test_never_fewer_than_the_minimum() -> None:
    same_day = [Backup(f"b{n}", HOST, at(0) - 10 + n) for n in range(5)]
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
            history.append(Backup(f"bad-{day}-{number}", "redis-1", moment))
            if number == 4:
                history.insert(-1, Backup(f"good-{day}", "redis-2", start))
        if not taken:
            history.append(Backup(f"good-{day}", "redis-2", start))
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
    flood = [Backup(f"bad{number}", "redis-2", at(0) - 60 + number) for number in range(50)]
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


def history(dice: random.Random) -> tuple[list[Backup], float]:
    """A history as life makes it: irregular, with drills, damage, gaps and a clock that jumps."""
    moment = at(dice.randrange(0, 900))
    step = dice.choice((600, HOUR, 6 * HOUR, DAY, 3 * DAY))
    wild = dice.random() < 0.3
    hosts = [f"redis-{number}" for number in range(dice.choice((1, 1, 2, 3)))]
    backups = []
    for number in range(dice.randrange(0, 60)):
        moment += dice.randrange(0, 2 * step)
        if wild and dice.random() < 0.1:
            moment += dice.choice((-1, 1)) * dice.randrange(0, 400 * DAY)
        backups.append(
            Backup(
                f"b{number}",
                dice.choice(hosts),
                max(0, moment),
                verified=dice.random() > 0.05,
                drill=dice.choices((None, "passed", "failed", "odd"), (60, 30, 9, 1))[0],
            )
        )
    return backups, max(0, moment) + dice.choice((0, 60, HOUR, DAY, -HOUR, GAP + 1, 400 * DAY))


@settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**48),
    rules=st.tuples(*[st.integers(0, 9)] * 4).filter(any),
    minimum=st.integers(1, 5),
)
def test_what_holds_over_any_history(
    seed: int, rules: tuple[int, int, int, int], minimum: int
) -> None:
    backups, now = history(random.Random(seed))
    policy = Policy(*rules, minimum=minimum)
    made = decide(backups, policy, now)
    gone = set(made.deleted())
    by_id = {item.id: item for item in backups}
    left = [item for item in backups if item.id not in gone]

    # A jump of the clock deletes nothing, and only that refuses.
    jumped = bool(backups) and not 0 <= now - backups[-1].accepted_at <= GAP
    assert (made.refused is not None) == jumped
    if jumped:
        assert not gone
    # What is damaged or of a wrong time is a person's to delete.
    assert all(by_id[item].verified and by_id[item].accepted_at <= now for item in gone)
    # The newest verified, the newest good and the newest proven one stay.
    verified = [item for item in backups if item.verified]
    good = [item for item in verified if item.good]
    proven = [item for item in verified if item.drill == "passed"]
    for kind in (verified, good, proven):
        assert not kind or kind[-1].id not in gone
    # Never fewer good ones than the minimum, or than there were.
    assert sum(item.good for item in left) >= min(minimum, len(good))
    if gone:
        # Days, weeks and months that the policy names keep a good backup, if they had one. What
        # fits the order of time is bounded from both sides.
        ordered = all(a.accepted_at <= b.accepted_at for a, b in pairwise(backups))
        hosts = {item.host for item in backups}
        if ordered:
            assert {item.id for item in good[-policy.last :] if policy.last} <= {
                item.id for item in left
            }
            for count, form in (
                (policy.daily, "%Y-%m-%d"),
                (policy.weekly, "%G-%V"),
                (policy.monthly, "%Y-%m"),
            ):

                def buckets(items: list[Backup], form: str = form) -> list[str]:
                    return sorted(
                        {
                            datetime.fromtimestamp(item.accepted_at, UTC).strftime(form)
                            for item in items
                        }
                    )

                # Of each host that made one in these.
                wanted = set(buckets(good)[-count:] if count else [])
                for host in hosts:
                    assert wanted & set(buckets([item for item in good if item.host == host])) <= (
                        set(buckets([item for item in left if item.good and item.host == host]))
                    )
            # Of each host two pools of each rule, and what is protected, are all that is kept of
            # what counts.
            most = 2 * sum(rules) * len(hosts) + minimum + 3
            assert sum(item.verified for item in left) <= most
    # What was decided once is decided: nothing more goes by asking again, ...
    after = [replace(item, pruned=item.id in gone) for item in backups]
    assert decide(after, policy, now).deleted() == []
    # ... and how backups are named plays no part.
    renamed = [replace(item, id=f"x{-number}") for number, item in enumerate(backups)]
    assert [item.keep for item in decide(renamed, policy, now).decisions] == [
        item.keep for item in made.decisions
    ]
    # A stricter policy never keeps what a looser one deletes.
    last, daily, weekly, monthly = (rule + 1 for rule in rules)
    looser = Policy(last, daily, weekly, monthly, minimum + 1)
    assert set(decide(backups, looser, now).deleted()) <= gone
    # A new backup pushes out one of each rule, of those that were good and of all, and no more. Of
    # another host it may be a new day: it pushes out what others made on one.
    if not jumped and all(a.accepted_at <= b.accepted_at for a, b in pairwise(backups)):
        newer = [*after, Backup("new", HOST, int(now))]
        others = {item.host for item in backups} - {HOST}
        most = 2 * sum(map(bool, rules)) * (1 + len(others)) + 2 * policy.last * len(others) + 3
        assert len(decide(newer, policy, now).deleted()) <= most
