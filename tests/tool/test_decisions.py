"""Decisions and formats as pure functions: turn, receipts, catalogue, manifest, what rsync says."""

from __future__ import annotations

import json
import string
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis_backup.base.errors import ToolError
from redis_backup.base.times import timestamp
from redis_backup.config.model import Host, Transport
from redis_backup.formats import catalogue as catalogue_format
from redis_backup.formats import document, identity, lease, manifest, receipts
from redis_backup.formats import report as report_format
from redis_backup.formats.catalogue import CatalogueError, Entry
from redis_backup.formats.manifest import Counts, Manifest, Position, StoredFile
from redis_backup.host import server, turn
from redis_backup.host.create import check_snapshot
from redis_backup.host.standing import Standing
from redis_backup.host.turn import Replica
from redis_backup.rdb.walker import RdbInfo
from redis_backup.transport import redis_client, rsync

from tests.support import runbooks

SET = "redis"
HOSTS = tuple(Host(f"redis-{number}", f"10.0.0.{number}", 6379) for number in range(1, 6))


def replica(number: int, online: bool = True, port: int = 6379) -> Replica:
    """A replica as the master lists it."""
    return Replica(f"10.0.0.{number}", port, online)


@pytest.mark.parametrize(
    ("replicas", "host", "is_master", "expected"),
    [
        # redis-1 is the master: replicas in inventory order, whatever the master's order, then the
        # master.
        ([replica(3), replica(2)], "redis-2", False, 0),
        ([replica(3), replica(2)], "redis-3", False, 1),
        ([replica(3), replica(2)], "redis-1", True, 2),
        # Only those in sync count.
        ([replica(2, online=False), replica(3)], "redis-3", False, 0),
        ([replica(2, online=False), replica(3)], "redis-2", False, None),
        ([replica(2, online=False), replica(3)], "redis-1", True, 1),
        # The same address with another port is another server, and strangers count for nothing.
        ([replica(2, port=6380), replica(3)], "redis-2", False, None),
        ([replica(99), replica(3)], "redis-3", False, 0),
        ([replica(99)], "redis-1", True, 0),
        ([], "redis-1", True, 0),
        ([], "redis-2", False, None),
        # After a failover redis-2 is the master and redis-1 a replica.
        ([replica(1), replica(3)], "redis-1", False, 0),
        ([replica(1), replica(3)], "redis-2", True, 2),
    ],
)
def test_rank(replicas: list[Replica], host: str, is_master: bool, expected: int | None) -> None:
    assert turn.rank(HOSTS, replicas, host, is_master) == expected


@given(st.sets(st.integers(1, 5)), st.integers(1, 5), st.randoms(use_true_random=False))
def test_ranks_are_distinct_and_without_a_gap(online: set[int], master: int, random: Any) -> None:
    listed = [replica(number, number in online) for number in range(1, 6) if number != master]
    random.shuffle(listed)
    ranks = [turn.rank(HOSTS, listed, host.name, host.name == f"redis-{master}") for host in HOSTS]
    given_out = sorted(rank for rank in ranks if rank is not None)
    assert given_out == list(range(len(online - {master}) + 1))
    assert ranks[master - 1] == len(given_out) - 1


ID = "20260102T030405Z-redis-2"
NOW = manifest.id_time(ID) + 5
HISTORY, FORMER, ANOTHER = "a" * 40, "c" * 40, "b" * 40
REPOSITORY = "12345678-1234-1234-1234-123456789abc"


def event(**changes: Any) -> Entry:
    """The event of an accepted backup, with changes."""
    data = {
        "event": "accepted",
        "id": ID,
        "set": SET,
        "at": "2026-01-02T03:04:06Z",
        "manifest_sha256": "1" * 64,
        "host": "redis-2",
        "n": 1,
        "kind": "nightly",
        "level": "form",
        "fork_time": NOW - 5,
        "keys": 100,
        "size": 1000,
        "stored_size": 100,
    }
    return Entry(**{**data, **changes})


def receipt(**changes: Any) -> receipts.Receipt:
    """An accepted receipt, with changes."""
    data = {
        "id": ID,
        "set": SET,
        "host": "redis-2",
        "status": "accepted",
        "repository": REPOSITORY,
        "manifest_sha256": "1" * 64,
        "event": event(),
        "position": Position(HISTORY, 400),
    }
    return receipts.Receipt(**{**data, **changes})


