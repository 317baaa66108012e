"""`redis-backup check` and `status`: what monitoring is told, over real stores and by the words of
the pure decision.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis_backup.commands import check, status, verify
from redis_backup.formats import lease
from redis_backup.repository import patience

from tests.support.runbooks import is_seen
from tests.tool.backup_lab import SET, BackupServer, lab, run
from tests.tool.store_lab import DAY, drilled, flip, stored

POLICY = {"keep_last": 2, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0, "keep_minimum": 1}
HOUR = 3600


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BackupServer]:
    """A backup server that wants drills, with one set."""
    with lab(tmp_path, "redis-1", rsync=False) as made:
        made.server.write_config(
            retention=POLICY, max_drill_age_seconds=93600, max_scrub_age_seconds=9 * DAY
        )
        yield made.server


def checked(server: BackupServer) -> tuple[int, dict[str, str]]:
    """Exit code, and what is wrong by check."""
    result = run("--config", server.config, "--json", "check")
    found = {item["check"]: item for item in result.json["checks"]}
    assert set(found) >= {"repository", "catalogue", "backup", "drill", "disk"}
    wrong = {name: item["message"] for name, item in found.items() if not item["ok"]}
    assert result.json["ok"] == (not wrong) == (result.code == 0)
    return result.code, wrong


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait before the second look."""
    monkeypatch.setattr(verify, "_SECOND_LOOK", 0.0)


def test_check_is_content(server: BackupServer) -> None:
    backup_id = stored(server, 0.5, drill="passed")
    assert checked(server) == (0, {})
    lines = run("--config", server.config, "check").out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["ok"] * 6
    assert lines[2] == f"ok: backup {SET}: {backup_id}: accepted 12 h ago, its data are 12 h old"


def test_check_without_any_backup(server: BackupServer) -> None:
    code, wrong = checked(server)
    assert code == 1
    assert wrong == {"backup": "there is none yet that counts", "drill": "there was none yet"}
    assert is_seen("backup-is-late#none", run("--config", server.config, "check").out)


def test_check_late(server: BackupServer) -> None:
    backup_id = stored(server, 1.5, drill="passed")
    code, wrong = checked(server)
    assert code == 1
    assert wrong["backup"] == (
        f"{backup_id}: accepted 36 h ago, its data are 36 h old, 26 h are allowed"
    )
    assert "36 h ago, 26 h are allowed" in wrong["drill"]
    server.write_config(max_backup_age_seconds=2 * DAY, max_drill_age_seconds=2 * DAY)
    assert checked(server) == (0, {})


def test_check_backup_from_the_future(server: BackupServer) -> None:
    stored(server, -1, drill="passed")
    code, wrong = checked(server)
    assert code == 1
    assert "the clock was set back" in wrong["backup"].replace("this server's clock", "the clock")


def test_check_failed_drills(server: BackupServer) -> None:
    stored(server, 0.2, drill="passed")
    newest = stored(server, 0.1, drill="failed")
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert f"of {newest}, failed" in wrong["drill"]


def test_check_an_older_backup_that_is_proven_makes_the_newest_no_better(
    server: BackupServer,
) -> None:
    older = stored(server, 0.2)
    newest = stored(server, 0.1, drill="failed")
    drilled(server, older, "passed", time.time())
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert wrong["drill"].startswith("the last one of the newest backup, ")
    assert f"of {newest}, failed" in wrong["drill"]


def test_check_a_drill_that_could_not_run(server: BackupServer) -> None:
    stored(server, 0.2, drill="passed")
    drilled(server, None, "failed", time.time(), reason="the store cannot be reached")
    code, wrong = checked(server)
    assert (code, list(wrong)) == (1, ["drill"])
    assert wrong["drill"].endswith("failed: the store cannot be reached")


def test_check_the_store(server: BackupServer, hasty: None) -> None:
    backup_id = stored(server, 0.2, drill="passed")
    (server.store / SET / backup_id / "dump.rdb.zst").unlink()
    assert list(checked(server)[1]) == ["backup"]
    shutil.rmtree(server.store / SET / backup_id)
    assert "is not in the store" in checked(server)[1]["catalogue"]


