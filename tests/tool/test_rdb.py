"""The RDB walker on files of every type and encoding, and on real servers' data."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from redis_backup.base.errors import ToolError
from redis_backup.rdb import crc64, walker
from redis_backup.rdb import cursor as rdb_cursor
from redis_backup.rdb import values as rdb_values
from redis_backup.rdb.versions import VALKEY

from tests.support.rdb_builder import Rdb, length, listpack, string
from tests.support.readback import served, walked
from tests.support.servers import Binary, any_server, of_release, running

FIXTURES = Path(__file__).parents[1] / "fixtures/rdb"
FILES = sorted(FIXTURES.glob("*/*.rdb"))
TOOL = Path(walker.__file__).parents[2]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _known(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return known


def _databases(info: walker.RdbInfo) -> Any:
    return info.to_json()["databases"]


@pytest.fixture(scope="module")
def server_70() -> Binary:
    return of_release("7.0")


def test_there_are_fixtures_of_every_writer() -> None:
    writers = {path.parent.name for path in FILES}
    assert writers == {
        *(f"redis-{release}" for release in ("6.0", "7.0", "8.0", "8.6")),
        "valkey-9",
        "handmade",
    }


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_counts_are_those_of_info_keyspace(path: Path) -> None:
    info = walker.inspect(path)
    known = _known(path)
    assert _databases(info) == known["databases"]
    assert info.functions == known["functions"]
    assert info.size == path.stat().st_size
    if path.parent.name != "handmade":
        engine, release = path.parent.name.split("-")
        assert info.aux[f"{engine}-ver"].startswith(release + ".")
        assert info.rdb_version == {"6.0": 9, "7.0": 10, "8.0": 12, "8.6": 13, "9": VALKEY}[release]
        assert abs(int(info.aux["ctime"])) > 1_500_000_000


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_values_are_those_that_the_server_answered(path: Path) -> None:
    expected = _known(path)["keys"]
    found = walked(path)
    if path.stem == "expired":
        assert not expected, "keys past their expiry cannot be read"
        assert len(found["0"]) == 7
        return
    if path.parent.name == "redis-6.0":
        for keys in found.values():
            for key in keys.values():
                assert key["expire"] in (None, 4_102_444_800_000, 4_102_444_800_001)
                key["expire"] = None
    assert found == expected


def test_every_type_is_in_a_fixture() -> None:
    """By the type's byte before each key: found by walking with readers that say their type."""
    seen: dict[str, set[int]] = {}
    for path in FILES:
        for kind in _types(path):
            seen.setdefault(path.parent.name, set()).add(kind)
    # No Debian has a server that writes 27 and 28 (Redis 8.8): tests/tool/test_rdb_versions.py.
    every = set(range(29)) - {6, 8}
    assert set(rdb_values.types(14)) == every
    assert set(rdb_values.types(VALKEY)) == set(range(23)) - {6, 8}
    ours = seen.pop("valkey-9")
    assert set().union(*seen.values()) == every - {27, 28}
    assert ours == {0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 22}
    assert seen["redis-6.0"] == {0, 2, 4, 5, 11, 12, 13, 14, 15}
    assert seen["redis-7.0"] == {0, 2, 4, 5, 11, 16, 17, 18, 19}
    assert seen["redis-8.0"] == {0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 24, 25}
    assert seen["redis-8.6"] == {0, 2, 4, 5, 11, 16, 17, 18, 20, 24, 25, 26}


def _types(path: Path) -> Iterator[int]:
    data = io.BytesIO(path.read_bytes())
    walk = walker._Walker(rdb_cursor.Cursor(data.read, None, None), True)
    taken: list[int] = []

    class Readers(list[Any]):
        def __getitem__(self, kind: Any) -> Any:
            read = super().__getitem__(kind)
            if read is not None:
                taken.append(kind)
            return read

    walk._readers = Readers([None] * 256)
    for _ in walk.entries():
        pass
    return iter(taken)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 61, 1000])
def test_windows_of_any_size_read_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {path: (walker.inspect(path), list(walker.entries(path))) for path in FILES}
    monkeypatch.setattr(rdb_cursor, "_CHUNK", chunk)
    for path in FILES:
        if path.stat().st_size > 2000 and chunk < 61:
            continue
        assert (walker.inspect(path), list(walker.entries(path))) == whole[path]


def test_a_stream_of_unknown_size_reads_the_same() -> None:
    class Trickle(io.RawIOBase):
        """A pipe: gives less than it is asked for."""

        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def read(self, size: int = -1) -> bytes:
            return self._data.read(min(size, 100))

    for path in FILES:
        expected = walker.inspect(path)
        for size in (None, expected.size):
            assert (
                walker.inspect_stream(cast(BinaryIO, Trickle(path.read_bytes())), size) == expected
            )