OWN = turn.Own(
    repl_id=HISTORY, repl_offset=500, former_id=FORMER, former_offset=300, keys=100, time=NOW
)
OLD, NEW = {"a": receipt()}, {"a": receipt(), "b": receipt()}


@pytest.mark.parametrize(
    ("place", "before", "after", "expected"),
    [
        (1, OLD, NEW, "b"),
        (1, OLD, OLD, None),
        (1, NEW, OLD, None),  # one was dropped meanwhile: nothing new
        (1, None, NEW, None),  # what was there before is not known: act
        (1, OLD, None, None),  # what is there now is not known: act
        (0, OLD, NEW, None),  # the first never waits, so it never yields
        (2, {}, NEW, "b"),
    ],
)
def test_yielding(
    place: int,
    before: dict[str, receipts.Receipt] | None,
    after: dict[str, receipts.Receipt] | None,
    expected: str | None,
) -> None:
    assert turn.must_yield(place, before, after, OWN, 60, 50) == expected


@pytest.mark.parametrize(
    ("changes", "yields"),
    [
        ({}, True),
        ({"event": event(kind="manual")}, True),
        ({"event": event(level="values")}, True),
        ({"event": event(keys=50)}, True),
        ({"position": Position(HISTORY, 500)}, True),
        # Taken before the promotion of this master, in the history that it goes on with.
        ({"position": Position(FORMER, 300)}, True),
        # A receipt that came now, of a backup that waited since yesterday; a clock that is ahead.
        ({"event": event(fork_time=NOW - 86400)}, False),
        ({"event": event(fork_time=NOW + 86400)}, False),
        ({"event": event(fork_time=NOW - 60 - 600)}, True),
        ({"event": event(fork_time=NOW - 60 - 601)}, False),
        # What a host that was taken over may send.
        ({"event": event(keys=49)}, False),
        ({"event": event(keys=1)}, False),
        ({"event": event(shrunk_from=ID)}, False),
        ({"position": Position(ANOTHER, 400)}, False),
        ({"position": Position(HISTORY, 501)}, False),
        ({"position": Position(FORMER, 301)}, False),
        ({"position": None}, False),
        ({"event": None}, False),
        # What does not count as the newest backup, or is not proved.
        ({"event": event(kind="safety")}, False),
        ({"event": event(kind="base")}, False),
        ({"event": event(level="bytes")}, False),
        ({"event": event(level="of a newer tool")}, False),
    ],
)
def test_yielding_to_a_backup_of_the_same_data_only(changes: dict[str, Any], yields: bool) -> None:
    other = turn.must_yield(1, {}, {ID: receipt(**changes)}, OWN, 60, 50)
    assert other == (ID if yields else None)


def test_one_that_does_not_count_hides_none_that_does() -> None:
    late = receipt(event=event(fork_time=NOW - 86400))
    assert turn.must_yield(1, {}, {"b": receipt(), "c": late}, OWN, 60, 50) == "b"


def test_waiting_grows_with_the_rank() -> None:
    assert [turn.wait_seconds(place, 60) for place in range(3)] == [0, 60, 120]


def test_replicas_of_info() -> None:
    info = redis_client.parse_info(
        "# Replication\r\nrole:master\r\nconnected_slaves:3\r\n"
        "slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=0\r\n"
        "slave1:ip=::1,port=6380,state=wait_bgsave,offset=0,lag=0\r\n"
        "slave2:garbage\r\n"
    )
    assert server.replicas(info) == [Replica("10.0.0.2", 6379, True), Replica("::1", 6380, False)]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, None),
        ({"manifest_sha256": "2" * 64}, "accepted another one"),
        ({"manifest_sha256": None}, "accepted another one"),
        ({"status": "rejected", "reason": "no room"}, "no room"),
        ({"id": "20260102T030405Z-redis-3"}, "not about"),
        ({"set": "other"}, "not about"),
        ({"host": "redis-3"}, "not about"),
        ({"repository": "0" + REPOSITORY[1:]}, "keeps another repository"),
    ],
)
def test_judging_a_receipt(changes: dict[str, Any], word: str | None) -> None:
    verdict = receipts.judge(receipt(**changes), SET, "redis-2", ID, "1" * 64, REPOSITORY)
    assert (verdict is None) if word is None else (word in str(verdict))


