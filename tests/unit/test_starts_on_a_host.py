"""Starts and restarts that would load other data than the newest, on a host in a directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_start_files import unmounted

from tests.support import servers
from tests.support.hosts_in_a_directory import Host, host
from tests.support.runbooks import is_seen


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Host]:
    with host(tmp_path, servers.of_release("7.0")) as one:
        yield one


def stopped_with(made: Host, count: int = 30, appendonly: bool = True) -> None:
    """A server that was filled and ended in order."""
    made.begin(appendonly)
    made.fill("a", count)
    made.systemctl_do("stop")


def manifest(made: Host) -> Path:
    return made.data / "appendonlydir" / "appendonly.aof.manifest"


def test_an_rdb_placed_by_hand_is_loaded_and_saved_from_then_on(made: Host) -> None:
    """The file says `appendonly yes` and the append-only file is away."""
    stopped_with(made)
    shutil.rmtree(made.data / "appendonlydir")
    assert made.configure(True, check=True)["plan"] == [
        "appendonlydir: made of dump.rdb, which has the newest data"
    ]
    assert not manifest(made).exists()
    assert not made.deploy(True).get("failed")
    assert made.keys() == {"a": 30}
    assert made.configure(True, running=True)["plan"] == []
    made("SET", "b:1", "x")
    made.kill()
    made.systemctl_do("start")
    made.wait()
    assert made.keys() == {"a": 30, "b": 1}


def test_an_append_only_file_alone_is_loaded_where_neither_file_nor_inventory_wants_one(
    made: Host,
) -> None:
    stopped_with(made)
    (made.data / "dump.rdb").unlink()
    made.config.write_text(made.content(False))
    assert not made.deploy(False).get("failed")
    assert made.keys() == {"a": 30}
    assert made("CONFIG", "GET", "appendonly")[1] == "no"


def test_after_an_orderly_end_the_append_only_file_stays_in_use(made: Host) -> None:
    stopped_with(made)
    before = {path.name: path.stat().st_ino for path in manifest(made).parent.iterdir()}
    old = time.time() - 60
    for path in manifest(made).parent.iterdir():
        os.utime(path, (old, old))
    # As if it had ended only then.
    made.log.write_text(made.log.read_text())
    assert made.configure(True)["changed"] is False
    assert not made.service("started").get("failed")
    assert {path.name: path.stat().st_ino for path in manifest(made).parent.iterdir()} == before
    assert not list(made.data.glob("*.aside-*"))


def test_an_append_only_file_that_was_left_behind_is_kept_aside(
    made: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    made.begin(True)
    made.fill("a", 30)
    made("CONFIG", "SET", "appendonly", "no")
    time.sleep(1.1)
    made.fill("b", 10)
    made.systemctl_do("stop")
    made.configure(True)
    kept = next(made.data.glob("appendonlydir.aside-*"))
    assert kept.name in "".join(capsys.readouterr().err.split())
    assert not made.service("started").get("failed")
    assert made.keys() == {"a": 30, "b": 10}


Harm = Callable[[Host], Any]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda m: os.truncate(m.data / "dump.rdb", 60), "its end is missing"),
        (
            lambda m: (m.data / "dump.rdb").write_bytes(
                (m.data / "dump.rdb").read_bytes().replace(b"a:7", b"a:8")
            ),
            "RDB CRC error",
        ),
    ],
)
def test_a_damaged_rdb_stops_before_the_start(made: Host, harm: Harm, said: str) -> None:
    stopped_with(made, appendonly=False)
    harm(made)
    refused = made.deploy(True)
    assert refused["failed"]
    assert said in refused["msg"]
    assert is_seen("data-at-a-start#damaged", refused["msg"]) is ("end" in said)
    assert "dump.rdb: " in refused["msg"]
    assert made.pid is None
    assert [path.name for path in made.data.iterdir()] == ["dump.rdb"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda m: manifest(m).unlink(), "no appendonly.aof.manifest that lists its parts"),
        (lambda m: next(manifest(m).parent.glob("*.incr.aof")).unlink(), "which is missing"),
        (
            lambda m: next(manifest(m).parent.glob("*.incr.aof")).write_bytes(b"*1\r\nwrong\r\n"),
            "Expected",
        ),
    ],
)
def test_a_damaged_append_only_file_stops_before_the_start(
    made: Host, harm: Harm, said: str
) -> None:
    made.begin(True, save='""')
    made.fill("a", 30)
    made.systemctl_do("stop")
    harm(made)
    refused = made.deploy(True)
    assert refused["failed"]
    assert said in refused["msg"], refused["msg"]
    assert made.pid is None


def test_a_command_that_a_crash_cut_off_is_no_damage(made: Host) -> None:
    made.begin(True, save='""')
    made.fill("a", 30)
    made.kill()
    with next(manifest(made).parent.glob("*.incr.aof")).open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\na:31\r\n$10\r\nhal")
    assert not made.deploy(True).get("failed")
    assert made.keys() == {"a": 30}


def test_what_cannot_be_told_names_files_numbers_and_a_way_out(made: Host) -> None:
    stopped_with(made, appendonly=False)
    (made.directory / "other").mkdir()
    rdb = (made.data / "dump.rdb").read_bytes()
    made.begin(True)
    made("FLUSHALL")
    made("BGREWRITEAOF")
    time.sleep(1.5)
    made.systemctl_do("stop")
    (made.data / "dump.rdb").write_bytes(rdb)
    refused = made.deploy(True)
    assert refused["failed"]
    assert is_seen("data-at-a-start#empty-beside-full", refused["msg"])
    assert "dump.rdb: 30 keys" in refused["msg"]
    assert "appendonlydir: no keys in its base and 0 bytes" in refused["msg"]
    # The way out that it shows leads there.
    shutil.move(made.data / "appendonlydir", made.directory / "away")
    assert not made.deploy(True).get("failed")
    assert made.keys() == {"a": 30}


def test_the_file_alone_cannot_have_the_start_load_other_data(made: Host) -> None:
    """Edited between the configuration and the start."""
    stopped_with(made, appendonly=False)
    made.config.write_text(made.content(True))
    refused = made.service("started")
    assert refused["failed"]
    assert "says appendonly yes, by which the server would not load the newest" in refused["msg"]
    assert made.pid is None


def test_a_configuration_that_is_gone_does_not_hide_the_data(made: Host) -> None:
    stopped_with(made)
    made.config.unlink()
    assert not made.deploy(True).get("failed")
    assert made.keys() == {"a": 30}


@pytest.mark.parametrize(
    "harm",
    [
        lambda m: shutil.rmtree(m.data / "appendonlydir"),
        lambda m: (m.data / "appendonlydir").rename(m.directory / "renamed"),
        lambda m: manifest(m).unlink(),
        lambda m: next(manifest(m).parent.glob("*.base.rdb")).unlink(),
        lambda m: os.truncate(next(manifest(m).parent.glob("*.base.rdb")), 30),
    ],
    ids=["gone", "renamed", "no manifest", "no base", "damaged base"],
)
def test_a_restart_writes_what_the_next_start_needs(made: Host, harm: Harm) -> None:
    made.begin(True)
    made.fill("a", 30)
    harm(made)
    done = made.service("restarted")
    assert not done.get("failed"), done
    assert made.keys() == {"a": 30}


def replaced(made: Host) -> None:
    shutil.copytree(made.data / "appendonlydir", made.directory / "copy")
    shutil.rmtree(made.data / "appendonlydir")
    shutil.move(made.directory / "copy", made.data / "appendonlydir")


def rdb_is_a_directory(made: Host) -> None:
    (made.data / "dump.rdb").mkdir()


def data_renamed(made: Host) -> None:
    made.data.rename(made.directory / "elsewhere")
    made.data.mkdir()


@pytest.mark.parametrize(
    ("harm", "appendonly"),
    [
        (replaced, True),
        (rdb_is_a_directory, True),
        (rdb_is_a_directory, False),
        (data_renamed, True),
        (data_renamed, False),
    ],
)
def test_a_restart_that_would_load_other_data_is_refused(
    made: Host, harm: Harm, appendonly: bool
) -> None:
    made.begin(appendonly)
    made.fill("a", 30)
    harm(made)
    pid = made.pid
    refused = made.service("restarted")
    assert refused["failed"]
    assert "was not restarted" in refused["msg"]
    if harm is replaced:
        said = refused["msg"].replace(str(made.data), "/mnt/redis_data")
        assert is_seen("data-at-a-start#restart-refused", said)
    assert made.pid == pid
    assert made.keys() == {"a": 30}


@pytest.fixture
def mounted_over(made: Host) -> Iterator[None]:
    """Another file system over the data directory of a running server, where root may mount."""
    made.begin(False)
    made.fill("a", 30)
    made("SAVE")
    copy = made.directory / "copy"
    shutil.copytree(made.data, copy)
    bind = ["mount", "--bind", str(copy), str(made.data)]
    if subprocess.run(bind, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    time.sleep(2)
    yield
    subprocess.run(["umount", str(made.data)], check=True)


@pytest.mark.usefixtures("mounted_over")
def test_a_restart_is_refused_where_the_snapshot_lies_under_another_mount(made: Host) -> None:
    made.fill("b", 10)
    pid = made.pid
    refused = made.service("restarted")
    assert refused["failed"]
    assert "dump.rdb is not what it saved" in refused["msg"]
    assert made.pid == pid
    assert made.keys() == {"a": 30, "b": 10}


def test_a_master_with_less_than_half_of_its_keys_is_stopped_at_once(made: Host) -> None:
    """Its files change between the last look and the start."""
    made.begin(False)
    made.fill("a", 100)
    few = made.directory / "few"
    made("SAVE")
    script = made.systemctl.read_text()
    made("EVAL", "for i = 1, 90 do redis.call('DEL', 'a:' .. i) end", "0")
    made("SAVE")
    shutil.copy(made.data / "dump.rdb", few)
    made.fill("a", 100)
    broken = script.replace("restart) stop;", f"restart) stop; cp {few} {made.data}/dump.rdb;")
    made.systemctl.write_text(broken)
    failed = made.service("restarted")
    assert failed["failed"]
    assert "had 100 keys that do not expire and came up with 10" in failed["msg"]
    assert "It was stopped, without a save" in failed["msg"]
    assert made.pid is None


def test_nothing_is_started_on_an_empty_mount_point(made: Host) -> None:
    (made.directory / "unmounted").touch()
    for has_data in (True, False):
        refused = made.configure(True, has_data=has_data, check=True)
        assert refused["failed"]
        said = refused["msg"].replace(str(made.data), "/mnt/redis_data")
        assert is_seen("data-at-a-start#not-mounted", said)


ESCAPE = """shift 2
for path; do echo "$path" | sed 's|/|-|g; s|^-||; s|$|.mount|'; done
"""
SHOW = """shift 2
for unit; do
    case $unit in
    srv-a-redis.mount) echo LoadState=loaded; echo ActiveState=inactive ;;
    srv-a.mount) echo LoadState=loaded; echo ActiveState=active ;;
    *) echo LoadState=not-found; echo ActiveState=inactive ;;
    esac
    echo
done
"""


def test_a_mount_that_is_not_there_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd's answers as they look, for /srv/a mounted and /srv/a/redis not."""
    for name, text in (("systemd-escape", ESCAPE), ("systemctl", SHOW)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert unmounted("/srv/a/redis/data") == "/srv/a/redis"
    assert unmounted("/srv/a") is None
    assert unmounted("/mnt/redis") is None
