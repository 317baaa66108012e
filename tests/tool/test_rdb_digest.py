"""The digest of values: equal for the same data however it is written, another for any other."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis_backup.base.errors import ToolError
from redis_backup.digest import digester
from redis_backup.digest import records as rdb_digest
from redis_backup.digest.digester import on_all_cores
from redis_backup.rdb import crc64, walker
from redis_backup.rdb import cursor as rdb_cursor
from redis_backup.rdb.packed import PackedError

from tests.support import rdb_builder as build
from tests.support import servers
from tests.support.rdb_builder import Rdb
from tests.tool.backup_lab import PACKAGE, free_port, run

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures" / "rdb").glob("*/*.rdb"))
READABLE: dict[str, Callable[[], servers.Binary]] = {
    "redis-6.0": lambda: servers.of_release("6.0"),
    "redis-7.0": lambda: servers.of_release("7.0"),
    "redis-8.0": lambda: servers.of_release("8.0"),
    "valkey-9": servers.valkey_9,
}


def digest(data: bytes) -> str:
    """The digest of an RDB in memory."""
    found = walker.inspect_stream(io.BytesIO(data), len(data), digester=on_all_cores()).digest
    assert found is not None
    assert rdb_digest.PATTERN.fullmatch(found)
    return found


def one(kind: int, *value: bytes, version: int = 12, name: bytes = b"key") -> bytes:
    """An RDB of one key."""
    return Rdb(version).db(0, 1).key(kind, name, *value).end()


def strings(*values: bytes) -> bytes:
    """A number and so many strings, uncompressed."""
    return build.length(len(values)) + b"".join(map(build.string, values))


LONG = b"a" * 300
ELEMENTS = [b"one", b"2", b"-300", b"70000", LONG]
PACKED: list[bytes | int] = [b"one", 2, -300, 70000, LONG]
PAIRS = list(zip(ELEMENTS, reversed(ELEMENTS), strict=True))
FLAT = [part for pair in PAIRS for part in pair]
SCORES = [1.5, 2.0, -300.0, 1e300, float("inf")]
SCORE_TEXTS: list[bytes | int] = [b"1.5", 2, -300, b"1e+300", b"inf"]
RANKED = [part for pair in zip(PACKED, SCORE_TEXTS, strict=True) for part in pair]
PLAIN_LIST = build.length(1) + build.string(LONG)
PACKED_LIST = build.length(2) + build.string(build.listpack(PACKED[:4]))
TEXT_SCORES = [b"\x031.5", b"\x012", b"\x04-300", b"\x061e+300", b"\xfe"]

SAME = {
    "an integer": [
        one(0, build.integer(7)),
        one(0, build.string(b"7")),
        one(0, b"\xc1\x07\x00"),
        one(0, b"\xc2\x07\x00\x00\x00"),
        one(0, b"\x40\x017"),
        one(0, b"\x80\x00\x00\x00\x017"),
    ],
    "a long string": [
        one(0, build.string(LONG)),
        one(0, build.compressed(LONG)),
        one(0, b"\x80\x00\x00\x01\x2c", LONG),
        one(0, b"\x81\x00\x00\x00\x00\x00\x00\x01\x2c", LONG),
    ],
    "a key that is a number": [
        one(0, build.string(b"x"), name=b"1234"),
        Rdb(9).db(0, 1).opcode(0, build.integer(1234), build.string(b"x")).end(),
        Rdb(9).db(0, 1).opcode(0, b"\xc2\xd2\x04\x00\x00", build.string(b"x")).end(),
    ],
    "how often and when it was used": [
        one(0, build.string(b"value")),
        Rdb(9).db(0, 1).opcode(build.FREQ, b"\x07").key(0, b"key", build.string(b"value")).end(),
        Rdb(9).db(0, 1).opcode(build.IDLE, b"\x07").key(0, b"key", build.string(b"value")).end(),
        Rdb(9)
        .db(0, 1)
        .opcode(build.IDLE, build.length(1 << 20))
        .key(0, b"key", build.string(b"value"))
        .end(),
        Rdb(9).aux(b"some", b"thing").db(0, 1).key(0, b"key", build.string(b"value")).end(),
    ],
    "seconds and milliseconds": [
        Rdb(9)
        .db(0, 1, 1)
        .opcode(build.EXPIRETIME, struct.pack("<i", 2_000_000_000))
        .key(0, b"key", build.string(b"value"))
        .end(),
        Rdb(9)
        .db(0, 1, 1)
        .opcode(build.EXPIRETIME_MS, struct.pack("<q", 2_000_000_000_000))
        .key(0, b"key", build.string(b"value"))
        .end(),
        Rdb(9)
        .db(0, 1, 1)
        .opcode(build.EXPIRETIME_MS, struct.pack("<q", 2_000_000_000_000))
        .opcode(build.FREQ, b"\x07")
        .key(0, b"key", build.string(b"value"))
        .end(),
    ],
    "a list": [
        one(1, strings(*ELEMENTS)),
        one(10, build.string(build.ziplist(PACKED))),
        one(14, build.length(1), build.string(build.ziplist(PACKED))),
        one(
            14,
            build.length(2),
            build.string(build.ziplist(PACKED[:2])),
            build.compressed(build.ziplist(PACKED[2:])),
        ),
        one(18, build.length(2), PACKED_LIST, PLAIN_LIST),
    ],
    "a set": [
        one(2, strings(*ELEMENTS)),
        one(2, strings(*reversed(ELEMENTS))),
        one(20, build.string(build.listpack(PACKED))),
        one(20, build.compressed(build.listpack(PACKED))),
    ],
    "a set of integers": [
        one(2, strings(b"3", b"-1", b"2")),
        one(11, build.string(build.intset([-1, 2, 3]))),
        one(11, build.string(build.intset([-1, 2, 3], 8))),
    ],
    "a sorted set": [
        one(
            5,
            build.length(5),
            *(
                build.string(m) + struct.pack("<d", s)
                for m, s in zip(ELEMENTS, SCORES, strict=True)
            ),
        ),
        one(
            3,
            build.length(5),
            *(build.string(m) + s for m, s in zip(ELEMENTS, TEXT_SCORES, strict=True)),
        ),
        one(12, build.string(build.ziplist(RANKED))),
        one(17, build.string(build.listpack(RANKED))),
        one(17, build.string(build.listpack(RANKED[4:] + RANKED[:4]))),
    ],
    "a score of zero": [
        one(5, build.length(1), build.string(b"m"), struct.pack("<d", 0.0)),
        one(5, build.length(1), build.string(b"m"), struct.pack("<d", -0.0)),
    ],
    "a hash": [
        one(4, build.length(5), *map(build.string, FLAT)),
        one(4, build.length(5), *map(build.string, FLAT[2:] + FLAT[:2])),
        one(9, build.string(build.zipmap(PAIRS))),
        one(13, build.string(build.ziplist(FLAT))),
        one(16, build.string(build.listpack(FLAT))),
        one(
            24,
            b"\0" * 8,
            build.length(5),
            *(b"\0" + build.string(f) + build.string(v) for f, v in PAIRS),
        ),
        one(25, b"\0" * 8, build.string(build.listpack([p for f, v in PAIRS for p in (f, v, 0)]))),
    ],
    "fields that expire": [
        one(
            24,
            struct.pack("<Q", 5000),
            build.length(2),
            build.length(1) + build.string(b"a") + build.string(b"1"),
            build.length(0) + build.string(b"b") + build.string(b"2"),
        ),
        one(25, struct.pack("<Q", 5000), build.string(build.listpack([b"a", 1, 5000, b"b", 2, 0]))),
    ],
}


@pytest.mark.parametrize("what", SAME)
def test_the_same_in_every_encoding(what: str) -> None:
    assert len({digest(data) for data in SAME[what]}) == 1


def test_what_differs_differs() -> None:
    found = [digest(data[0]) for data in SAME.values()]
    assert len(set(found)) == len(SAME)
    # Boundaries between strings count, and how many there are.
    pairs = [
        (one(1, strings(b"ab", b"c")), one(1, strings(b"a", b"bc"))),
        (one(2, strings(b"ab")), one(1, strings(b"ab"))),
        (one(0, build.string(b"7")), one(0, build.string(b"07"))),
        (one(0, build.string(b"-0")), one(0, build.string(b"0"))),
        (one(0, build.string(b"2147483648")), one(0, build.string(b"-2147483648"))),
        (one(0, build.string(b"")), one(0, build.string(b"\0"))),
        (
            one(2, strings(b"a", b"b")),
            one(
                4, strings(b"a", b"b")[:0], build.length(1), build.string(b"a"), build.string(b"b")
            ),
        ),
    ]
    for first, second in pairs:
        assert digest(first) != digest(second)


def entries(number: int, seed: int) -> Rdb:
    """Two databases of strings and sets, of so many keys each, in a random order."""
    order = random.Random(seed)
    made = Rdb(10)
    for db in (0, 3):
        keys = list(range(number))
        order.shuffle(keys)
        made.db(db, 2 * number)
        for key in keys:
            members = [b"%d:%d" % (key, item) for item in range(key % 7 + 1)]
            order.shuffle(members)
            made.key(0, b"string:%d:%d" % (db, key), build.string(b"%d" % key * (key % 50)))
            made.key(2, b"set:%d" % key, strings(*members))
    return made


def test_order_does_not_count() -> None:
    assert digest(entries(300, 1).end()) == digest(entries(300, 2).end())


def test_databases_count() -> None:
    value = build.string(b"value")
    first = Rdb(9).db(0, 1).key(0, b"a", value).db(1, 1).key(0, b"b", value).end()
    second = Rdb(9).db(0, 1).key(0, b"b", value).db(1, 1).key(0, b"a", value).end()
    assert digest(first) != digest(second)


def test_equal_records_do_not_cancel_out() -> None:
    """As they would in a sum modulo two, where a key and its double in the same place are none."""
    hashed = rdb_digest.total([b"record"])
    assert rdb_digest.total([b"record"] * 2) == 2 * hashed % (2**512 - 1) != 0
    assert rdb_digest.total([b"record"] * 4097) == 4097 * hashed % (2**512 - 1)
    assert rdb_digest.total([]) == 0


def large() -> bytes:
    """Values that are larger than every window and portion of the tests."""
    made = Rdb(11).db(0, 6, 1).key(0, b"a", build.string(b"value"))
    made.opcode(build.EXPIRETIME_MS, struct.pack("<q", 2_000_000_000_000))
    made.key(0, b"long", build.string(random.Random(1).randbytes(100_000)))
    made.key(2, b"set", strings(*(b"member:%d" % number for number in range(9000))))
    made.key(1, b"list", strings(*(b"element:%d" % number for number in range(9000))))
    made.key(0, b"packed", build.compressed(b"z" * 5000))
    return made.key(0, b"last", build.string(b"value")).end()


ALL: dict[str, Callable[[], bytes]] = {
    "large": large,
    "many": lambda: entries(500, 3).end(),
    **{f"{path.parent.name}/{path.name}": path.read_bytes for path in FIXTURES},
}


def test_a_walk_with_a_digest_finds_the_same() -> None:
    for name, make in ALL.items():
        data = make()
        plain = walker.inspect_stream(io.BytesIO(data), len(data)).to_json()
        found = walker.inspect_stream(io.BytesIO(data), digester=on_all_cores()).to_json()
        assert found.pop("digest") == digest(data), name
        assert found == plain, name


def test_windows_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records go past the ends of windows, and what is larger than one is read piece by piece."""
    whole = {name: digest(make()) for name, make in ALL.items()}
    monkeypatch.setattr(rdb_cursor, "_CHUNK", 64)
    monkeypatch.setattr(rdb_cursor, "_PINNED", 40_000)
    monkeypatch.setattr(rdb_digest, "_PIECE", 100)
    monkeypatch.setattr(rdb_digest, "_BATCH", 3)
    monkeypatch.setattr(rdb_digest, "_HELD", 100)
    for name, make in ALL.items():
        assert digest(make()) == whole[name], name