def test_a_host_that_knows_no_repository_takes_any() -> None:
    assert receipts.judge(receipt(), SET, "redis-2", ID, "1" * 64, None) is None


def test_only_receipts_that_are_accepted_and_of_the_set_count() -> None:
    other = "20260102T030405Z-redis-3"
    found = {
        ID: receipts.encode(receipt()),
        other: receipts.encode(receipt(id=other, status="rejected")),
        "20260102T030405Z-redis-4": receipts.encode(receipt(id=other, status="deferred")),
        "20260102T030406Z-redis-3": receipts.encode(receipt()),
        "20260102T030407Z-redis-3": b"not JSON",
    }
    assert receipts.accepted(found, SET) == {ID: receipt()}
    assert receipts.accepted(found, "other") == {}


def snapshot(ctime: int | None, repl_id: str | None = None, offset: int | None = None) -> RdbInfo:
    """A walked RDB with these auxiliary fields."""
    aux = {} if ctime is None else {"ctime": str(ctime)}
    if repl_id is not None:
        aux.update({"repl-id": repl_id, "repl-offset": str(offset)})
    return RdbInfo(
        magic="REDIS",
        rdb_version=10,
        aux=aux,
        databases={},
        functions=0,
        size=100,
        crc="0" * 16,
    )


MASTER = Position(HISTORY, 500)


@pytest.mark.parametrize(
    ("info", "is_master", "master", "word"),
    [
        (snapshot(1000, HISTORY, 500), False, MASTER, None),
        (snapshot(1001, HISTORY, 900), False, MASTER, None),
        (snapshot(999, HISTORY, 900), False, MASTER, "older snapshot"),
        (snapshot(None, HISTORY, 900), False, MASTER, "unknown time"),
        (snapshot(1000, HISTORY, 499), False, MASTER, "stale"),
        (snapshot(1000, ANOTHER, 900), False, MASTER, "master changed"),
        (snapshot(1000), False, MASTER, "master changed"),
        (snapshot(1000), True, MASTER, None),  # a master without replicas notes no position
        (snapshot(1000, HISTORY, 499), True, MASTER, "stale"),
        (snapshot(1000), True, None, None),
    ],
)
def test_what_a_snapshot_must_be(
    info: RdbInfo, is_master: bool, master: Position | None, word: str | None
) -> None:
    standing = Standing(is_master, 0, "redis-1", master)
    if word is None:
        check_snapshot(info, 1000, standing)
    else:
        with pytest.raises(ToolError, match=word):
            check_snapshot(info, 1000, standing)


NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=20)
SIZES = st.integers(1, 2**62)
COUNTS = st.integers(0, 2**62).flatmap(
    lambda keys: st.integers(0, keys).map(lambda expires: Counts(keys, expires))
)
POSITIONS = st.builds(
    Position, st.text("0123456789abcdef", min_size=40, max_size=40), st.integers(0, 2**62)
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Manifests that are valid."""
    host = draw(NAMES)
    inside = draw(st.none() | POSITIONS)
    return Manifest(
        id=manifest.make_id(draw(st.integers(0, 2**32)), host),
        set=draw(NAMES),
        host=host,
        engine=draw(st.sampled_from(["redis", "valkey"])),
        server_version="7.0.15",
        rdb_magic="REDIS",
        rdb_version=draw(st.integers(1, 99)),
        repl_id=None if inside is None else inside.repl_id,
        repl_offset=None if inside is None else inside.repl_offset,
        master=draw(st.none() | POSITIONS),
        fork_time=draw(st.integers(1, 2**32)),
        databases=draw(st.dictionaries(st.integers(0, 9999), COUNTS, max_size=5)),
        settings=draw(st.dictionaries(WORDS, st.sampled_from(["yes", "no", "-2", "512"]))),
        seconds=draw(st.dictionaries(WORDS, st.floats(0, 1e6), max_size=5)),
        files=(
            StoredFile(
                "dump.rdb",
                "dump.rdb.zst",
                "zstd",
                draw(SIZES),
                draw(DIGESTS),
                draw(SIZES),
                draw(DIGESTS),
            ),
        ),
        tool_version="0.1.0",
    )


@given(manifests())
def test_a_manifest_survives_its_file(made: Manifest) -> None:
    assert manifest.decode(manifest.encode(made), "x") == made


@given(manifests(), st.data())
def test_a_manifest_with_a_key_less_is_refused(made: Manifest, data: st.DataObject) -> None:
    content = {"schema": document.SCHEMA, **manifest.to_json(made)}
    optional = {"repl_id", "repl_offset", "master", "settings", "seconds"}
    key = data.draw(st.sampled_from(sorted(set(content) - optional)))
    less = {name: value for name, value in content.items() if name != key}
    for wrong in (less, {**content, key: None}):
        with pytest.raises(ToolError, match=r"^x"):
            manifest.from_json(wrong, "x")


REPORT = {"set": SET, "backup_id": ID, "verdict": "passed", "level": "values"}
LEASE = lease.Lease(SET, "plan-1", ID, ("seg-1",), "redis-3", "2026-01-02T03:04:06Z")


def openness() -> dict[str, tuple[bytes, Callable[[bytes], Any]]]:
    """A document of each kind, and what reads it."""
    made = Manifest(
        id=ID,
        set=SET,
        host="redis-2",
        engine="redis",
        server_version="7.0.15",
        rdb_magic="REDIS",
        rdb_version=10,
        repl_id=HISTORY,
        repl_offset=400,
        master=None,
        fork_time=NOW,
        databases={0: Counts(3, 1)},
        settings={},
        seconds={},
        files=(StoredFile("dump.rdb", "dump.rdb.zst", "zstd", 9, "2" * 64, 8, "3" * 64),),
        tool_version="1",
    )
    return {
        "manifest": (manifest.encode(made), lambda raw: manifest.decode(raw, "x")),
        "receipt": (receipts.encode(receipt()), lambda raw: receipts.decode(raw, "x")),
        "report": (document.encode(REPORT), lambda raw: report_format.decode(raw, "x")),
        "lease": (lease.encode(LEASE), lambda raw: lease.decode(raw, "x")),
        "repository": (
            identity.encode(identity.Repository(REPOSITORY, "2026-01-02T03:04:06Z")),
            lambda raw: identity.decode(raw, "x"),
        ),
        "line": (catalogue_format.encode(event()), lambda raw: catalogue_format.decode(raw, "x")),
    }


def changed(kind: str, raw: bytes, **changes: Any) -> bytes:
    """A document with these keys; a line is sealed again."""
    data = {**json.loads(raw), **changes}
    if kind != "line":
        return json.dumps(data).encode()
    del data["line_sha256"]
    line = json.dumps(data, separators=(",", ":")).encode()
    return line[:-1] + f',"line_sha256":"{catalogue_format.line_hash(line)}"}}'.encode()


@pytest.mark.parametrize("kind", openness())
def test_a_document_of_a_newer_tool(kind: str) -> None:
    """More keys do not matter, unless its writer says that they do; another schema does."""
    raw, read = openness()[kind]
    known = read(raw)
    more = read(changed(kind, raw, surprise={"deep": [1]}))
    if kind == "report":  # is kept as it was sent
        assert more.pop("surprise") == {"deep": [1]}
    assert more == known
    assert read(changed(kind, raw, requires=[])) is not None
    for changes, word in (
        ({"requires": ["new-thing", "another"]}, r"does not know \(another, new-thing\)"),
        ({"requires": "new-thing"}, "must be a list"),
        ({"requires": [1]}, '"requires" must be a list of keys'),
        ({"schema": 1}, "schema 1 is not known, only 2"),
        ({"schema": 3}, "schema 3 is not known, only 2"),
        ({"schema": None}, '"schema" must be a whole number'),
    ):
        with pytest.raises(ToolError, match=word) as refused:
            read(changed(kind, raw, **changes))
        assert str(refused.value).startswith("x: ")


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"{", b"\xff", b'{"schema":1,"schema":1}', b"[" * 100_000]
)
def test_bytes_that_are_no_manifest(raw: bytes) -> None:
    with pytest.raises(ToolError, match=r"^x"):
        manifest.decode(raw, "x")


@pytest.mark.parametrize(
    ("repl_id", "offset", "master", "expected"),
    [
        (HISTORY, 500, MASTER, "ok"),
        (HISTORY, 499, MASTER, "stale"),
        (ANOTHER, 999, MASTER, "unknown"),
        (None, None, MASTER, "unknown"),
        (HISTORY, 500, None, "unknown"),
    ],
)
def test_freshness(
    repl_id: str | None, offset: int | None, master: Position | None, expected: str
) -> None:
    assert manifest.freshness(repl_id, offset, master) == expected


def test_ids() -> None:
    made = manifest.make_id(1767323045.9, "redis-2")
    assert made == ID
    assert manifest.id_time(made) == 1767323045
    assert manifest.id_host(made) == "redis-2"
    for wrong in ("20261302T030405Z-redis-2", "20260102T030405-redis-2", "../x", "", ID + "/"):
        with pytest.raises(ToolError):
            manifest.id_time(wrong)


def chain(events: list[tuple[str, str]]) -> bytes:
    """The bytes of a catalogue with these events and ids."""
    lines, head = [], catalogue_format.FIRST_PREVIOUS
    for number, (event, backup_id) in enumerate(events):
        drilled = event == "drilled"
        line = catalogue_format.encode(
            Entry(
                event=event,
                id=backup_id,
                set=SET,
                at=timestamp(1_700_000_000 + number),
                manifest_sha256="1" * 64,
                host="redis-2",
                n=number + 1,
                previous=head,
                kind="nightly" if event == "accepted" else None,
                fork_time=manifest.id_time(backup_id) if event == "accepted" else None,
                keys=0 if event == "accepted" else None,
                size=1 if event == "accepted" else None,
                stored_size=1 if event == "accepted" else None,
                drill_id=ID if drilled else None,
                level="load" if drilled else "form" if event == "accepted" else None,
                verdict="passed" if drilled else None,
            )
        )
        lines.append(line + b"\n")
        head = catalogue_format.line_hash(line)
    return b"".join(lines)


def backup(number: int) -> str:
    """An id."""
    return f"202601{number + 1:02d}T000000Z-redis-2"


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Events that may follow each other."""
    events: list[tuple[str, str]] = []
    for number in range(draw(st.integers(2, 6))):
        events.append(("accepted", backup(number)))
        events += [("drilled", backup(number))] * draw(st.integers(0, 2))
    if draw(st.booleans()):
        events.append(("pruned", backup(0)))
    return events


def test_reading_a_catalogue_takes_no_longer_per_line_when_it_is_long() -> None:
    """Twelve times the lines: what looks at all lines for each would take 144 times as long."""

    def seconds(backups: int) -> float:
        ids = [manifest.make_id(1_700_000_000 + number, "redis-2") for number in range(backups)]
        raw = chain([(event, item) for item in ids for event in ("accepted", "drilled")])
        best = []
        for _ in range(3):
            start = time.process_time()
            known = catalogue_format.parse(raw, SET)
            assert sum(len(known.drills(item)) for item in ids) == backups
            assert not any(known.has_drill(item) for item in ids)
            best.append(time.process_time() - start)
        return min(best)

    assert seconds(4800) < 24 * seconds(400)


@given(histories())
def test_a_catalogue_says_what_must_be_in_the_store(events: list[tuple[str, str]]) -> None:
    read = catalogue_format.parse(chain(events), SET)
    assert [(entry.event, entry.id) for entry in read.entries] == events
    accepted = [identity for event, identity in events if event == "accepted"]
    gone = {identity for event, identity in events if event == "pruned"}
    assert list(read.present()) == [identity for identity in accepted if identity not in gone]
    newest = read.newest()
    assert newest is not None
    assert newest.id == [identity for identity in accepted if identity not in gone][-1]


def test_the_order_is_that_of_the_server_not_of_the_hosts_clocks() -> None:
    events = [("accepted", backup(number)) for number in (3, 1, 2)]
    read = catalogue_format.parse(chain([*events, ("drilled", backup(3))]), SET)
    assert list(read.present()) == [backup(3), backup(1), backup(2)]
    newest = read.newest()
    assert newest is not None
    assert newest.id == backup(2)
    read = catalogue_format.parse(chain([*events, ("pruned", backup(2))]), SET)
    newest = read.newest()
    assert newest is not None
    assert newest.id == backup(1)


@given(histories(), st.data())
def test_any_change_before_the_last_line_is_seen(
    events: list[tuple[str, str]], data: st.DataObject
) -> None:
    lines = chain(events).splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    kind = data.draw(st.sampled_from(["remove", "swap", "repeat", "flip"]))
    changed = list(lines)
    if kind == "remove":
        del changed[at]
    elif kind == "swap":
        changed[at], changed[at + 1] = changed[at + 1], changed[at]
    elif kind == "repeat":
        changed.insert(at, changed[at])
    else:
        position = data.draw(st.integers(0, len(lines[at]) - 2))
        raw = bytearray(lines[at])
        raw[position] ^= 1
        changed[at] = bytes(raw)
    with pytest.raises(CatalogueError, match=rf"^{SET}/catalogue.jsonl"):
        catalogue_format.parse(b"".join(changed), SET)


@given(histories(), st.integers(1, 60))
def test_a_line_cut_short_is_no_line(events: list[tuple[str, str]], cut: int) -> None:
    raw = chain(events)
    read = catalogue_format.parse(raw[:-cut], SET)
    assert read.torn
    assert len(read.entries) == len(events) - 1
    assert raw[: read.complete_bytes].count(b"\n") == len(events) - 1


@pytest.mark.parametrize(
    "events",
    [
        [("accepted", backup(0)), ("accepted", backup(0))],
        [("drilled", backup(0))],
        [("pruned", backup(0))],
        [("accepted", backup(0)), ("pruned", backup(0)), ("pruned", backup(0))],
        [("accepted", backup(0)), ("pruned", backup(0)), ("accepted", backup(0))],
        [("forged", backup(0))],
    ],
)
def test_events_that_cannot_follow_each_other(events: list[tuple[str, str]]) -> None:
    with pytest.raises(CatalogueError):
        catalogue_format.parse(chain(events), SET)


def test_a_catalogue_of_another_set() -> None:
    with pytest.raises(CatalogueError, match="is about set redis"):
        catalogue_format.parse(chain([("accepted", backup(0))]), "other")


PLACE = Transport("10.0.0.9", 873, "redis-2", "secret", "inbox-redis-2")


@pytest.mark.parametrize(
    ("code", "stderr", "word", "transient"),
    [
        (5, "@ERROR: auth failed on module inbox-redis-2", "wrong rsync secret", False),
        (5, "@ERROR: Unknown module 'inbox-redis-2'", "has no module", False),
        (5, "@ERROR: access denied to inbox-redis-2 from x (10.0.0.2)", "hosts allow", False),
        (5, "@ERROR: max connections (4) reached -- try again later", "too many", True),
        (10, "rsync: failed to connect: Connection refused (111)", "is the rsync daemon", True),
        (10, "rsync: failed to connect: No route to host (113)", "cannot be reached", True),
        (35, "", "cannot be reached", True),
        (10, "rsync: [sender] write error: Broken pipe (32)", "the connection broke", True),
        (5, "rsync: didn't get server startup line", "broke at its beginning", True),
        (30, "", "time-out", True),
        (12, "rsync error: error in rsync protocol data stream", "connection broke", True),
        (11, "rsync: write failed: No space left on device (28)", "no room", False),
        (11, "rsync: write failed on x: File too large (27)", "larger than it was", False),
        (23, 'rsync: link_stat "/x" failed: No such file or directory (2)', "not there", False),
        (23, "rsync: [generator] failed to set times", "not transferred", True),
        (1, "ERROR: module is write only", "does not allow", False),
        (99, "", "code 99", False),
    ],
)
def test_what_rsync_says(code: int, stderr: str, word: str, transient: bool) -> None:
    failure = rsync.explain(code, stderr, PLACE, "inbox-redis-2")
    assert word in failure.message
    assert failure.transient is transient
    assert "secret" not in failure.message.replace("rsync secret", "")


def test_every_reason_for_no_module_is_named() -> None:
    """A daemon that lists none says the same to a stranger, and so does somebody else's."""
    stderr = "@ERROR: Unknown module 'inbox-redis-2'"
    said = rsync.explain(5, stderr, PLACE, "inbox-redis-2").message
    assert runbooks.is_seen("backup-server-unreachable#unknown", said), said


def test_secrets_are_not_shown_by_accident() -> None:
    assert "secret'" not in repr(PLACE)
    assert json.dumps(rsync.environment("x"))
    assert set(rsync.environment("x")) == {"PATH", "LC_ALL", "RSYNC_PASSWORD"}
