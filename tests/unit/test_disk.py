"""What a data directory is said to hold, against directories that a real server wrote."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    DataFiles,
    Keys,
    data_files,
    rdb_head,
)

from tests.support.resp import Client

NAMES = {
    "dbfilename": "dump.rdb",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
}


class Server:
    """A real server on a unix socket that writes into ``directory``."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.socket = directory / "s"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--dir",
             str(directory), "--logfile", str(directory / "log"), *options]
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not self.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def run(self, *words: str) -> None:
        client = Client(self.socket)
        client.command(*words)
        client.close()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")  # short: the path of a unix socket has 107 characters


def test_an_empty_directory_holds_nothing(directory: Path) -> None:
    assert data_files(str(directory), NAMES) == DataFiles()


def test_an_empty_server_leaves_files_without_keys(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "60", "1")
    server.run("SAVE")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert (found.rdb.there, found.aof.there) == (True, True)
    assert not found.has_keys


def test_keys_in_the_rdb_are_seen_and_its_offset(directory: Path) -> None:
    server = Server(directory, "--save", "60", "1")
    server.run("SET", "a", "1")
    # Only a server that replicates, or has replicas, writes its offset.
    server.run("REPLICAOF", "127.0.0.1", "1")
    server.run("SAVE")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert found.rdb.keys == Keys(database=0, keys=1, expires=0)
    assert found.has_keys
    assert not found.aof.there
    assert found.rdb.offset is not None


def test_a_function_alone_is_data(directory: Path) -> None:
    server = Server(directory, "--save", "60", "1")
    server.run("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)")
    server.run("SAVE")
    server.stop()
    assert data_files(str(directory), NAMES).rdb.has_data


def test_keys_in_the_append_only_file_are_seen(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.run("SET", "a", "1")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert found.aof.has_data
    assert not found.rdb.has_data


def test_a_manifest_whose_file_is_gone_counts_as_data(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.stop()
    for file in (directory / "appendonlydir").glob("*.incr.aof"):
        file.unlink()
    found = data_files(str(directory), NAMES).aof
    assert found.has_data
    assert "appendonly.aof.1.incr.aof, which is missing" in found.damage


@pytest.mark.parametrize("content", [b"", b"REDIS0010\xfa", b"REDIS0010\xfa\x03abc", b"nonsense"])
def test_a_file_that_is_not_understood_counts_as_data(directory: Path, content: bytes) -> None:
    path = directory / "dump.rdb"
    path.write_bytes(content)
    assert rdb_head(str(path)).has_data


def test_an_append_only_file_that_was_never_written_is_not_one_that_was_emptied(
    directory: Path,
) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    deadline = time.monotonic() + 30
    while not data_files(str(directory), NAMES).aof.blank:  # it is just being made
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.run("SET", "a", "1")
    server.run("FLUSHALL")
    assert data_files(str(directory), NAMES).aof.has_data
    server.run("BGREWRITEAOF")
    deadline = time.monotonic() + 30
    while (found := data_files(str(directory), NAMES).aof).has_data:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.stop()
    assert not found.blank


def test_a_list_of_parts_that_is_gone_is_damage(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.run("SET", "a", "1")
    server.stop()
    (directory / "appendonlydir" / "appendonly.aof.manifest").unlink()
    found = data_files(str(directory), NAMES).aof
    assert found.has_data
    assert "no appendonly.aof.manifest" in found.damage


def test_each_release_reads_its_own_layout(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.run("SET", "a", "1")
    server.stop()
    (directory / "appendonly.aof").write_bytes(b"*1\r\n$4\r\nPING\r\n" * 3)
    old, new = (data_files(str(directory), NAMES, release) for release in ((6, 0), (7, 0)))
    assert old.aof == new.other
    assert old.other == new.aof
    assert old.aof.bytes == 42
    # Without a manifest, the file of 6.x is what 7.0 begins with.
    (directory / "appendonlydir" / "appendonly.aof.manifest").unlink()
    assert data_files(str(directory), NAMES).aof == old.aof


@pytest.mark.parametrize("name", ["dump.rdb", "appendonlydir", "appendonly.aof"])
def test_a_link_to_a_disk_that_is_away_counts_as_data(directory: Path, name: str) -> None:
    (directory / name).symlink_to("/nowhere/at/all")
    found = data_files(str(directory), NAMES)
    assert found.has_keys
    assert "is not a" in found.rdb.damage + found.aof.damage


@pytest.mark.parametrize("cut", [1, 9, 20])
def test_an_rdb_without_its_end_is_damaged(directory: Path, cut: int) -> None:
    server = Server(directory, "--save", "60", "1")
    server.run("SET", "a", "1")
    server.run("SAVE")
    server.stop()
    path = directory / "dump.rdb"
    assert not data_files(str(directory), NAMES).rdb.damage
    path.write_bytes(path.read_bytes()[:-cut])
    found = data_files(str(directory), NAMES).rdb
    assert found.has_data
    assert found.damage == "its end is missing"


def test_files_that_come_and_go_while_a_server_runs_are_no_error(directory: Path) -> None:
    """It writes a new append-only file all along, and removes the parts of the former."""
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.run("SET", "a", "1")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with suppress(redis.ResponseError):  # one is under way
            server.run("BGREWRITEAOF")
        for _ in range(20):
            assert data_files(str(directory), NAMES).aof.has_data
    server.stop()
