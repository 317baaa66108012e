"""What a change of settings would cost: keys that go, writes and clients that are refused. No I/O.

A setting that only makes a server slower, less durable or less tidy has no consequence here, nor
has one that closes a connection which can be opened again at once (`timeout`, and output buffer
limits, which value_forms.py keeps from being too small for any answer): nothing is gone by it.
Judged is what gets worse by this change. A server that is over its limit already, or that refuses
writes today, has been agreed to.

One file of all rules, as each is short and they judge the same case.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import fold
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import Planned

MIB = 1 << 20
_LEAST_FOR_CLIENTS = 128 << 10  # what a server takes a lower maxmemory-clients for
_SLOT = 8  # bytes of a slot in a table of keys
_ANY = {"*": "0.0.0.0", "::*": "::"}  # noqa: S104  # the ways to say all addresses


class Consequence(NamedTuple):
    """What one setting would cost on one server.

    Attributes:
        subject: the directive, by today's name.
        number: how much; more of it is worse.
        unit: of what, as a word of an entry.
        sentence: all of it for a person.
    """

    subject: str
    number: int
    unit: str
    sentence: str


class Seen(NamedTuple):
    """What a running server says of itself.

    Attributes:
        config: CONFIG GET, whole.
        info: INFO by sections, as `redis_info.parse_info` tells it.
        clients: the lines of CLIENT LIST; only asked for when `bind` changes.
    """

    config: Mapping[str, str]
    info: Mapping[str, Any]
    clients: Sequence[str] = ()

    @property
    def databases(self) -> dict[int, Mapping[str, int]]:
        return {int(number): counts for number, counts in self.info.get("keyspace", {}).items()}

    @property
    def keys(self) -> int:
        return sum(counts["keys"] for counts in self.databases.values())

    @property
    def is_master(self) -> bool:
        return bool(self.info["replication"]["role"] == "master")


Settings = Mapping[str, str]


class Case(NamedTuple):
    """What the rules judge: settings by today's names, in their normal form."""

    changed: Settings
    running: Settings
    wanted: Settings
    seen: Seen

    def subject(self, *names: str) -> str | None:
        """The first of these settings that changes."""
        return next((name for name in names if name in self.changed), None)


# --- a running server ------------------------------------------------------------------------


def consequences(planned: Sequence[Planned], seen: Seen) -> list[Consequence]:
    """What the planned changes of a running server would cost; nothing on one without keys."""
    if not seen.keys:
        return []
    running = {fold(name): normalise(name, [value]) for name, value in seen.config.items()}
    changed = {
        fold(change.name): normalise(change.name, [change.desired or ""]) for change in planned
    }
    case = Case(changed, running, {**running, **changed}, seen)
    rules = (
        _memory,
        _writes_without_replicas,
        _writes_without_saves,
        _databases,
        _clients,
        _memory_of_clients,
        _first_password,
        _addresses,
        _cluster,
    )
    found = (rule(case) for rule in rules)
    return [one for one in found if one is not None]


class _Eviction(NamedTuple):
    """What a limit of memory does to a server that is judged as a master."""

    keys: int
    missing: int  # bytes that no eviction frees: writes are refused


