"""Values in a form that can be compared and written as JSON: as a server hands them out, and as the
walker reads them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from redis_backup.rdb import walker
from redis_backup.rdb.values import Idempotence, Stream

from tests.support.servers import Server

Keys = dict[str, dict[str, dict[str, Any]]]

_LONG = 80


def text(data: bytes) -> str:
    """Bytes as text, one character each; long ones by length and hash."""
    if len(data) > _LONG:
        return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"
    return data.decode("latin-1")


def _list(elements: list[bytes]) -> list[str]:
    if len(elements) <= _LONG:
        return [text(element) for element in elements]
    return [f"{len(elements)} elements", text(b",".join(elements))]


def _id(pair: tuple[int, int] | None) -> str | None:
    return None if pair is None else f"{pair[0]}-{pair[1]}"


def walked(path: Path) -> Keys:
    """All keys of an RDB: database, key, then type, expiry and value."""
    keys: Keys = {}
    for entry in walker.entries(path):
        place = keys.setdefault(str(entry.db), {})
        name = text(entry.key)
        assert name not in place
        place[name] = {
            "kind": entry.kind,
            "expire": entry.expire,
            "value": _plain(entry.kind, entry.value),
        }
    return keys


def _plain(kind: str, value: Any) -> Any:
    if kind == "string":
        return text(value)
    if kind == "list":
        return _list(value)
    if kind == "set":
        return sorted(text(member) for member in value)
    if kind == "zset":
        return sorted([text(member), repr(score)] for member, score in value)
    if kind == "hash":
        return sorted(
            ([text(field), text(content), expire] for field, content, expire in value),
            key=lambda triple: str(triple[0]),
        )
    if kind == "stream":
        return _stream(value)
    assert kind == "module"
    return {
        "name": value.name,
        "version": value.encoding_version,
        "fields": [
            [code, text(field) if isinstance(field, bytes) else field]
            for code, field in value.fields
        ],
    }


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "entries": [
            [_id(number), [[text(field), text(value)] for field, value in pairs]]
            for number, pairs in stream.entries
        ],
        "last_id": _id(stream.last_id),
        "first_id": _id(stream.first_id),
        "max_deleted_id": _id(stream.max_deleted_id),
        "entries_added": stream.entries_added,
        **_idempotence(stream.idempotence),
        "groups": [
            {
                "name": text(group.name),
                "last_id": _id(group.last_id),
                "entries_read": group.entries_read,
                "pending": [[_id(number), time, count] for number, time, count in group.pending],
                "consumers": [
                    {
                        "name": text(consumer.name),
                        "seen": consumer.seen,
                        "active": consumer.active,
                        "pending": [_id(number) for number in consumer.pending],
                    }
                    for consumer in group.consumers
                ],
            }
            for group in stream.groups
        ],
    }


def _idempotence(found: Idempotence | None) -> dict[str, Any]:
    if found is None:
        return {}
    producers = [len(producer.ids) for producer in found.producers]
    numbers = [found.seconds, found.maximum, len(producers), sum(producers), found.added]
    return {"idempotence": [*numbers, found.duplicates]}


# What XINFO says of it, in that order.
_IDEMPOTENCE = (
    *("idmp-duration", "idmp-maxsize", "pids-tracked"),
    *("iids-tracked", "iids-added", "iids-duplicates"),
)


def served(server: Server, expires: bool = True) -> Keys:
    """All keys of a server that can be read. Without `expires`, none is asked for (null)."""
    keys: Keys = {}
    for number in server.keyspace():
        server("SELECT", number)
        for key in server("KEYS", "*"):
            kind = server("TYPE", key).decode()
            expire = server("PEXPIRETIME", key) if expires else -1
            keys.setdefault(number, {})[text(key)] = {
                "kind": kind,
                "expire": None if expire == -1 else expire,
                "value": _read(server, kind, key),
            }
    return keys


def _read(server: Server, kind: str, key: bytes) -> Any:
    if kind == "string":
        return text(server("GET", key))
    if kind == "list":
        return _list(server("LRANGE", key, 0, -1))
    if kind == "set":
        return sorted(text(member) for member in server("SMEMBERS", key))
    if kind == "zset":
        flat = server("ZRANGE", key, 0, -1, "WITHSCORES")
        return sorted(
            [text(member), repr(float(score))]
            for member, score in zip(flat[::2], flat[1::2], strict=True)
        )
    if kind == "hash":
        return _read_hash(server, key)
    assert kind == "stream"
    return _read_stream(server, key)


def _read_hash(server: Server, key: bytes) -> list[list[Any]]:
    flat = server("HGETALL", key)
    fields = flat[::2]
    times: list[int] = [-1] * len(fields)
    if int(server.binary.version.split(".")[0]) >= 8:
        times = server("HPEXPIRETIME", key, "FIELDS", len(fields), *fields)
    return sorted(
        (
            [text(field), text(value), None if time == -1 else time]
            for field, value, time in zip(fields, flat[1::2], times, strict=True)
        ),
        key=lambda triple: str(triple[0]),
    )


def _read_stream(server: Server, key: bytes) -> dict[str, Any]:
    info = _map(server("XINFO", "STREAM", key, "FULL", "COUNT", 0))
    groups = []
    for raw in info["groups"]:
        group = _map(raw)
        consumers = []
        for raw_consumer in group["consumers"]:
            consumer = _map(raw_consumer)
            consumers.append(
                {
                    "name": text(consumer["name"]),
                    "seen": consumer["seen-time"],
                    "active": consumer.get("active-time"),
                    "pending": [entry[0].decode() for entry in consumer["pending"]],
                }
            )
        groups.append(
            {
                "name": text(group["name"]),
                "last_id": group["last-delivered-id"].decode(),
                "entries_read": group.get("entries-read"),
                "pending": [[entry[0].decode(), entry[2], entry[3]] for entry in group["pending"]],
                "consumers": consumers,
            }
        )
    return {
        "entries": [
            [
                number.decode(),
                [[text(f), text(v)] for f, v in zip(flat[::2], flat[1::2], strict=True)],
            ]
            for number, flat in server("XRANGE", key, "-", "+")
        ],
        "last_id": info["last-generated-id"].decode(),
        "first_id": _decoded(info.get("recorded-first-entry-id")),
        "max_deleted_id": _decoded(info.get("max-deleted-entry-id")),
        "entries_added": info.get("entries-added"),
        **(
            {"idempotence": [info[name] for name in _IDEMPOTENCE]}
            if "idmp-duration" in info
            else {}
        ),
        "groups": groups,
    }


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _map(flat: list[Any]) -> dict[str, Any]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    # `pel` for what is called `pending` elsewhere
    return {{"pel": "pending"}.get(name.decode(), name.decode()): value for name, value in pairs}
