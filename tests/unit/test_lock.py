"""The lock of an instance, its claim by a run, and the marker of an operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils import redis_lock, redis_marker
from ansible_collections.proven.redis.plugins.modules import redis_claim
from ansible_collections.proven.redis.plugins.modules import redis_marker as marker_module
from redis_backup.formats import lease

from tests.support.ansible_runs import answer

UNIT = "redis-server.service"
HOLDER = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_lock, "DIRECTORY", str(tmp_path / "run"))
    monkeypatch.setattr(redis_marker, "DIRECTORY", str(tmp_path / "lib"))


def claim(run: str, noted: dict[str, Any] | None, check: bool = False) -> dict[str, Any]:
    instance = {
        **dict.fromkeys(("unit_dropin", "server", "config_file", "log_file"), "/nowhere"),
        "unit": UNIT,
        "account": "nobody",
        "addresses": ["127.0.0.1"],
        "port": 1,
        "run": run,
        "lock_timeout": 1,
    }
    return answer(redis_claim, {"instance": instance, "noted": noted}, check)


def last() -> dict[str, Any] | None:
    with redis_lock.shared(UNIT, 1) as change:
        return change._asdict() if change else None


def test_reading_leaves_no_file_where_nobody_ever_changed_anything(tmp_path: Path) -> None:
    assert last() is None
    assert claim("a", None, check=True)["changed"] is False
    assert not (tmp_path / "run").exists()


def test_of_two_runs_that_saw_the_same_the_second_stops() -> None:
    noted = last()
    assert "failed" not in claim("a", noted)
    refused = claim("b", noted)
    assert refused["failed"]
    assert "another run is at work on redis-server.service (redis_claim, process" in refused["msg"]
    assert "of the run a, at 20" in refused["msg"]
    # The first goes on.
    assert "failed" not in claim("a", noted)


def test_a_run_that_ended_before_the_look_stops_nobody() -> None:
    claim("a", None)
    assert "failed" not in claim("b", last())


def test_a_run_that_went_on_after_the_look_does() -> None:
    claim("a", None)
    noted = last()
    time.sleep(0.01)
    claim("a", None)
    assert claim("b", noted)["failed"]


def test_a_lock_that_is_held_is_waited_for_and_its_holder_named(tmp_path: Path) -> None:
    claim("a", None)
    path = tmp_path / "run" / f"{UNIT}.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with (
            pytest.raises(redis_lock.LockedError, match="of the run a"),
            redis_lock.shared(UNIT, 0.3),
        ):
            pass
        assert "did not end within 1 s" in claim("a", None)["msg"]
        # It goes with its process.
        holder.kill()
        holder.wait()
    assert "failed" not in claim("a", None)


def test_a_file_that_says_nothing_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"{UNIT}.lock").write_text('{"run": 1}', "utf-8")
    assert last() is None


def test_readers_do_not_wait_for_each_other() -> None:
    claim("a", None)
    with redis_lock.shared(UNIT, 1), redis_lock.shared(UNIT, 0):
        pass


def marker(run: str = "a", check: bool = False, **more: Any) -> dict[str, Any]:
    wanted = {"kind": "restore", "phase": "fence", "deadline": "2026-01-31T01:05:00Z"}
    return answer(marker_module, {"unit": UNIT, "run": run, **wanted, **more}, check)


def test_a_marker_comes_changes_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "lib" / f"{UNIT}.marker.json"
    assert marker(check=True)["changed"]
    assert not path.exists()
    assert marker()["changed"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text("utf-8"))["schema"] == 1
    assert not marker()["changed"]
    began = json.loads(path.read_text("utf-8"))["began"]
    assert marker(phase="feed", settings={"save": "900 1"})["changed"]
    assert json.loads(path.read_text("utf-8"))["began"] == began
    refused = marker(run="b")
    assert refused["failed"]
    assert "a restore is at work since" in refused["msg"]
    assert marker(state="absent")["changed"]
    assert not marker(state="absent")["changed"]
    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "kind": 5}', "\xff"]
)
def test_a_marker_that_cannot_be_understood_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "lib").mkdir()
    path = tmp_path / "lib" / f"{UNIT}.marker.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(redis_marker.MarkerError):
        redis_marker.read(UNIT)
    assert "cannot be understood" in marker(state="absent")["msg"]
    assert path.read_bytes() == text.encode("latin-1")


def test_a_newer_tool_may_add_keys() -> None:
    marker()
    path = redis_marker.path_of(UNIT)
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**found, "more": 1}, file)
    read = redis_marker.read(UNIT)
    assert read is not None
    assert read.phase == "fence"
    assert os.path.exists(path)


def test_a_lease_of_the_set_is_named_and_one_that_cannot_be_read_is_no_free_pass(
    tmp_path: Path,
) -> None:
    assert redis_marker.lease("redis") == ""
    (tmp_path / "lib").mkdir()
    path = tmp_path / "lib" / "redis.lease.json"
    found = lease.Lease("redis", "p1", None, (), "redis-1", "2026-03-01T00:00:00Z")
    path.write_bytes(lease.encode(found))
    assert redis_marker.lease("redis") == f"{found.words()} is at work"
    assert redis_marker.lease("other") == ""
    for text in ("{", "{}", '{"schema": 1, "host": "a", "plan": "b", "until": "c"}', "[]"):
        path.write_text(text)
        with pytest.raises(redis_marker.MarkerError):
            redis_marker.lease("redis")
