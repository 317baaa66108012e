"""Drills of sources of every engine that Debian has, each proven by a server of its own release."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis_backup.sandbox.client import Client
from redis_backup.sandbox.server import SandboxServer

from tests.support import servers
from tests.support.servers import Binary, Server
from tests.tool.backup_lab import SET, Lab, id_now
from tests.tool.test_drill import drilled, failed, repository, store

BINARIES: dict[str, Callable[[], Binary]] = {
    "redis 6.0": lambda: servers.of_release("6.0"),
    "redis 7.0": lambda: servers.of_release("7.0"),
    "redis 8.0": lambda: servers.of_release("8.0"),
    "valkey 8.1": servers.valkey,
    "valkey 9": servers.valkey_9,
}


def program(binary: Binary, path: Path) -> str:
    """One file that starts this server."""
    path.write_text(f'#!/bin/sh\nexec {shlex.join(binary.command)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def fill(server: Server, engine: str) -> None:
    """Some of every type, in both kinds of encodings, expired and not, and what else there is."""
    for count in (3, 700):
        parts = [b"part:%d" % number for number in range(count)]
        server("RPUSH", f"list:{count}", *parts)
        server("SADD", f"set:{count}", *parts)
        server("SADD", f"intset:{count}", *range(count))
        server("ZADD", f"zset:{count}", *(word for part in parts for word in (len(part) / 3, part)))
        server("HSET", f"hash:{count}", *(word for part in parts for word in (part, part)))
        for number in range(count):
            server("XADD", f"stream:{count}", f"{number + 1}-1", "field", number, "other", "x" * 20)
        server("XDEL", f"stream:{count}", "2-1")
        server("XGROUP", "CREATE", f"stream:{count}", "group", "0")
        server("XREADGROUP", "GROUP", "group", "me", "COUNT", 2, "STREAMS", f"stream:{count}", ">")
        if engine != "redis 6.0":
            server("XGROUP", "CREATECONSUMER", f"stream:{count}", "group", "idle")
    server("SELECT", 3)
    server("SET", "long", "x" * 30_000)
    server("SET", "number", 1234)
    server("SET", "later", "x", "PX", 10_000_000)
    for number in range(20):
        server("SET", f"soon:{number}", "x", "PX", 1)
    if engine != "redis 6.0":
        code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
        server("FUNCTION", "LOAD", code)
    if engine == "redis 8.0":
        # Nodes of one and of many, with attributes and without, and less dimensions than given.
        for key, count, options in (
            ("one", 1, ()),
            ("few", 30, ("SETATTR", '{"a":1}')),
            ("many", 700, ("NOQUANT",)),
        ):
            for number in range(count):
                element = ("VALUES", 3, number, 1.5 * number + 1, 2, f"element:{number}")
                server("VADD", f"vectors:{key}", *element, *options)
        for number in range(30):
            element = ("VALUES", 3, number, 1.5 * number + 1, 2, f"element:{number}")
            server("VADD", "vectors:reduced", "REDUCE", 2, *element)
        server("VREM", "vectors:few", "element:3")
    if engine in ("redis 8.0", "valkey 9"):
        server("HSET", "fields", *(word for n in range(200) for word in (f"f{n}", n)))
        server("HPEXPIRE", "fields", 10_000_000, "FIELDS", 2, "f1", "f2")
        server("HPEXPIRE", "fields", 100, "FIELDS", 2, "f3", "f4")


@contextmanager
def source(engine: str) -> Iterator[Server]:
    """A server with data that nobody changes."""
    settings = {} if engine == "redis 6.0" else {"enable-debug-command": "local"}
    with servers.running(BINARIES[engine](), settings=settings) as server:
        # Nothing goes away by itself: what expires is saved, and is expired when it is loaded.
        server("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        fill(server, engine)
        yield server


def stored(made: Lab, server: Server, engine: str, **changes: Any) -> str:
    """A backup of it in the repository; gives its id."""
    server("SAVE")
    backup_id = id_now("redis-1")
    name, _ = engine.split()
    claims = {"engine": name, "server_version": server.binary.version, **changes}
    store(made, server.dump.read_bytes(), backup_id, **claims)
    return backup_id


@pytest.mark.parametrize("engine", BINARIES)
def test_every_engine_is_proven_to_its_values(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests: list[object] = []
    real, load_seconds = SandboxServer.saved_again, SandboxServer.load_seconds
    loads: list[float | None] = []

    def timed(self: SandboxServer) -> float | None:
        loads.append(load_seconds(self))
        return loads[-1]

    monkeypatch.setattr(SandboxServer, "load_seconds", timed)

    def asked(self: SandboxServer, client: Client) -> Any:
        digests.append(client.call("DEBUG", "DIGEST"))
        return real(self, client)

    monkeypatch.setattr(SandboxServer, "saved_again", asked)
    with repository(tmp_path) as made, source(engine) as server:
        stored(made, server, engine)
        binary = program(server.binary, tmp_path / "program")
        report = drilled(made, servers={engine.split()[0]: binary})[1]
        assert (report["verdict"], report["level"]) == ("passed", "values"), report.get("reason")
        assert report["databases"]["backup"] == report["databases"]["restored"]
        # By its own log.
        assert loads != [None]
        assert loads == [report["rto_seconds"]["load"]]
        # The servers agree too, in what their own digest sees.
        assert digests == [server("DEBUG", "DIGEST")]


def test_a_newer_backup_is_refused_before_its_download(tmp_path: Path) -> None:
    with repository(tmp_path) as made, source("redis 8.0") as server:
        backup_id = stored(made, server, "redis 8.0")
        (made.server.store / SET / backup_id / "dump.rdb.zst").unlink()
        old = program(BINARIES["redis 7.0"](), tmp_path / "program")
        reason = failed(made, servers={"redis": old})["reason"]
        assert f"{SET}/{backup_id}/manifest.json: the backup is of redis 8.0" in reason
        assert "on this drill host is redis 7.0" in reason


def test_a_newer_file_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    with repository(tmp_path) as made, source("redis 8.0") as server:
        claims = {"server_version": "7.0.15", "rdb": {"magic": "REDIS", "version": 10}}
        backup_id = stored(made, server, "redis 8.0", **claims)
        old = tmp_path / "program"
        binary = program(BINARIES["redis 7.0"](), tmp_path / "real")
        old.write_text(
            f'#!/bin/sh\n[ "$1" = --version ] && exec {binary} --version\n'
            f'touch {tmp_path}/started; exec {binary} "$@"\n'
        )
        old.chmod(0o755)
        report = failed(made, servers={"redis": str(old)})
        assert (
            f"{SET}/{backup_id}/dump.rdb.zst: the file is REDIS version 12,"
            " the manifest says REDIS version 10" in report["reason"]
        )
        assert report["level"] == "bytes"
        assert not (tmp_path / "started").exists()
