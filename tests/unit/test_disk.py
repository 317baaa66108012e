"""What a data directory is said to hold, against directories that a real server wrote."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.proven.redis.plugins.module_utils.redis_disk import (
    DataFiles,
    data_files,
    rdb_head,
    start_appendonly,
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
    assert data_files(str(directory), NAMES) == DataFiles(False, False, False, False, None)


def test_an_empty_server_leaves_files_without_keys(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "60 1")
    server.run("SAVE")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert (found.rdb, found.aof) == (True, True)
    assert not found.has_keys


def test_keys_in_the_rdb_are_seen_and_its_offset(directory: Path) -> None:
    server = Server(directory, "--save", "60 1")
    server.run("SET", "a", "1")
    # Only a server that replicates, or has replicas, writes its offset.
    server.run("REPLICAOF", "127.0.0.1", "1")
    server.run("SAVE")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert found.rdb_keys
    assert found.has_keys
    assert not found.aof
    assert found.rdb_offset is not None


def test_a_function_alone_is_data(directory: Path) -> None:
    server = Server(directory, "--save", "60 1")
    server.run("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() end)")
    server.run("SAVE")
    server.stop()
    assert data_files(str(directory), NAMES).rdb_keys


def test_keys_in_the_append_only_file_are_seen(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.run("SET", "a", "1")
    server.stop()
    found = data_files(str(directory), NAMES)
    assert found.aof_keys
    assert not found.rdb_keys


def test_a_manifest_whose_file_is_gone_counts_as_data(directory: Path) -> None:
    server = Server(directory, "--appendonly", "yes", "--save", "")
    server.stop()
    for file in (directory / "appendonlydir").glob("*.incr.aof"):
        file.unlink()
    assert data_files(str(directory), NAMES).aof_keys


@pytest.mark.parametrize("content", [b"", b"REDIS0010\xfa", b"REDIS0010\xfa\x03abc", b"nonsense"])
def test_a_file_that_is_not_understood_counts_as_data(directory: Path, content: bytes) -> None:
    path = directory / "dump.rdb"
    path.write_bytes(content)
    assert rdb_head(str(path)).has_data


def files(*, rdb: bool = False, aof: bool = False) -> DataFiles:
    return DataFiles(rdb=rdb, aof=aof, rdb_keys=rdb, aof_keys=aof, rdb_offset=None)


@pytest.mark.parametrize(
    ("wanted", "was", "found", "expected"),
    [
        pytest.param(True, False, files(rdb=True), False, id="turned on by file: load the RDB"),
        pytest.param(True, True, files(rdb=True), False, id="AOF vanished: load the RDB"),
        pytest.param(True, True, files(rdb=True, aof=True), True, id="AOF is newer than the RDB"),
        pytest.param(False, True, files(rdb=True, aof=True), True, id="turned off: load the AOF"),
        pytest.param(False, False, files(rdb=True, aof=True), False, id="old AOF left behind"),
        pytest.param(False, False, files(aof=True), True, id="only an AOF has the data"),
        pytest.param(True, False, files(), True, id="nothing to lose"),
        pytest.param(False, True, files(), False, id="nothing to lose either"),
    ],
)
def test_a_server_starts_the_way_its_data_lies(
    wanted: bool, was: bool, found: DataFiles, expected: bool
) -> None:
    assert start_appendonly(wanted, was, found) is expected