def test_workers_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    data = entries(3000, 3).end()
    whole = digest(data)
    monkeypatch.setattr(digester, "other_cores", lambda: 3)
    monkeypatch.setattr(digester, "_WORKERS_FROM", 0)
    monkeypatch.setattr(walker, "_BLOCK", 4096)
    assert digest(data) == whole


def test_workers_run_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be /tmp, and the worker root's."""
    package = tmp_path / "redis_backup"
    package.mkdir()
    (package / "__init__.py").write_text("import os; os._exit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(digester, "other_cores", lambda: 1)
    monkeypatch.setattr(digester, "_WORKERS_FROM", 0)
    digest(entries(500, 1).end())


def test_a_worker_that_ends_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digester, "other_cores", lambda: 1)
    monkeypatch.setattr(digester, "_WORKERS_FROM", 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ToolError, match="a process that computes the digest ended"):
        digest(entries(500, 1).end())


def test_inspect_prints_it_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(entries(5, 1).end())
    wanted = digest(path.read_bytes())
    assert run("inspect", "--digest", path).out.splitlines().count(f"digest:{wanted}") == 1
    assert run("inspect", "--digest", "--json", path).json["digest"] == wanted
    assert "digest" not in run("inspect", path).out


RELOADED = [path for path in FIXTURES if path.parent.name in READABLE]
# Everything in its other encoding: what was packed is not, and nothing is compressed.
OTHER_ENCODINGS: dict[str, str | int] = {
    "rdbcompression": "no",
    "hash-max-ziplist-entries": 1,
    "zset-max-ziplist-entries": 1,
    "set-max-intset-entries": 1,
    "list-max-ziplist-size": 1,
    "stream-node-max-entries": 1,
}


