"""A replication set as its instances describe themselves: read, checked, put into words. No I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.redis_history import NO_ID, Position

VIRGIN = "virgin"
UP = "up"
DOWN = "down"
UNREACHABLE = "unreachable"
AUTH_REFUSED = "auth_refused"
NOT_OURS = "not_ours"
STATES = (VIRGIN, UP, DOWN, UNREACHABLE, AUTH_REFUSED, NOT_OURS)

MASTER = "master"
REPLICA = "replica"

# What is said of a host as long as nothing is known of it: the keys of an instance besides `host`,
# `address` and `port`.
UNKNOWN: Mapping[str, Any] = {
    "state": UNREACHABLE,
    "role": None,
    "master_host": None,
    "master_port": None,
    "link_up": False,
    "offset": None,
    "replid": "",
    "replid2": NO_ID,
    "second_offset": -1,
    "backlog_active": False,
    "keys": 0,
    "connected_replicas": 0,
    "replicas": (),
    "keys_on_disk": False,
    "file_replicaof": None,
    "refuses_replicas": False,
    "passwords_settled": True,
    "operation": "",
    "last_change": None,
    "detail": "Ansible cannot reach this host",
}

Endpoint = tuple[str, int]


class TopologyError(ValueError):
    """The description of the hosts is incomplete or contradicts itself."""


class Instance(NamedTuple):
    """What is known of one host of the set."""

    host: str
    address: str
    port: int
    state: str
    role: str | None
    master: Endpoint | None  # whom a replica that is up follows
    link_up: bool
    offset: int | None
    position: Position | None  # of one that is up, where it is known
    backlog_active: bool  # as long as it is, the replication id of a master stays
    keys: int  # in memory, over all databases
    connected_replicas: int
    keys_on_disk: bool
    file_replicaof: Endpoint | None
    operation: str  # a switchover or a restore that is at work there; empty for none
    detail: str
    aliases: tuple[str, ...]  # further names and addresses of it

    @property
    def endpoint(self) -> Endpoint:
        return self.address, self.port

    @property
    def up_master(self) -> bool:
        return self.state == UP and self.role == MASTER

    @property
    def up_replica(self) -> bool:
        return self.state == UP and self.role == REPLICA

    def is_at(self, endpoint: Endpoint | None) -> bool:
        """Is this the host that somebody means by this address and port?"""
        return any(same_endpoint(endpoint, (name, self.port)) for name in self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Its address and the aliases of that."""
        return (self.address, *self.aliases)


class Consent(NamedTuple):
    """An entry of redis_rejoin_as_replica: what a host may lose, as the run that asks shows it."""

    host: str
    offset: str

    def __str__(self) -> str:
        return f"{self.host}@{self.offset}"

    def covers(self, instance: Instance) -> bool:
        """Whether it is about the data that this instance has now.

        What a replica gets over a link that is up is at the other end too, so its offset may have
        moved since.
        """
        if self.host != instance.host:
            return False
        return instance.link_up or self.offset == offset_text(instance)


class Set(NamedTuple):
    """All instances of a set, and what the inventory says of it."""

    instances: tuple[Instance, ...]
    intended: Instance
    rejoin: tuple[Consent, ...]

    def may_lose(self, instance: Instance) -> bool:
        """Whether the data of this instance may be given up."""
        return any(consent.covers(instance) for consent in self.rejoin)

    def in_state(self, *states: str) -> list[Instance]:
        return [instance for instance in self.instances if instance.state in states]

    @property
    def masters(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.up_master]

    @property
    def replicas(self) -> list[Instance]:
        return [instance for instance in self.instances if instance.up_replica]

    def at(self, endpoint: Endpoint | None) -> Instance | None:
        return next((instance for instance in self.instances if instance.is_at(endpoint)), None)

    def any_keys(self, besides: Instance) -> bool:
        return any(n.keys or n.keys_on_disk for n in self.instances if n is not besides)


# --- input -----------------------------------------------------------------------------------


def read(
    instances: Sequence[Mapping[str, Any]], intended_master: str, rejoin: Collection[str]
) -> Set:
    """The set from mappings as `redis_topology.decide` takes them. Raises TopologyError."""
    if isinstance(rejoin, str):
        raise TopologyError("rejoin_as_replica has to be a list of hosts")
    found = tuple(_instance(data) for data in instances)
    hosts = [instance.host for instance in found]
    if len(set(hosts)) != len(hosts):
        raise TopologyError(f"a host is described twice: {enumeration(hosts)}")
    for instance in found:
        twin = next(other for other in found if other.is_at(instance.endpoint))
        if twin is not instance:
            raise TopologyError(
                f"{twin.host} and {instance.host} have the same address"
                f" {endpoint_text(instance.endpoint)};"
                " give each its own redis_address or redis_port"
            )
    consents = tuple(_consent(entry) for entry in rejoin)
    unknown = sorted({consent.host for consent in consents} - set(hosts))
    if unknown:
        raise TopologyError(
            f"redis_rejoin_as_replica names {enumeration(unknown)}, no host of this set"
        )
    intended = next((instance for instance in found if instance.host == intended_master), None)
    if intended is None:
        raise TopologyError(
            f"the master of the inventory, {intended_master!r}, is no host of this set"
            f" ({enumeration(hosts) if hosts else 'which has no hosts'})"
        )
    return Set(found, intended, consents)


def _consent(entry: Any) -> Consent:
    host, _, offset = str(entry).rpartition("@")
    if not host or not (offset.isdigit() or offset == "unknown"):
        raise TopologyError(
            f"redis_rejoin_as_replica has {entry!r}; an entry is HOST@OFFSET, as the run that asks"
            " for it shows it, such as redis-1@1234"
        )
    return Consent(host, offset)


