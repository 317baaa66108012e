"""Very many backups: no command holds the store's lock for long, and each takes about as long per
backup as with few. And commands at work beside each other.

SOAK=1 has 3,000 of them.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_backup.commands import verify
from redis_backup.repository import accept, catalogue, ledger, marks, prune

from tests.tool.backup_lab import SET, BackupServer, id_now, lab, make_upload, run
from tests.tool.store_lab import ids, many, quiet

NUMBER = 3000 if os.environ.get("SOAK") == "1" else 150
POLICY = {"keep_last": 7, "keep_daily": 14, "keep_weekly": 8, "keep_monthly": 3, "keep_minimum": 2}
# Besides what each backup costs, every command starts and reads its configuration. Seconds of CPU.
START = 0.2


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the store's lock was held, each time (seconds)."""
    found: list[float] = []
    real = ledger.store_lock

    @contextmanager
    def timed(*arguments: Any, **more: Any) -> Iterator[None]:
        with real(*arguments, **more):
            started = time.monotonic()
            try:
                yield
            finally:
                found.append(time.monotonic() - started)

    for module in (ledger, prune, marks, accept, verify):
        monkeypatch.setattr(module, "store_lock", timed)
    return found


COMMANDS = (("list",), ("check",), ("status",), ("scrub",), ("accept",), ("prune",))


def spent(root: Path, number: int, dump: bytes) -> dict[str, float]:
    """Seconds of CPU that each command takes with so many backups."""
    seconds = {}
    with lab(root, "redis-1", rsync=False) as made:
        server = made.server
        server.write_config(retention=POLICY)
        many(server, number)
        for command in COMMANDS:
            if command == ("accept",):
                inbox = server.inbox / "redis-1"
                make_upload(inbox, dump, id_now("redis-1", 1))
            started = time.process_time()
            result = run("--config", server.config, "--json", *command)
            seconds[command[0]] = time.process_time() - started
            assert result.code == 0, result.text
            if command == ("accept",):
                assert len(result.json["accepted"]) == 1, result.text
        assert 20 <= len(ids(server)) <= 27
        assert run("--config", server.config, "check").code == 0
    return seconds


def test_many_backups(tmp_path: Path, held: list[float], dump: bytes) -> None:
    few = spent(tmp_path / "few", NUMBER // 2, dump)
    more = spent(tmp_path / "more", NUMBER, dump)
    assert max(held) < 1.0, sorted(held)[-5:]
    for command in few:
        # Twice as many may take twice as long, and what the machine adds.
        assert more[command] < 2.5 * few[command] + START, (command, few, more)


def _accept_and_delete(server: BackupServer, made: Path, dump: bytes) -> None:
    """An upload is accepted and an older backup goes, without end; a process of its own."""
    number = 0
    while True:
        number += 1
        upload = id_now("redis-1", -number)
        make_upload(made, dump, upload).rename(server.inbox / "redis-1" / upload)
        assert accept.run(server.loaded(), quiet()).problems == []
        assert prune.run(server.loaded(), quiet())["problems"] == []


def test_no_false_alarm_beside_retention_and_accept(tmp_path: Path, dump: bytes) -> None:
    with lab(tmp_path, "redis-1", rsync=False) as made:
        server = made.server
        policy = {"keep_last": 1, "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}
        server.write_config(retention={**policy, "keep_minimum": 1}, uploads_per_day=100000)
        make_upload(server.inbox / "redis-1", dump, id_now("redis-1"))
        assert server.accept().code == 0
        others = multiprocessing.get_context("fork").Process(
            target=_accept_and_delete, args=(server, tmp_path / "made", dump)
        )
        others.start()
        try:
            deadline = time.monotonic() + (120 if NUMBER == 3000 else 8)
            while time.monotonic() < deadline:
                for command in (("verify", "--all"), ("check",), ("scrub",)):
                    result = run("--config", server.config, *command)
                    assert result.code == 0, result.text
            assert others.is_alive()
        finally:
            others.kill()
            others.join()
        # They were at work, and nothing was written down against any backup.
        events = [entry.event for entry in catalogue.read(server.store / SET).entries]
        assert events.count("pruned") > 5
        assert "verified" not in events
