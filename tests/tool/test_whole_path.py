"""The whole path: create on a Redis host, rsync, accept on the server, receipt, list, show,
verify.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from redis_backup.rdb import crc64

from tests.support import rdb_builder as build
from tests.tool.backup_lab import (
    PACKAGE,
    PASSWORD,
    SECRET,
    SET,
    Result,
    drill_config,
    fill,
    lab,
    run,
    run_process,
    wait_until,
)


def test_a_backup_from_redis_to_the_store_and_back(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        counts = fill(server.client())
        config = made.host_config("redis-1", server)

        done = run("create", "--json", "--config", config)

        assert done.code == 0, done.text
        assert done.json["status"] == "accepted"
        assert done.json["databases"] == counts
        backup_id = done.json["id"]
        directory = made.server.store / SET / backup_id
        assert sorted(entry.name for entry in directory.iterdir()) == [
            "dump.rdb.zst",
            "manifest.json",
            "receipt.json",
        ]
        receipt = made.server.receipt(backup_id)
        assert receipt["status"] == "accepted"
        assert receipt["manifest_sha256"] == done.json["manifest_sha256"]
        # Nothing is left behind on either side, and nothing is anybody else's to read.
        staging = server.data / ".redis-backup"
        assert [entry.name for entry in staging.iterdir()] == ["lock"]
        assert stat.S_IMODE(staging.stat().st_mode) == 0o700
        # An upload is removed after its host was told of it.
        inbox = made.server.inbox / "redis-1"
        wait_until(lambda: list(inbox.iterdir()) == [], "an empty inbox")
        for path in made.server.store.rglob("*"):
            assert not path.stat().st_mode & 0o077, path

        listed = run("--config", made.server.config, "list", "--json")
        assert [item["id"] for item in listed.json["backups"]] == [backup_id]
        shown = run("--config", made.server.config, "show", backup_id)
        assert shown.code == 0
        assert f"{SET}/{backup_id}" in shown.out
        assert "keys=304,expires=100" in shown.out
        verified = run("--config", made.server.config, "verify", "--all")
        assert verified.code == 0, verified.text
        assert f"good: {SET}/{backup_id}" in verified.out

        again = run("create", "--json", "--config", config)
        assert again.code == 0, again.text
        assert again.json["id"] != backup_id
        listed = run("--config", made.server.config, "list", "--json")
        assert [item["id"] for item in listed.json["backups"]] == [again.json["id"], backup_id]


def test_the_command_as_a_process_shows_no_secret(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        config = made.host_config("redis-1", server)
        done = run_process("--config", config, "create", "--now")
        assert done.code == 0, done.text
        assert PASSWORD not in done.text
        assert SECRET not in done.text
        steps = [line.partition(":")[0] for line in done.out.splitlines()]
        assert steps == ["snapshot", "walked", "compressed", "uploaded", "accepted"]


def test_inspect_needs_neither_configuration_nor_redis_module(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1", rsync=False) as made:
        server = made.redis("redis-1")
        client = server.client()
        counts = fill(client)
        client.save()
        # -S -E and an empty path: nothing but the standard library can be imported.
        (tmp_path / "redis.py").write_text("raise ImportError('not for inspect')\n")
        done = run_process(
            "inspect",
            "--json",
            server.data / "dump.rdb",
            PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}:{_package()}",
        )
        assert done.code == 0, done.text
        assert done.json["databases"] == counts
        bad = tmp_path / "bad.rdb"
        bad.write_bytes((server.data / "dump.rdb").read_bytes() + b"x")
        done = run("inspect", bad)
        assert done.code == 1
        assert "Traceback" not in done.text
        assert str(bad) in done.err or "EOF" in done.err


def _package() -> str:
    from tests.tool.backup_lab import PACKAGE

    return str(PACKAGE)


# What a shell puts at the end of a command.
SCREENS = [
    "| head -n 1",
    "| true",
    "> /dev/full",
    "> /dev/full 2>&1",
    ">&-",
    "2>&-",
    "<&- >&- 2>&-",
]


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_that_is_gone_or_full_decides_nothing(tmp_path: Path, screen: str) -> None:
    (tmp_path / "work").mkdir(mode=0o700)
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        create = made.host_config("redis-1", server)
        for config, *command in (
            (create, "create"),
            (made.server.config, "accept"),
            (made.server.config, "verify", "--all"),
            (made.server.config, "list"),
            (made.server.config, "check"),
            (drill_config(made), "drill"),
        ):
            done = shown_on(screen, "--config", config, *command)
            assert done.code == 0, (command, done.text)
            assert "Traceback" not in done.text, done.text
        made.server.accept()
        (backup,) = run("--config", made.server.config, "list", "--json").json["backups"]
        shown = run("--config", made.server.config, "show", backup["id"], "--json")
        assert [drill["verdict"] for drill in shown.json["drills"]] == ["passed"]


def test_a_bad_backup_is_bad_on_any_screen(tmp_path: Path) -> None:
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1")
        fill(server.client())
        made_backup = run("create", "--json", "--config", made.host_config("redis-1", server))
        payload = made.server.store / SET / made_backup.json["id"] / "dump.rdb.zst"
        content = bytearray(payload.read_bytes())
        content[len(content) // 2] ^= 1
        payload.chmod(0o600)
        payload.write_bytes(content)
        for screen in SCREENS:
            done = shown_on(screen, "--config", made.server.config, "verify", "--all")
            assert done.code == 1, (screen, done.text)


def shown_on(screen: str, *arguments: str | Path) -> Result:
    """Run the command line as a process whose output goes where a shell puts it."""
    words = shlex.join([sys.executable, "-m", "redis_backup", *map(str, arguments)])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{words} {screen}"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_data_that_should_not_be_there_is_backed_up_and_named(tmp_path: Path) -> None:
    """A stream with another length than it has entries, by RESTORE: the server serves and saves
    it.
    """
    packed: list[build.Element] = [1, 0, 1, b"f", 0, 2, 0, 0, b"v", 4]
    entries = build.string(build.stream_id(5)) + build.string(build.listpack(packed))
    numbers = b"".join(build.length(number) for number in (7, 5, 0, 0))
    payload = b"\x0f" + build.length(1) + entries + numbers + (9).to_bytes(2, "little")
    with lab(tmp_path, "redis-1") as made:
        server = made.redis("redis-1", sanitize_dump_payload="no")
        checksum = crc64.update_in_python(payload).to_bytes(8, "little")
        server.client().restore("odd", 0, payload + checksum)
        assert server.client().xlen("odd") == 7
        done = run("create", "--json", "--config", made.host_config("redis-1", server))
        assert done.code == 0, done.text
        words = "database 0, key 'odd': "
        assert words in done.err
        backup_id = done.json["id"]
        [warning] = made.server.receipt(backup_id)["warnings"]
        assert warning.startswith(words)
        assert warning in run("--config", made.server.config, "show", backup_id).out
        drilled = run("--config", drill_config(made), "--json", "drill")
        assert drilled.code == 0, drilled.text
        assert drilled.json["drills"][0]["report"]["warnings"] == [warning]