def _instance(data: Mapping[str, Any]) -> Instance:
    if not isinstance(data, Mapping):
        raise TopologyError(f"a host is described by {type(data).__name__}, not by a mapping")
    host = data.get("host")
    if not isinstance(host, str) or not host:
        raise TopologyError("a host is described without its name")
    state = data.get("state")
    if state not in STATES:
        raise TopologyError(f"{host}: state {state!r} is none of {', '.join(STATES)}")
    # A default for one of these could be what makes a data-bearing host look empty.
    needed = ["address", "port"]
    if state == UP:
        needed += ["role", "keys", "connected_replicas"]
    if state in (UP, DOWN):
        needed += ["keys_on_disk", "file_replicaof"]
    missing = [name for name in needed if name not in data]
    if missing:
        raise TopologyError(f"{host}: {enumeration(missing)} is not given")
    role = data.get("role")
    if state == UP and role not in (MASTER, REPLICA):
        raise TopologyError(f"{host}: role {role!r} is neither {MASTER} nor {REPLICA}")
    instance = Instance(
        host=host,
        address=str(data["address"]),
        port=_integer(host, data, "port"),
        state=str(state),
        role=str(role) if state == UP else None,
        master=_endpoint(host, data.get("master_host"), data.get("master_port")),
        link_up=data.get("link_up") is True,
        offset=None if data.get("offset") is None else _integer(host, data, "offset"),
        position=_position(host, data) if state == UP else None,
        backlog_active=_boolean(host, data, "backlog_active"),
        keys=_integer(host, data, "keys") if state == UP else 0,
        connected_replicas=_integer(host, data, "connected_replicas") if state == UP else 0,
        keys_on_disk=_boolean(host, data, "keys_on_disk"),
        file_replicaof=_endpoint(host, *(data.get("file_replicaof") or (None, None))),
        operation=str(data.get("operation") or ""),
        detail=str(data.get("detail") or ""),
        aliases=tuple(str(name) for name in data.get("aliases") or ()),
    )
    if state == VIRGIN and instance.keys_on_disk:
        raise TopologyError(f"{host}: it cannot be {VIRGIN} and have keys on disk")
    return instance


def _integer(host: str, data: Mapping[str, Any], name: str) -> int:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TopologyError(f"{host}: {name} is {value!r}, not a number")
    try:
        return int(value)
    except ValueError:
        raise TopologyError(f"{host}: {name} is {value!r}, not a number") from None


def _position(host: str, data: Mapping[str, Any]) -> Position | None:
    if data.get("offset") is None or not data.get("replid"):
        return None
    return Position(
        str(data["replid"]),
        _integer(host, data, "offset"),
        str(data.get("replid2") or NO_ID),
        _integer(host, {"second_offset": data.get("second_offset", -1)}, "second_offset"),
    )


def _boolean(host: str, data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise TopologyError(f"{host}: {name} is {value!r}, neither true nor false")
    return value


def _endpoint(host: str, address: Any, port: Any) -> Endpoint | None:
    if not address:
        return None
    return str(address), _integer(host, {"port of the master": port}, "port of the master")


def same_endpoint(one: Endpoint | None, other: Endpoint | None) -> bool:
    """Whether two addresses with ports are the same, in whatever form they are written."""
    if one is None or other is None:
        return one is other
    return one[1] == other[1] and _same_form(one[0]) == _same_form(other[0])


def _same_form(address: str) -> str:
    """One form for addresses that are equal: `::1` and `0:0::1`, names in any case."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")


# --- words -----------------------------------------------------------------------------------


def line_of(group: Set, instance: Instance) -> str:
    """What an instance said, in one line."""
    return f"{instance.host} ({endpoint_text(instance.endpoint)}): {_describe(group, instance)}" + (
        f" ({instance.detail})" if instance.detail else ""
    )


def _describe(group: Set, instance: Instance) -> str:
    if instance.state == VIRGIN:
        return "no data"
    if instance.state == UNREACHABLE:
        return "cannot be reached"
    if instance.state == AUTH_REFUSED:
        return "refused the password"
    if instance.state == NOT_OURS:
        return "not ours"
    file_says = (
        f"its file says replica of {_whom(group, instance.file_replicaof)}"
        if instance.file_replicaof
        else "its file says master"
    )
    if instance.state == DOWN:
        keys = "with keys" if instance.keys_on_disk else "without keys"
        return f"down, {keys} on disk, offset {offset_text(instance)}, {file_says}"
    if instance.role == MASTER:
        return (
            f"master, {_count(instance.keys, 'key')},"
            f" {_count(instance.connected_replicas, 'replica')},"
            f" offset {offset_text(instance)}, {file_says}"
        )
    return (
        f"replica of {_whom(group, instance.master)}, link {'up' if instance.link_up else 'down'},"
        f" {_count(instance.keys, 'key')}, offset {offset_text(instance)}, {file_says}"
    )


def _whom(group: Set, endpoint: Endpoint | None) -> str:
    instance = group.at(endpoint)
    return instance.host if instance else f"{endpoint_text(endpoint)}, outside the set"


def endpoint_text(endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return "nobody"
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def offset_text(instance: Instance) -> str:
    return "unknown" if instance.offset is None else str(instance.offset)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def names(instances: Iterable[Instance]) -> str:
    return enumeration([instance.host for instance in instances])


def enumeration(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def has(instances: Sequence[Instance]) -> str:
    return "has" if len(instances) == 1 else "have"


def follow(instances: Sequence[Instance]) -> str:
    return "follows" if len(instances) == 1 else "follow"