def test_check_a_broken_chain(server: BackupServer, hasty: None) -> None:
    for days in (0.2, 0.1):
        stored(server, days)
    path = server.store / SET / "catalogue.jsonl"
    path.write_text(path.read_text().split("\n", 1)[1])
    result = run("--config", server.config, "check")
    assert result.code == 1
    assert f"FAILED: catalogue {SET}: {SET}/catalogue.jsonl line 1: does not carry" in result.out


def test_check_does_not_cry_over_an_accept_at_work(server: BackupServer) -> None:
    """A backup is in the store, with its receipt, a moment before its line is."""
    stored(server, 0.1, drill="passed")
    path = server.store / SET / "catalogue.jsonl"
    before = path.read_bytes()
    stored(server, 0)
    path.write_bytes(before)
    assert checked(server) == (0, {})


def test_check_a_full_disk(server: BackupServer, monkeypatch: pytest.MonkeyPatch) -> None:
    backup_id = stored(server, 0.1, drill="passed")
    size = (server.store / SET / backup_id / "dump.rdb.zst").stat().st_size
    for free, wrong in ((1024 + 3 * size, []), (1023 + 3 * size, ["disk"])):
        monkeypatch.setattr(status, "free_bytes", lambda _, free=free: free)
        assert list(checked(server)[1]) == wrong


def test_check_expects_nothing_of_a_set_whose_hosts_left(server: BackupServer) -> None:
    stored(server, 100)
    (server.root / "uploaders.d" / "redis-1.json").unlink()
    result = run("--config", server.config, "check")
    assert "backup redis" not in result.text
    assert "drill redis" not in result.text
    server.write_config()
    assert run("--config", server.config, "check").code == 0


# --- what is told, by numbers alone ---


def state(**changes: Any) -> dict[str, Any]:
    """The numbers of a set that is as it ought to be, with changes."""
    item: dict[str, Any] = {
        "set": SET,
        "expected": True,
        "catalogue": {"backups": 9, "lines": 12, "problems": []},
        "newest": {
            "id": "N",
            "kind": "nightly",
            "accepted_at": "2026-11-30T00:10:00Z",
            "accepted_age": 5 * HOUR,
            "data_age": 6 * HOUR,
            "keys": 10,
            "size": 100,
            "stored_size": 50,
            "problem": None,
        },
        "drill": {
            "last": {"id": "N", "drill_id": "D", "verdict": "passed", "level": "values", "age": 60},
            "of_newest": None,
            "without_backup": None,
        },
        "bad": [],
        "shrunk": [],
        "unread": {"never": 0, "oldest_age": 3 * DAY},
        "lease": None,
        **changes,
    }
    return {
        "at": "2026-11-30T05:10:00Z",
        "store": "/store",
        "repository": {"id": "R", "created": "2026-01-01T00:00:00Z", "problem": None},
        "sets": [item],
        "deferred": [],
        "disk": {"free": 10**9, "needed": 10**6, "reserve": 10**5},
        "limits": {
            "backup_age": 26 * HOUR,
            "drill_age": 26 * HOUR,
            "scrub_age": 9 * DAY,
            "shrink_percent": 50,
        },
    }


def wrong(numbers: dict[str, Any]) -> dict[str, str]:
    """What is told to be wrong."""
    return {item.check: item.message for item in check.judge(numbers) if not item.ok}


def test_the_numbers_are_those_of_a_store(server: BackupServer) -> None:
    """The dictionaries below have the shape of the real ones."""
    stored(server, 0.2, drill="passed")
    real = status.collect(server.loaded(), time.time())
    made = state()
    assert real.keys() == made.keys()
    assert real["limits"].keys() == made["limits"].keys()
    for key in ("catalogue", "newest", "drill", "unread"):
        assert real["sets"][0][key].keys() == made["sets"][0][key].keys(), key
    assert real["sets"][0].keys() == made["sets"][0].keys()
    assert wrong(real) == wrong(made) == {}
    assert run("--config", server.config, "--json", "status").json.keys() == made.keys()