def test_a_stream_of_another_size_than_promised_is_refused() -> None:
    data = (FIXTURES / "redis-7.0/tiny.rdb").read_bytes()
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(walker.RdbError):
            walker.inspect_stream(io.BytesIO(data), size)


def test_progress_ends_with_all_of_it() -> None:
    path = FIXTURES / "redis-7.0/plain-strings.rdb"
    calls: list[tuple[int, int]] = []
    walker.inspect(path, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (path.stat().st_size,) * 2


@pytest.mark.parametrize("name", ["old", "many"])
def test_a_real_server_reads_handmade_files_as_the_walker_does(
    name: str, server_70: Binary
) -> None:
    path = FIXTURES / f"handmade/{name}.rdb"
    with running(server_70, path, frozen=True) as server:
        assert server.keyspace() == _databases(walker.inspect(path))
        assert served(server) == walked(path)


def test_a_listpack_with_more_elements_than_its_header_counts(
    server_70: Binary, tmp_path: Path
) -> None:
    elements: list[bytes | int] = [
        number // 2 if number % 2 else number for number in range(80_000)
    ]
    path = tmp_path / "many.rdb"
    path.write_bytes(Rdb(10).db(0, 1).key(16, b"hash", string(listpack(elements))).end())
    assert _databases(walker.inspect(path)) == {"0": {"keys": 1, "expires": 0}}
    with running(server_70, path, frozen=True) as server:
        assert server("HLEN", "hash") == 40_000
        assert served(server) == walked(path)


def test_elements_around_every_change_of_their_encoding(server_70: Binary, tmp_path: Path) -> None:
    """Where the length of a listpack's element takes a byte more, in the data of a real server."""
    settings: dict[str, str | int] = {"list-max-listpack-size": -5, "rdbcompression": "no"}
    with running(server_70, settings=settings) as server:
        for edge in (63, 64, 125, 126, 4095, 4096, 16377, 16378, 16379, 16383):
            for size in (edge - 1, edge, edge + 1):
                server("RPUSH", f"list {size}", b"x" * size, b"after")
        server("SAVE")
        path = tmp_path / "edges.rdb"
        server.dump.rename(path)
        assert _databases(walker.inspect(path)) == server.keyspace()
        assert served(server) == walked(path)


def test_idle_times_and_frequencies_of_any_length(tmp_path: Path) -> None:
    idle = (5, 63, 64, 500, 16383, 16384, 100_000, 1 << 32, 1 << 40)
    made = Rdb(10).db(0, 2 * len(idle), len(idle))
    for seconds in idle:
        made.opcode(248, length(seconds)).key(0, b"idle %d" % seconds, string(b"v"))
        made.opcode(252, bytes(8)).opcode(249, b"\xff").key(0, b"freq %d" % seconds, string(b"v"))
    path = tmp_path / "idle.rdb"
    path.write_bytes(made.end())
    counts = walker.DbCounts(keys=2 * len(idle), expires=len(idle))
    assert walker.inspect(path).databases == {0: counts}
    assert len(list(walker.entries(path))) == counts.keys


# -- refusals by name


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty"]),
        (b"REDIS00", ["cut short"]),
        (b"REDIS0008" + b"\xff" * 20, ["RDB version 8", "older than 5.0", "9 to 14"]),
        (b"REDIS0015" + b"\xff" * 20, ["RDB version 15", "by Redis 8.10", "9 to 14"]),
        (b"REDIS0080" + b"\xff" * 20, ["RDB version 80", "newer than 8.8"]),
        (b"VALKEY014" + b"\xff" * 20, ["VALKEY014", "of Valkey"]),
        (b"VALKEY081" + b"\xff" * 20, ["VALKEY081", "RDB version 81", "newer than 9.1"]),
        (b"\x28\xb5\x2f\xfd" + b"x" * 20, ["zstd"]),
        (b"$EOF:" + b"0" * 40, ["replication stream"]),
        (b"redis0010" + b"\xff" * 20, ["redis0010", "begins with REDIS"]),
        (b"REDIS 010" + b"\xff" * 20, ["begins with REDIS"]),
        (b"\0" * 100, ["begins with REDIS"]),
    ],
)
def test_what_is_not_read_is_named(data: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(walker.RdbError) as caught:
        walker.inspect(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("what", ["missing", "directory", "pipe", "device", "nul"])
def test_what_is_no_file_is_an_error_too(what: str, tmp_path: Path) -> None:
    path: str | Path = tmp_path / "x"
    if what == "directory":
        path = tmp_path
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path = "/dev/zero"
    elif what == "nul":
        path = "a\0b"
    with pytest.raises(ToolError, match=r"not a regular file|cannot be opened"):
        walker.inspect(path)


def test_the_command_needs_the_standard_library_only(tmp_path: Path) -> None:
    """-S leaves site-packages out, -E and -s the user's own."""
    environment = {"PYTHONPATH": str(TOOL), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-s", "-m", "redis_backup", "inspect", "--json"]
    path = FIXTURES / "redis-8.0/expiries.rdb"
    done = subprocess.run(
        [*command, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    shown = json.loads(done.stdout)
    assert shown["databases"] == _known(path)["databases"]
    assert shown["rdb_version"] == 12
    assert shown["size"] == path.stat().st_size
    assert shown["aux"]["redis-ver"].startswith("8.0")
    bad = tmp_path / "bad.rdb"
    bad.write_bytes(path.read_bytes() + b"x")
    for broken in (bad, tmp_path, tmp_path / "none"):
        done = subprocess.run(
            [*command, str(broken)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert str(broken) in done.stderr
        assert "Traceback" not in done.stderr


# -- real servers


def _fill(server: Any, seed: int) -> None:
    """Random keys of all types in three databases, a third of which have expired."""
    random_ = random.Random(seed)

    def word() -> str:
        kind = random_.randrange(4)
        if kind == 0:
            return str(random_.randrange(-(10**9), 10**9))
        return random_.choice("abcxyz") * random_.choice((1, 5, 30, 70, 300, 5000)[: kind * 2])

    server("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    commands: list[tuple[str | int | float, ...]] = []
    expiries: list[tuple[str | int | float, ...]] = []
    for db in (0, 1, 9):
        commands.append(("SELECT", db))
        expiries.append(("SELECT", db))
        for index in range(400):
            key = f"{random_.choice(('', 'a' * 100))}{index}"
            words = {word() for _ in range(random_.choice((1, 3, 20, 150)))}
            commands.append(
                random_.choice(
                    (
                        ("SET", key, word()),
                        ("RPUSH", key, *words),
                        ("SADD", key, *words),
                        ("SADD", key, *range(random_.randrange(1, 600))),
                        ("ZADD", key, *(x for w in words for x in (random_.random(), w))),
                        ("HSET", key, *(x for w in words for x in (w, word()))),
                        ("XADD", key, "*", *(x for w in words for x in (w, word()))),
                    )
                )
            )
            expiry = random_.choice((None, "soon", "later"))
            if expiry:
                expiries.append(("PEXPIREAT", key, expiry))
    server.client.pipeline(commands)
    now = int(time.time() * 1000)
    times = {"soon": now + 3000, "later": now + 10**9}
    server.client.pipeline(
        (*words[:-1], times.get(str(words[-1]), words[-1])) for words in expiries
    )
    time.sleep(max(0.0, times["soon"] / 1000 + 0.01 - time.time()))


@pytest.mark.parametrize("compression", ["yes", "no"])
def test_counts_of_random_data_are_the_servers_own(compression: str, tmp_path: Path) -> None:
    binary = any_server()
    settings = {"rdbcompression": compression, "enable-debug-command": "local"}
    if binary.release.startswith("6"):
        del settings["enable-debug-command"]
    with running(binary, settings=settings) as server:
        _fill(server, seed=len(compression))
        server("SAVE")
        keyspace = server.keyspace()
        path = tmp_path / "random.rdb"
        server.dump.rename(path)
    assert sum(db["keys"] for db in keyspace.values()) == 1200
    info = walker.inspect(path)
    assert _databases(info) == keyspace
    assert sum(1 for _ in walker.entries(path)) == 1200
    now = time.time() * 1000
    gone = [entry for entry in walker.entries(path) if entry.expire and entry.expire < now]
    assert len(gone) > 200, "the data has keys past their expiry"
    with running(binary, path, frozen=True) as frozen:
        assert frozen.keyspace() == keyspace


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A value of 64 MiB and a hundred thousand keys: the peak stays below 20 MiB."""
    path = tmp_path / "big.rdb"
    body = Rdb(10).db(0, 100_001).body()
    keys = b"".join(
        b"\0" + string(b"key %d" % index) + string(b"v" * 50) for index in range(100_000)
    )
    big = b"\0" + string(b"big") + b"\x80" + (1 << 26).to_bytes(4, "big")
    crc = 0
    with path.open("wb") as out:
        for part in (body, keys, big, *[b"\0" * (1 << 20)] * 64, b"\xff"):
            crc = crc64.update(part, crc)
            out.write(part)
        out.write(crc.to_bytes(8, "little"))
    program = (
        "import resource, sys\n"
        "from redis_backup.rdb import walker\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "info = walker.inspect(sys.argv[1])\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(info.databases[0].keys, after - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "PYTHONPATH": str(TOOL)},
        capture_output=True,
        text=True,
        check=True,
    )
    keys_seen, kibibytes = map(int, done.stdout.split())
    assert keys_seen == 100_001
    assert kibibytes < 20_000