@pytest.mark.parametrize("path", RELOADED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_server_that_loads_and_saves_keeps_it(path: Path) -> None:
    binary = READABLE[path.parent.name]()
    settings = dict(OTHER_ENCODINGS)
    if path.stem == "slots":
        # Its bus would be port 10000 of every interface.
        settings = {"cluster-enabled": "yes", "cluster-port": free_port(), "bind": "127.0.0.1"}
    with servers.running(
        binary, path, settings, frozen="cluster-enabled" not in settings
    ) as server:
        server("SAVE")
        assert digest(server.dump.read_bytes()) == digest(path.read_bytes())


VECTORS: list[tuple[int, int | bytes]] = [
    *((2, number) for number in (3, 2, 0x1001, 2)),
    *((5, b"element one"), (5, b"{}"), (5, b"vector one"), (2, 2), (2, 11), (2, 12)),
    *((5, b"element two"), (5, b""), (5, b"vector two"), (2, 1), (2, 21)),
]


def test_a_vector_set_is_its_nodes_in_any_order() -> None:
    def gathered(fields: list[tuple[int, int | bytes]]) -> bytes:
        return bytes(rdb_digest.gather("vectorset", None, iter(fields)))

    whole = gathered(VECTORS)
    assert gathered(VECTORS[:4] + VECTORS[10:] + VECTORS[4:10]) == whole
    others = [VECTORS[:number] for number in range(len(VECTORS))]
    for number, (code, value) in enumerate(VECTORS):
        other = value + 1 if isinstance(value, int) else value + b"!"
        others.append([*VECTORS[:number], (code, other), *VECTORS[number + 1 :]])
    # What goes from one node to the other is another set.
    others.append([*VECTORS[:6], VECTORS[12], *VECTORS[7:12], VECTORS[6], *VECTORS[13:]])
    seen = {whole}
    broken = 0
    for fields in others:
        try:
            seen.add(gathered(fields))
        except PackedError:
            broken += 1
    assert len(seen) + broken == 1 + len(others)
    assert 0 < broken < len(VECTORS)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A value of 60 MB, sets and lists of half a million and of long ones: a file of 220 MB."""
    path = tmp_path / "dump.rdb"
    members = [b"member number %d of a set" % number for number in range(500_000)]
    made = Rdb(10).db(0, 5).key(0, b"long", build.string(b"x" * 60_000_000))
    made.key(2, b"set", strings(*members)).key(1, b"list", strings(*members))
    made.key(1, b"long elements", strings(*[b"x" * 1_000_000] * 60))
    made.key(2, b"long members", strings(*(b"%099999d" % number for number in range(600))))
    data = made.body() + bytes((build.EOF,))
    path.write_bytes(data + crc64.update(data, 0).to_bytes(8, "little"))
    code = (
        "import sys\n"
        "from redis_backup.digest.digester import on_all_cores\n"
        "from redis_backup.rdb import walker\n"
        "walker.inspect(sys.argv[1], digester=on_all_cores())\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": str(PACKAGE)},
        stdout=subprocess.PIPE,
        check=True,
    )
    assert int(done.stdout) * 1024 < 80_000_000