NEWEST = state()["sets"][0]["newest"]
WORDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "old by its data": (
        {"newest": {**NEWEST, "accepted_age": 60, "data_age": 30 * HOUR}},
        "backup",
        "N: accepted 1 minute ago, its data are 30 h old, 26 h are allowed",
    ),
    "from the future": (
        {"newest": {**NEWEST, "accepted_age": -2 * HOUR}},
        "backup",
        "this server's clock was set back; set it right",
    ),
    "not there": ({"newest": {**NEWEST, "problem": "is missing"}}, "backup", "is missing"),
    "none": ({"newest": None}, "backup", "there is none yet that counts"),
    "shrunk": (
        {
            "shrunk": [
                {"id": "S", "keys": 1, "size": 20, "from": "N", "from_keys": 9, "from_size": 99}
            ]
        },
        "shrunk",
        "S has 1 keys in 20 B, where N had 9 in 99 B: data are missing, or were meant to go; in the"
        f" latter case run `redis-backup acknowledge {SET}/S`",
    ),
    "bad": (
        {
            "bad": [
                {"id": "A", "age": 9 * HOUR, "reason": "is missing"},
                {"id": "B", "age": 2 * HOUR, "reason": "sha256"},
            ]
        },
        "scrub",
        "B is damaged, found 2 h ago: sha256; damaged too: A; what is damaged counts for nothing",
    ),
    "scrub late": (
        {"unread": {"never": 0, "oldest_age": 10 * DAY}},
        "scrub",
        "a backup was last read 10 days ago, 9 days are allowed: does redis-backup-scrub.timer"
        " run?",
    ),
    "lease run out": (
        {"lease": {"whose": "a restore onto redis-2", "left": -5}},
        "lease",
        "a restore onto redis-2 is at work: its time has run out; finish it or abort it",
    ),
    "catalogue": (
        {"catalogue": {"backups": 1, "lines": 1, "problems": ["one", "two"]}},
        "catalogue",
        "one (and 1 more)",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_words_about_a_set(case: str) -> None:
    changes, name, words = WORDS[case]
    found = wrong(state(**changes))
    assert list(found) == [name]
    assert words in found[name]


def test_words_about_the_store() -> None:
    assert wrong({**state(), "sets": []}).keys() == {"backup"}
    mismatch = {"id": "X", "created": None, "problem": "another one"}
    assert wrong({**state(), "repository": mismatch}) == {"repository": "another one"}
    waits = [{"host": "redis-1", "id": "U", "age": 3 * HOUR, "budget": 120.0}] * 2
    [(name, words)] = wrong({**state(), "deferred": waits}).items()
    assert name == "deferred"
    assert words.startswith("U of redis-1 waits since 3 h, and 1 more")
    assert "120 s of CPU" in words
    full = {"free": 10, "needed": 11, "reserve": 1}
    assert wrong({**state(), "disk": full}).keys() == {"disk"}
    running = state(lease={"whose": "a restore", "left": 60})
    assert wrong(running) == {}
    assert "lease" in {item.check for item in check.judge(running)}


def test_what_is_wrong_in_a_store_is_in_its_numbers(server: BackupServer) -> None:
    """Each number that a case above changes comes from where it belongs."""
    backups = [stored(server, days) for days in (2, 1, 0.1)]
    flip(server.store / SET / backups[1] / "dump.rdb.zst")
    run("--config", server.config, "scrub")
    run("--config", server.config, "verify", backups[0])
    made = lease.Lease(SET, "plan-1", backups[0], (), "redis-2", "2020-01-01T00:00:00Z")
    (server.store / SET / lease.LEASE_NAME).write_bytes(lease.encode(made))
    patience.Patience(server.store).defer("redis-1", "20261130T000000Z-redis-1", time.time() - 60)
    (server.store / "repository.json").write_text("{}")
    found = status.collect(server.loaded(), time.time())
    [item] = found["sets"]
    assert [bad["id"] for bad in item["bad"]] == [backups[1]]
    assert item["lease"]["left"] < 0
    assert "a restore onto redis-2" in item["lease"]["whose"]
    assert item["newest"]["id"] == backups[2]
    assert item["unread"]["never"] == 1
    assert DAY - 60 < item["unread"]["oldest_age"] < DAY + 60
    assert [waiting["host"] for waiting in found["deferred"]] == ["redis-1"]
    assert wrong(found).keys() >= {"repository", "scrub", "lease", "deferred", "drill"}
