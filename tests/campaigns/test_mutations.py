"""The prover is proved: whatever is changed in a dataset, the comparison of a drill finds it.

A real server holds the data, is told to change one thing at a random place, and saves: that RDB
must differ from the one before, and have another digest. What else one could compare is compared
too, for the table: `DEBUG DIGEST`, and the keys and expires of INFO keyspace.

A command on a stream changes more than one thing (a claim also changes when its consumer was seen),
so streams are also written anew from what a server saved, with one field changed.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis_backup.digest.digester import on_all_cores
from redis_backup.rdb import walker
from redis_backup.rdb.values import Consumer, Group, Stream, StreamId

from tests.campaigns.conftest import Size, TellTable
from tests.support import rdb_builder as build
from tests.support import servers
from tests.support.comparing import difference
from tests.support.rdb_builder import Rdb
from tests.support.servers import Binary, Server

FEW, MANY = 4, 120
SOON = 33_000_000_000_000

BINARIES: dict[str, Callable[[], Binary]] = {
    "Redis 6.0": lambda: servers.of_release("6.0"),
    "Redis 7.0": lambda: servers.of_release("7.0"),
    "Redis 8.0": lambda: servers.of_release("8.0"),
    "Valkey 8.1": servers.valkey,
}


@dataclass
class Data:
    """A server with some of every type in several encodings, in two databases."""

    server: Server
    dice: random.Random
    keys: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def release(self) -> tuple[int, int]:
        major, minor = self.server.binary.release.split(".")
        return int(major), int(minor)

    @property
    def valkey(self) -> bool:
        return "valkey" in self.server.binary.command[-1]

    def text(self, longest: int = 40) -> bytes:
        """Bytes, or a number."""
        if self.dice.random() < 0.3:
            return b"%d" % self.dice.choice((self.dice.randrange(300), self.dice.getrandbits(60)))
        return self.dice.randbytes(self.dice.randrange(1, longest))

    def several(self) -> int:
        """How many elements: few are packed, many are not."""
        return self.dice.choice((2, 3, 10, 140))

    def fill(self) -> None:
        """Write everything."""
        call, dice = self.server, self.dice
        for number in range(40):
            self.keys.setdefault("string", []).append(b"string:%d" % number)
            call("SET", b"string:%d" % number, self.text(400))
        for number in range(40 + MANY):
            name = b"expiring:%d" % number
            self.keys.setdefault("expiring", []).append(name)
            call("SET", name, self.text())
            call("PEXPIREAT", name, SOON + dice.randrange(10**9))
        for number in range(6):
            for kind in ("list", "set", "zset", "hash", "stream", "plain"):
                self.keys.setdefault(kind, []).append(b"%s:%d" % (kind.encode(), number))
            parts = [self.text() for _ in range(self.several())]
            call("RPUSH", b"list:%d" % number, *parts)
            call("SADD", b"set:%d" % number, *parts)
            pairs = [word for part in parts for word in (dice.uniform(-1e6, 1e6), part)]
            call("ZADD", b"zset:%d" % number, *map(_score, pairs))
            call(
                "HSET",
                b"hash:%d" % number,
                *(word for part in parts for word in (part, self.text())),
            )
            self._stream(b"stream:%d" % number, 4)
            for group in ("one", "two"):
                call("XGROUP", "CREATE", b"stream:%d" % number, group, "0")
                call(
                    "XREADGROUP",
                    "GROUP",
                    group,
                    "reader",
                    "COUNT",
                    3,
                    "STREAMS",
                    b"stream:%d" % number,
                    ">",
                )
            self._stream(b"plain:%d" % number, dice.choice((2, 60)))
        if self.release >= (7, 0):
            for number in range(8):
                call("FUNCTION", "LOAD", _library(number, 0))
        if self.expiring_fields:
            for number in range(6):
                self.keys.setdefault("fields", []).append(b"fields:%d" % number)
                names = [b"field:%d" % item for item in range(self.several())]
                call(
                    "HSET",
                    b"fields:%d" % number,
                    *(word for name in names for word in (name, self.text())),
                )
                for name in names[::2]:
                    call(
                        "HPEXPIREAT",
                        b"fields:%d" % number,
                        SOON + dice.randrange(10**9),
                        "FIELDS",
                        1,
                        name,
                    )
        call("SELECT", 1)
        call("SET", "other", "database")
        call("SELECT", 0)

    @property
    def expiring_fields(self) -> bool:
        return self.release >= (7, 4) and not self.valkey

    def _stream(self, name: bytes, entries: int) -> None:
        for number in range(entries):
            self.server(
                "XADD", name, f"{1000 + number}-1", "field", self.text(), self.text(), "value"
            )

    def pick(self, kind: str) -> bytes:
        return self.dice.choice(self.keys[kind])

    def changed(self, data: bytes) -> bytes:
        """The same but for one bit of one byte."""
        place = self.dice.randrange(len(data))
        bit = 1 << self.dice.randrange(8)
        return data[:place] + bytes((data[place] ^ bit,)) + data[place + 1 :]


def _score(word: float | bytes) -> bytes:
    return word if isinstance(word, bytes) else repr(word).encode()


def _library(number: int, version: int) -> str:
    return (
        f"#!lua name=library{number}\n"
        f"redis.register_function('function{number}', function() return {version} end)"
    )


# --- the kinds of mutation ------------------------------------------------------------------------


def byte_of_a_value(data: Data) -> None:
    call = data.server
    kind = data.dice.choice(("string", "list", "set", "zset", "hash", "plain"))
    name = data.pick(kind)
    if kind == "string":
        call("SET", name, data.changed(call("GET", name)))
    elif kind == "list":
        place = data.dice.randrange(call("LLEN", name))
        call("LSET", name, place, data.changed(call("LINDEX", name, place)))
    elif kind == "set":
        old = data.dice.choice(call("SMEMBERS", name))
        call("SREM", name, old)
        call("SADD", name, data.changed(old))
    elif kind == "zset":
        old = data.dice.choice(call("ZRANGE", name, 0, -1))
        score = call("ZSCORE", name, old)
        call("ZREM", name, old)
        call("ZADD", name, score, data.changed(old))
    elif kind == "hash":
        old = data.dice.choice(call("HKEYS", name))
        call("HSET", name, old, data.changed(call("HGET", name, old)))
    else:
        entries = call("XRANGE", name, "-", "+")
        entry = data.dice.choice(entries)[1]
        place = data.dice.randrange(len(entry))
        entry[place] = data.changed(entry[place])
        call("DEL", name)
        for number, words in entries:
            call("XADD", name, number, *words)


def expiry_by_one(data: Data) -> None:
    name = data.pick("expiring")
    expiry = data.server("PTTL", name)
    assert expiry > 0
    moment = _expiry(data, name)
    data.server("PEXPIREAT", name, moment + data.dice.choice((-1, 1)))


def _expiry(data: Data, name: bytes) -> int:
    if data.release >= (7, 0):
        return int(data.server("PEXPIRETIME", name))
    data.server("SAVE")
    return next(e.expire or 0 for e in walker.entries(data.server.dump) if e.key == name)


def expiry_removed(data: Data) -> None:
    name = data.keys["expiring"].pop(data.dice.randrange(len(data.keys["expiring"])))
    assert data.server("PERSIST", name) == 1


def key_renamed(data: Data) -> None:
    kind = data.dice.choice(("string", "list", "set", "zset", "hash", "stream"))
    place = data.dice.randrange(len(data.keys[kind]))
    old = data.keys[kind][place]
    new = data.changed(old)
    while data.server("EXISTS", new):
        new = data.changed(old)
    data.server("RENAME", old, new)
    data.keys[kind][place] = new


def values_swapped(data: Data) -> None:
    kind = data.dice.choice(("string", "list", "set", "zset", "hash", "plain"))
    first, second = data.dice.sample(data.keys[kind], 2)
    while data.server("DUMP", first) == data.server("DUMP", second):
        first, second = data.dice.sample(data.keys[kind], 2)
    data.server("RENAME", first, "between")
    data.server("RENAME", second, first)
    data.server("RENAME", "between", second)


def database_changed(data: Data) -> None:
    call = data.server
    name = data.pick("string")
    if call("EXISTS", name):
        assert call("MOVE", name, 1) == 1
    else:
        call("SELECT", 1)
        assert call("MOVE", name, 0) == 1
        call("SELECT", 0)


def order_of_a_list(data: Data) -> None:
    name = data.pick("list")
    elements = data.server("LRANGE", name, 0, -1)
    places = [at for at in range(len(elements) - 1) if elements[at] != elements[at + 1]]
    place = data.dice.choice(places)
    data.server("LSET", name, place, elements[place + 1])
    data.server("LSET", name, place + 1, elements[place])


def last_bit_of_a_score(data: Data) -> None:
    name = data.pick("zset")
    member = data.dice.choice(data.server("ZRANGE", name, 0, -1))
    score = float(data.server("ZSCORE", name, member))
    changed = math.nextafter(score, data.dice.choice((-math.inf, math.inf)))
    data.server("ZADD", name, repr(changed), member)


def group_of_a_stream(data: Data) -> None:
    call = data.server
    name, group = data.pick("stream"), data.dice.choice(("one", "two"))
    what = data.dice.randrange(6)
    pending = call("XPENDING", name, group, "-", "+", 10)
    if what == 0 or not pending:
        call("XGROUP", "CREATE", name, b"group:%d" % data.dice.getrandbits(60), "0")
    elif what == 1:
        call("XGROUP", "SETID", name, group, f"{data.dice.getrandbits(40)}-0")
    elif what == 2:
        entry, owner, _, deliveries = data.dice.choice(pending)
        call("XCLAIM", name, group, owner, 0, entry, "RETRYCOUNT", deliveries + 1, "JUSTID")
    elif what == 3:
        entry, _, _, _ = data.dice.choice(pending)
        call("XCLAIM", name, group, b"other:%d" % data.dice.getrandbits(60), 0, entry, "JUSTID")
    elif what == 4:
        entry, owner, _, _ = data.dice.choice(pending)
        call("XCLAIM", name, group, owner, 0, entry, "TIME", data.dice.getrandbits(40), "JUSTID")
    else:
        assert call("XACK", name, group, data.dice.choice(pending)[0]) == 1


def numbers_of_a_stream(data: Data) -> None:
    name = data.pick("stream")
    info = data.server("XINFO", "STREAM", name)
    found = dict(zip(info[::2], info[1::2], strict=True))
    milliseconds, sequence = map(int, found[b"last-generated-id"].split(b"-"))
    words: list[str | int] = [f"{milliseconds}-{sequence}"]
    what = data.dice.randrange(3) if data.release >= (7, 0) else 0
    added = found.get(b"entries-added", 0)
    deleted = found.get(b"max-deleted-entry-id", b"0-0").decode()
    if what == 0:
        words = [f"{milliseconds}-{sequence + 1}"]
    elif what == 1:
        words += ["ENTRIESADDED", added + 1, "MAXDELETEDID", deleted]
    else:
        first, second = map(int, deleted.split("-"))
        if (first, second + 1) > (milliseconds, sequence):
            words = [f"{milliseconds}-{sequence + 1}"]
        words += ["ENTRIESADDED", added, "MAXDELETEDID", f"{first}-{second + 1}"]
    data.server("XSETID", name, *words)


def function_changed(data: Data) -> None:
    number = data.dice.randrange(8)
    data.server("FUNCTION", "LOAD", "REPLACE", _library(number, data.dice.getrandbits(50)))


def expiry_of_a_field(data: Data) -> None:
    call = data.server
    name = data.pick("fields")
    fields = call("HKEYS", name)
    moments = call("HPEXPIRETIME", name, "FIELDS", len(fields), *fields)
    chosen = data.dice.choice([at for at, moment in enumerate(moments) if moment > 0])
    moment = moments[chosen] + data.dice.choice((-1, 1))
    call("HPEXPIREAT", name, moment, "FIELDS", 1, fields[chosen])


@dataclass(frozen=True)
class Kind:
    """A kind of mutation, and which servers can be told to make it."""

    what: str
    change: Callable[[Data], None]
    possible: Callable[[Data], bool] = lambda _: True


KINDS = (
    Kind("one bit of a value", byte_of_a_value),
    Kind("expiry by 1 ms", expiry_by_one),
    Kind("expiry removed", expiry_removed),
    Kind("key renamed by one bit", key_renamed),
    Kind("values of two keys swapped", values_swapped),
    Kind("key in another database", database_changed),
    Kind("order of a list", order_of_a_list),
    Kind("last bit of a score", last_bit_of_a_score),
    Kind("group, pending entry or consumer", group_of_a_stream),
    Kind("last id, entries added, max deleted", numbers_of_a_stream),
    Kind("function", function_changed, lambda data: data.release >= (7, 0)),
    Kind("expiry of a field by 1 ms", expiry_of_a_field, lambda data: data.expiring_fields),
)


@dataclass(frozen=True)
class Seen:
    """What one can compare of a dataset."""

    content: bytes
    digest: str
    debug: bytes
    counts: str


def look(server: Server) -> Seen:
    """Save, and take all of them."""
    server("SAVE")
    found = walker.inspect(server.dump, digester=on_all_cores())
    assert found.digest is not None
    debug = server("DEBUG", "DIGEST")
    return Seen(server.dump.read_bytes(), found.digest, debug, str(found.databases))


@pytest.mark.parametrize("engine", BINARIES)
def test_every_mutation_is_caught(
    engine: str, draw: random.Random, size: Size, table: TellTable
) -> None:
    binary = BINARIES[engine]()
    settings: dict[str, str | int] = {"list-max-ziplist-size": 16, "stream-node-max-entries": 50}
    if binary.release != "6.0":
        settings["enable-debug-command"] = "local"
    rows = []
    with servers.running(binary, settings=settings) as server:
        data = Data(server, draw)
        data.fill()
        for kind in KINDS:
            if not kind.possible(data):
                continue
            places = size(FEW, MANY)
            caught = by_debug = by_counts = 0
            before = look(server)
            for _ in range(places):
                kind.change(data)
                after = look(server)
                found = difference(before.content, after.content)
                assert found is not None, kind.what
                assert found.beside == (kind.change is function_changed), kind.what
                assert bool(found.keys) != found.beside, kind.what
                assert after.digest != before.digest, kind.what
                caught += 1
                by_debug += after.debug != before.debug
                by_counts += after.counts != before.counts
                before = after
            rows.append((kind.what, places, caught, by_debug, by_counts))
    header = (engine, "places", "comparison", "DEBUG DIGEST", "keys and expires")
    table(header, rows)


# --- streams, field by field ----------------------------------------------------------------------


def _written(version: int, stream: Stream) -> bytes:
    """An RDB of one stream, each entry in a listpack of its own."""

    def pair(number: StreamId | None) -> bytes:
        assert number is not None
        return build.length(number[0]) + build.length(number[1])

    def time(moment: int | None) -> bytes:
        assert moment is not None
        return moment.to_bytes(8, "little", signed=True)

    parts = [build.length(len(stream.entries))]
    for number, pairs in stream.entries:
        words: list[build.Element] = [1, 0, len(pairs), *(name for name, _ in pairs), 0]
        words += [2, 0, 0, *(value for _, value in pairs), len(pairs) + 3]
        parts += [build.string(build.stream_id(*number)), build.string(build.listpack(words))]
    parts += [build.length(len(stream.entries)), pair(stream.last_id)]
    if version >= 10:
        parts += [pair(stream.first_id), pair(stream.max_deleted_id)]
        parts.append(build.length(stream.entries_added or 0))
    parts.append(build.length(len(stream.groups)))
    for group in stream.groups:
        parts += [build.string(group.name), pair(group.last_id)]
        if version >= 10:
            parts.append(
                build.length((group.entries_read if group.entries_read is not None else -1) % 2**64)
            )
        parts.append(build.length(len(group.pending)))
        for number, moment, deliveries in group.pending:
            parts += [build.stream_id(*number), time(moment), build.length(deliveries)]
        parts.append(build.length(len(group.consumers)))
        for consumer in group.consumers:
            parts += [build.string(consumer.name), time(consumer.seen)]
            if version >= 11:
                parts.append(time(consumer.active))
            parts.append(build.length(len(consumer.pending)))
            parts += [build.stream_id(*number) for number in consumer.pending]
    kind = {9: 15, 10: 19, 11: 21, 12: 21}[version]
    return Rdb(version).db(0, 1).key(kind, b"stream", *parts).end()


def _next(dice: random.Random, number: Any) -> Any:
    """Another number, or id, near this one."""
    if isinstance(number, tuple):
        return number[0], number[1] + 1
    return 7 if number is None else number + dice.choice((1, 2, 256, 1 << 40))


def _one_changed(dice: random.Random, items: list[Any], change: Callable[[Any], Any]) -> list[Any]:
    place = dice.randrange(len(items))
    return [*items[:place], change(items[place]), *items[place + 1 :]]


def _group(dice: random.Random, stream: Stream, change: Callable[[Group], Group]) -> Stream:
    return stream._replace(groups=_one_changed(dice, stream.groups, change))


def _consumer(
    dice: random.Random, stream: Stream, change: Callable[[Consumer], Consumer]
) -> Stream:
    return _group(
        dice,
        stream,
        lambda group: group._replace(consumers=_one_changed(dice, group.consumers, change)),
    )


def _delivery(dice: random.Random, stream: Stream, part: int) -> Stream:
    def change(item: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*item[:part], _next(dice, item[part]), *item[part + 1 :])

    return _group(
        dice,
        stream,
        lambda group: group._replace(pending=_one_changed(dice, group.pending, change)),
    )


def _owner(dice: random.Random, stream: Stream) -> Stream:
    """One pending entry becomes another consumer's."""

    def change(group: Group) -> Group:
        giver, taker = dice.sample(range(len(group.consumers)), 2)
        if not group.consumers[giver].pending:
            giver, taker = taker, giver
        consumers = list(group.consumers)
        entry = dice.choice(consumers[giver].pending)
        consumers[giver] = consumers[giver]._replace(
            pending=[item for item in consumers[giver].pending if item != entry]
        )
        consumers[taker] = consumers[taker]._replace(
            pending=sorted([*consumers[taker].pending, entry])
        )
        return group._replace(consumers=consumers)

    return _group(dice, stream, change)