def _memory(case: Case) -> Consequence | None:
    subject = case.subject("maxmemory", "maxmemory-policy", "replica-ignore-maxmemory")
    if subject is None:
        return None
    wanted, keys, is_master = case.wanted, case.seen.keys, case.seen.is_master
    obeys = is_master or wanted.get("replica-ignore-maxmemory") == "no"
    before, after = _evicted(case.running, case.seen), _evicted(wanted, case.seen)
    if subject == "replica-ignore-maxmemory":
        if is_master or not obeys:
            return None
        before = _Eviction(0, 0)
    text = (
        f"maxmemory {_size(int(wanted['maxmemory']))} is below the {_size(_counted(case.seen))} in "
        f"use, so with {wanted['maxmemory-policy']} "
    )
    later = "" if obeys else "; a replica, as this one is, does so when it is promoted"
    if after.keys > before.keys:
        amount = f"all {keys}" if after.keys == keys else f"about {after.keys} of {keys}"
        text += f"{amount} keys are deleted at once"
        text += ", and then every write is refused (OOM)" if after.missing else ""
        return Consequence(subject, after.keys, "keys", f"{text}{later}.")
    if after.missing and not before.missing:
        text += f"every write is refused (OOM) until {_size(after.missing)} are free"
        return Consequence(subject, -(-after.missing // MIB), "MiB-missing", f"{text}{later}.")
    return None


def _counted(seen: Seen) -> int:
    """The memory that the server holds against its limit: not the buffers that empty themselves."""
    memory = seen.info["memory"]
    return int(memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0))


def _evicted(values: Settings, seen: Seen) -> _Eviction:
    limit = int(values["maxmemory"])
    over = _counted(seen) - limit
    if limit == 0 or over <= 0:
        return _Eviction(0, 0)
    policy = values["maxmemory-policy"]
    if policy == "noeviction":
        return _Eviction(0, over)
    candidates = seen.keys
    if policy.startswith("volatile-"):
        candidates = sum(counts["expires"] for counts in seen.databases.values())
    each = _bytes_of_a_key(seen)
    freed = int(candidates * each)
    if over > freed:
        return _Eviction(candidates, over - freed)
    return _Eviction(min(candidates, -(-over // max(1, int(each)))), 0)


def _bytes_of_a_key(seen: Seen) -> float:
    """What the deletion of a key frees on average: the tables of keys stay as large as they are."""
    memory = seen.info["memory"]
    fixed = sum(
        int(memory.get(name, 0))
        for name in (
            "used_memory_startup",
            "mem_clients_normal",
            "mem_clients_slaves",
            "mem_replication_backlog",
            "mem_aof_buffer",
            "used_memory_scripts",
        )
    )
    for counts in seen.databases.values():
        fixed += _SLOT * (_table(counts["keys"]) + _table(counts["expires"]))
    return max(1.0, (int(memory["used_memory"]) - fixed) / seen.keys)


def _table(entries: int) -> int:
    """Slots of a table with so many entries: the next power of two."""
    return 1 << (entries - 1).bit_length() if entries else 0


def _writes_without_replicas(case: Case) -> Consequence | None:
    subject = case.subject("min-replicas-to-write", "min-replicas-max-lag")
    missing = _missing_replicas(case.wanted, case.seen)
    if (
        subject is None
        or not case.seen.is_master
        or missing <= _missing_replicas(case.running, case.seen)
    ):
        return None
    asked, lag = int(case.wanted["min-replicas-to-write"]), int(case.wanted["min-replicas-max-lag"])
    return Consequence(
        subject,
        missing,
        "replicas-missing",
        f"With min-replicas-to-write {asked} every write is refused (NOREPLICAS), as "
        f"{int(asked) - missing} replicas are in sync and no more than {lag} s behind.",
    )


def _missing_replicas(values: Settings, seen: Seen) -> int:
    asked, lag = int(values["min-replicas-to-write"]), int(values["min-replicas-max-lag"])
    if not asked or not lag:  # either turns the rule off
        return 0
    good = sum(
        replica["state"] == "online" and replica["lag"] <= lag
        for replica in seen.info["replication"].get("replicas", [])
    )
    return max(0, asked - int(good))


def _writes_without_saves(case: Case) -> Consequence | None:
    subject = case.subject("stop-writes-on-bgsave-error", "save")
    failed = case.seen.info["persistence"]["rdb_last_bgsave_status"] != "ok"

    def stops(values: Settings) -> bool:
        return values["stop-writes-on-bgsave-error"] == "yes" and values["save"] != ""

    if subject is None or not failed or not stops(case.wanted) or stops(case.running):
        return None
    return Consequence(
        subject,
        1,
        "failed-save",
        "The last snapshot of this server failed, so with stop-writes-on-bgsave-error yes every "
        "write is refused (MISCONF) until one succeeds; its log says why it failed.",
    )


def _databases(case: Case) -> Consequence | None:
    if "databases" not in case.changed:
        return None
    limit = int(case.wanted["databases"])
    beyond = {
        number: counts["keys"] for number, counts in case.seen.databases.items() if number >= limit
    }
    keys = sum(beyond.values())
    if not keys:
        return None
    which = ", ".join(str(number) for number in sorted(beyond))
    return Consequence(
        "databases",
        keys,
        "keys",
        f"databases {limit} leaves 0 to {limit - 1}, and {keys} keys are in database {which}: "
        "after its restart the server does not load its snapshot with them, and from an "
        "append-only file it puts them into another database.",
    )


def _clients(case: Case) -> Consequence | None:
    connected = _connected(case.seen)
    if "maxclients" not in case.changed:
        return None
    # One place is for the connection by which this is asked: a role that cannot log in is lost.
    too_many = connected + 1 - int(case.wanted["maxclients"])
    if too_many <= max(0, connected + 1 - int(case.running["maxclients"])):
        return None
    return Consequence(
        "maxclients",
        too_many,
        "clients",
        f"maxclients {case.wanted['maxclients']} is too few for the {connected} clients and "
        f"replicas that are connected, and for this role: {too_many} find no place when they come "
        "back.",
    )


def _connected(seen: Seen) -> int:
    """Clients and replicas besides the connection that asks."""
    replicas = int(seen.info["replication"].get("connected_slaves", 0))
    return max(0, int(seen.info["clients"]["connected_clients"]) - 1 + replicas)


def _memory_of_clients(case: Case) -> Consequence | None:
    if "maxmemory-clients" not in case.changed:
        return None
    used = int(case.seen.info["memory"].get("mem_clients_normal", 0))

    def exceeded(values: Settings) -> bool:
        limit = values.get("maxmemory-clients", "0")
        if limit.endswith("%"):
            limit = str(int(limit[:-1]) * int(values["maxmemory"]) // 100)
        return limit != "0" and max(_LEAST_FOR_CLIENTS, int(limit)) < used

    if not exceeded(case.wanted) or exceeded(case.running):
        return None
    connected = _connected(case.seen)
    return Consequence(
        "maxmemory-clients",
        max(1, connected),
        "clients",
        f"maxmemory-clients {case.wanted['maxmemory-clients']} is below the {_size(used)} that the "
        f"{connected} connected clients take: the server throws clients out, again and again.",
    )


def _first_password(case: Case) -> Consequence | None:
    subject = case.subject("requirepass", "aclfile")
    open_now = not case.running.get("requirepass") and not case.running.get("aclfile")
    clients = max(0, int(case.seen.info["clients"]["connected_clients"]) - 1)
    if subject is None or not open_now or not clients or not case.wanted.get(subject):
        return None
    return Consequence(
        subject,
        clients,
        "clients",
        f"The server asks for no password today. With {subject}, those of the {clients} connected "
        "clients that send none are refused (NOAUTH) when they connect again.",
    )


def _addresses(case: Case) -> Consequence | None:
    if "bind" not in case.changed:
        return None
    listened = [word.lstrip("-") for word in case.wanted["bind"].split()]
    reached: dict[str, int] = {}
    for line in case.seen.clients:
        local = re.search(r"\bladdr=(\S+):\d+", line)
        if local and not _listens(listened, local[1].strip("[]")):
            reached[local[1]] = reached.get(local[1], 0) + 1
    number = sum(reached.values())
    if not any(" laddr=" in line for line in case.seen.clients):
        return _addresses_by_peers(case, listened)
    if not number:
        return None
    return Consequence(
        "bind",
        number,
        "clients",
        f"With bind {case.wanted['bind']} the server no longer listens on "
        f"{', '.join(sorted(reached))}, by which {number} clients and replicas are connected: they "
        "are refused when they connect again.",
    )


def _addresses_by_peers(case: Case, listened: Sequence[str]) -> Consequence | None:
    """Before 6.2, CLIENT LIST does not tell by which address of the server a client came: any that
    is on another host may have come by one that goes."""
    before = [word.lstrip("-") for word in case.running["bind"].split()] or ["*", "::*"]
    gone = [word for word in before if not _is_loopback(word) and not _listens(listened, word)]
    peers = [
        found[1].strip("[]")
        for line in case.seen.clients
        # Neither the connection that asks nor the one that this server has opened to its master.
        if (found := re.search(r"\baddr=(\S+):\d+", line))
        and not re.search(r"\bflags=\S*M|\bcmd=client\b", line)
    ]
    number = sum(not _is_loopback(peer) for peer in peers)
    if not gone or not number:
        return None
    return Consequence(
        "bind",
        number,
        "clients",
        f"With bind {case.wanted['bind']} the server no longer listens on {', '.join(gone)}. This "
        f"release does not tell who is connected by which address: as many as all {number} clients "
        "and replicas of other hosts are refused when they connect again.",
    )


def _is_loopback(address: str) -> bool:
    """Whether nobody on another host is reached by it; a name or the path of a socket is."""
    try:
        return ipaddress.ip_address(_ANY.get(address, address)).is_loopback
    except ValueError:
        return True


def _listens(listened: Iterable[str], address: str) -> bool:
    """Whether a server that is bound to these is reached by the address of its own."""
    try:
        asked = ipaddress.ip_address(_ANY.get(address, address))
    except ValueError:  # a unix socket
        return True
    for word in listened:
        try:
            bound = ipaddress.ip_address(_ANY.get(word, word))
        except ValueError:
            return True  # a name, and nobody here knows what it means
        if bound == asked or (bound.is_unspecified and bound.version == asked.version):
            return True
    return False


def _cluster(case: Case) -> Consequence | None:
    if case.changed.get("cluster-enabled") != "yes":
        return None
    return Consequence(
        "cluster-enabled",
        case.seen.keys,
        "keys",
        "A server that starts as one of a Redis Cluster has no slots: none of its "
        f"{case.seen.keys} keys can be read or written (CLUSTERDOWN).",
    )


# --- a stopped server ------------------------------------------------------------------------


def consequences_of_files(
    current: Settings, wanted: Settings, used_memory: int | None
) -> list[Consequence]:
    """What is known of a stopped server that has data: its file, the wanted one, and the memory
    that it used when its newest snapshot was taken (the field `used-mem` of the file)."""
    found = []
    limit, before = int(wanted.get("maxmemory") or 0), int(current.get("maxmemory") or 0)
    if used_memory and 0 < limit < used_memory and (before == 0 or limit < before):
        policy = wanted.get("maxmemory-policy", "noeviction")
        what = "refuses every write" if policy == "noeviction" else "deletes keys"
        found.append(
            Consequence(
                "maxmemory",
                -(-(used_memory - limit) // MIB),
                "MiB-missing",
                f"maxmemory {_size(limit)} is below the {_size(used_memory)} that this server used "
                f"when it saved its data last: started with {policy}, it {what} at once. It is "
                "stopped, so no more can be known; start it with the old limit to see how many.",
            )
        )
    count, fewer = int(current.get("databases") or 16), int(wanted.get("databases") or 16)
    if fewer < count:
        found.append(
            Consequence(
                "databases",
                count - fewer,
                "databases",
                f"The server is stopped, and its file says databases {count}. Where keys lie in "
                f"databases {fewer} to {count - 1}, it does not load its snapshot with databases "
                f"{fewer}. Start it with {count}, and the next run sees which of them are in use.",
            )
        )
    if wanted.get("cluster-enabled") == "yes" != current.get("cluster-enabled"):
        found.append(
            Consequence(
                "cluster-enabled",
                1,
                "server",
                "A server that starts as one of a Redis Cluster has no slots: none of its keys can "
                "be read or written (CLUSTERDOWN).",
            )
        )
    return found


def _size(number: int) -> str:
    return f"{number / MIB:.1f} MiB" if number >= MIB else f"{number} bytes"