def _entry_moved(dice: random.Random, stream: Stream) -> Stream:
    def change(entry: Any) -> Any:
        return _next(dice, entry[0]), entry[1]

    return stream._replace(entries=_one_changed(dice, stream.entries, change))


def _entry_value(dice: random.Random, stream: Stream) -> Stream:
    def change(entry: Any) -> Any:
        return entry[0], _one_changed(dice, entry[1], lambda pair: (pair[0], pair[1] + b"+"))

    return stream._replace(entries=_one_changed(dice, stream.entries, change))


FIELDS: dict[str, tuple[int, Callable[[random.Random, Stream], Stream]]] = {
    "id of an entry": (9, _entry_moved),
    "value of an entry": (9, _entry_value),
    "last id": (9, lambda dice, s: s._replace(last_id=_next(dice, s.last_id))),
    "first id": (10, lambda dice, s: s._replace(first_id=_next(dice, s.first_id))),
    "max deleted id": (
        10,
        lambda dice, s: s._replace(max_deleted_id=_next(dice, s.max_deleted_id)),
    ),
    "entries added": (10, lambda dice, s: s._replace(entries_added=_next(dice, s.entries_added))),
    "group's name": (9, lambda dice, s: _group(dice, s, lambda g: g._replace(name=g.name + b"+"))),
    "group's last id": (
        9,
        lambda dice, s: _group(dice, s, lambda g: g._replace(last_id=_next(dice, g.last_id))),
    ),
    "group's entries read": (
        10,
        lambda dice, s: _group(
            dice, s, lambda g: g._replace(entries_read=_next(dice, g.entries_read))
        ),
    ),
    "pending entry's time": (9, lambda dice, s: _delivery(dice, s, 1)),
    "pending entry's deliveries": (9, lambda dice, s: _delivery(dice, s, 2)),
    "pending entry's consumer": (9, _owner),
    "consumer's name": (
        9,
        lambda dice, s: _consumer(dice, s, lambda c: c._replace(name=c.name + b"+")),
    ),
    "consumer's time seen": (
        9,
        lambda dice, s: _consumer(dice, s, lambda c: c._replace(seen=_next(dice, c.seen))),
    ),
    "consumer's time active": (
        11,
        lambda dice, s: _consumer(dice, s, lambda c: c._replace(active=_next(dice, c.active))),
    ),
}


def _differs(first: bytes, second: bytes) -> bool:
    """By a comparison, and by the digests."""
    digests = {
        walker.inspect_stream(io.BytesIO(data), len(data), digester=on_all_cores()).digest
        for data in (first, second)
    }
    return difference(first, second) is not None and len(digests) == 2


@pytest.mark.parametrize("engine", BINARIES)
def test_every_field_of_a_stream_counts(
    engine: str, draw: random.Random, size: Size, table: TellTable
) -> None:
    rows = []
    with servers.running(BINARIES[engine]()) as server:
        for number in range(12):
            server(
                "XADD", "stream", f"{1000 + number}-1", "field", f"value {number}", "other", number
            )
        server("XDEL", "stream", "1003-1")
        for group in ("one", "two"):
            server("XGROUP", "CREATE", "stream", group, "0")
            for reader in ("first", "second", "third"):
                server("XREADGROUP", "GROUP", group, reader, "COUNT", 2, "STREAMS", "stream", ">")
        server("SAVE")
        [entry] = walker.entries(server.dump)
        version = walker.inspect(server.dump).rdb_version
        # What is written anew is what the server wrote.
        right = _written(version, entry.value)
        assert difference(right, server.dump.read_bytes()) is None
        for what, (since, change) in FIELDS.items():
            if version < since:
                continue
            places = size(FEW, MANY)
            caught = sum(
                _differs(right, _written(version, change(draw, entry.value))) for _ in range(places)
            )
            rows.append((what, places, caught))
            assert caught == places, what
    table((f"stream of {engine}", "places", "comparison"), rows)
