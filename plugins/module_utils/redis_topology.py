"""Who is the master of a replication set, decided from what its hosts say. Pure, no I/O.

The inventory's roles count only while no host has data. After that the live state does: a run must
never start a second master, and never make a host with data the replica of an empty one.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

VIRGIN = "virgin"
UP = "up"
DOWN = "down"
UNREACHABLE = "unreachable"
AUTH_REFUSED = "auth_refused"
NOT_OURS = "not_ours"
STATES = (VIRGIN, UP, DOWN, UNREACHABLE, AUTH_REFUSED, NOT_OURS)

MASTER = "master"
REPLICA = "replica"

PROCEED = "proceed"
STOP = "stop"

BOOTSTRAP = "bootstrap"
JOIN = "join"
START = "start"
REPOINT = "repoint"
KEEP = "keep"
PERSIST = "persist"

# What is said of a host as long as nothing is known of it: the keys of a node besides `host`,
# `address` and `port`.
UNKNOWN: Mapping[str, Any] = {
    "state": UNREACHABLE,
    "role": None,
    "master_host": None,
    "master_port": None,
    "link_up": False,
    "offset": None,
    "keys": 0,
    "connected_replicas": 0,
    "replicas": (),
    "keys_on_disk": False,
    "file_replicaof": None,
    "refuses_replicas": False,
    "passwords_settled": True,
    "detail": "Ansible cannot reach this host",
}

Endpoint = tuple[str, int]


class TopologyError(ValueError):
    """The description of the hosts is incomplete or contradicts itself."""


class Node(NamedTuple):
    """What is known of one host of the set."""

    host: str
    address: str
    port: int
    state: str
    role: str | None
    master: Endpoint | None  # whom a replica that is up follows
    link_up: bool
    offset: int | None
    keys: int  # in memory, over all databases
    connected_replicas: int
    keys_on_disk: bool
    file_replicaof: Endpoint | None
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
        if endpoint is None or endpoint[1] != self.port:
            return False
        wanted = _same_form(endpoint[0])
        return any(_same_form(name) == wanted for name in (self.address, *self.aliases))


class _Decision(NamedTuple):
    row: int
    reason: str
    master: Node | None = None
    start_first: Node | None = None
    does: Mapping[str, str] | None = None  # host -> what happens to it; None: stop


class _Set(NamedTuple):
    nodes: tuple[Node, ...]
    intended: Node
    rejoin: frozenset[str]

    def in_state(self, *states: str) -> list[Node]:
        return [node for node in self.nodes if node.state in states]

    @property
    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.up_master]

    @property
    def replicas(self) -> list[Node]:
        return [node for node in self.nodes if node.up_replica]

    def at(self, endpoint: Endpoint | None) -> Node | None:
        return next((node for node in self.nodes if node.is_at(endpoint)), None)

    def any_keys(self, besides: Node) -> bool:
        return any(n.keys or n.keys_on_disk for n in self.nodes if n is not besides)


def decide(
    nodes: Sequence[Mapping[str, Any]],
    intended_master: str,
    rejoin_as_replica: Collection[str] = (),
) -> dict[str, Any]:
    """Decide what every host of a replication set has to be.

    Each node is a mapping with `host`, `address`, `port` and `state` (one of STATES). With state
    `up` also `role`, `keys` (in memory, all databases), `connected_replicas`, `offset`, and for a
    replica `master_host`, `master_port`, `link_up`; with `down` also `offset` (None if unknown).
    Both have `keys_on_disk` and `file_replicaof` ([address, port] or None, from redis.conf).
    `detail` is shown to the reader, `aliases` are further names of the address. `virgin` means no
    data anywhere; a server that is still loading is waited for before it is described here.

    `intended_master` is the inventory's master; it counts only for a set without any data.
    `rejoin_as_replica` names hosts whose own data may be given up.

    The rows are tried in order, the first that matches decides:

    1. a host that refuses the password or is not ours: stop;
    2. two masters up that hold keys or have replicas: stop;
    3. a master up without keys, while another host has keys that it does not follow: stop;
    4. exactly one master up: it is the master;
    5. replicas up, no master: the one host that all of them name is started in place;
    6. none up, some with data: the one whose file has no replicaof starts first;
    7. all virgin: as the inventory says;
    8. anything else: stop.

    Returns `row`, `action` (`proceed` or `stop`), `master`, `start_first` (hosts or None), `plan`
    (host -> `role`, `replicaof` ([address, port] or None), `does`; every host when proceeding,
    empty when stopping), `reason` (one sentence) and `report` (a line per host).

    Raises TopologyError for a description that is incomplete or contradicts itself.
    """
    group = _read(nodes, intended_master, rejoin_as_replica)
    rows = (_row1, _row2, _row3, _row4, _row5, _row6, _row7)
    decision = next(filter(None, (row(group) for row in rows)), None) or _row8(group)
    plan = _plan(group, decision)
    return {
        "row": decision.row,
        "action": STOP if decision.does is None else PROCEED,
        "master": decision.master.host if decision.master else None,
        "start_first": decision.start_first.host if decision.start_first else None,
        "plan": plan,
        "reason": decision.reason,
        "report": [
            _line(group, node) + (f" -> {plan[node.host]['does']}" if plan else "")
            for node in group.nodes
        ],
    }


# --- the rows --------------------------------------------------------------------------------


def _row1(group: _Set) -> _Decision | None:
    said = []
    refused = group.in_state(AUTH_REFUSED)
    if refused:
        said.append(
            f"{_names(refused)} refused the password of the inventory: put back the one that works"
            " there, or, to change it without refusing a client, give the one that works as"
            " redis_previous_password beside the new one"
        )
    foreign = group.in_state(NOT_OURS)
    if foreign:
        said.append(
            f"{_names(foreign)} {_has(foreign)} a Redis or data that is not this instance's:"
            " nothing of it is touched"
        )
    return _Decision(1, "; ".join(said)) if said else None


def _row2(group: _Set) -> _Decision | None:
    bearing = [node for node in group.masters if node.keys or node.connected_replicas]
    if len(bearing) < 2:
        return None
    return _Decision(
        2,
        f"{_names(bearing)} are all masters with keys or replicas, and one of them would lose its"
        " data as a replica of another: choose, make the others replicas by REPLICAOF, and run"
        " again",
    )


def _row3(group: _Set) -> _Decision | None:
    for empty in group.masters:
        holders = [n for n in group.nodes if n is not empty and _has_other_keys(n, empty)]
        if empty.keys == 0 and holders:
            return _Decision(
                3,
                f"{empty.host} is a master without keys, but {_names(holders)} {_has(holders)}"
                " keys that an empty master would wipe: find out why it is empty, make the host"
                " with the right data the master, and run again",
            )
    return None


def _has_other_keys(node: Node, master: Node) -> bool:
    """Has this host keys that following the master would cost?

    A replica in sync has none: what it holds is what the master holds, and an older dump on its
    disk is only waiting for the next save (every key may just have expired).
    """
    if node.up_replica and node.link_up and master.is_at(node.master):
        return False
    return node.keys_on_disk or (node.state == UP and node.keys > 0)


def _row4(group: _Set) -> _Decision | None:
    if len(group.masters) != 1:
        return None
    (master,) = group.masters
    problems: list[tuple[int, str]] = []
    unreachable = group.in_state(UNREACHABLE)
    if unreachable:
        problems.append(
            (
                4,
                f"{master.host} is the master, but {_names(unreachable)} cannot be reached: bring"
                " it back or take it out of the inventory",
            )
        )
    problems += [
        (
            4,
            f"{node.host} is down and its own file says master: its data (offset"
            f" {_offset(node)}) may have writes that {master.host} (offset {_offset(master)})"
            " never got; to give them up, name it in redis_rejoin_as_replica",
        )
        for node in group.in_state(DOWN)
        if node.file_replicaof is None and node.host not in group.rejoin
    ]
    problems += [
        (
            8,
            f"{node.host} follows {_show(endpoint)}, which is no host of this set: if its data"
            f" may be replaced by that of {master.host}, name it in redis_rejoin_as_replica",
        )
        for node, endpoint in _outsiders(group)
    ]
    if problems:
        row = min(row for row, _text in problems)
        return _Decision(row, "; ".join(text for _row, text in problems), master)
    does = {}
    for node in group.nodes:
        if node is master:
            does[node.host] = KEEP if node.file_replicaof is None else PERSIST
        else:
            does[node.host] = _as_replica(node, master)
    return _Decision(4, f"{master.host} is up and the only master", master, None, does)


def _row5(group: _Set) -> _Decision | None:
    replicas = group.replicas
    if group.masters or not replicas or group.in_state(UNREACHABLE):
        return None
    named = {node.host: group.at(node.master) for node in replicas}
    master = named[replicas[0].host]
    no_master = f"no master is up, only {_names(replicas)}"
    by_hand = "make the host with the newest data the master (REPLICAOF NO ONE), and run again"
    strangers = [n for n in replicas if named[n.host] is None]
    if strangers:
        whom = _and(sorted({_show(node.master) for node in strangers}))
        problem = f"{_names(strangers)} {_follow(strangers)} {whom}, which is no host of this set"
    elif master is None or any(other is not master for other in named.values()):
        pairs = [f"{host} follows {node.host}" for host, node in named.items() if node]
        problem = f"they do not name one host: {_and(pairs)}"
    elif master.state == VIRGIN and group.any_keys(besides=master):
        problem = f"their master {master.host} has no data any more, and would wipe theirs"
    elif master.state not in (DOWN, VIRGIN):
        problem = f"{master.host}, which they follow, is itself a replica"
    elif master.file_replicaof is not None:
        problem = (
            f"the file of {master.host}, which they follow, says replica of"
            f" {_show(master.file_replicaof)}"
        )
    elif not master.keys_on_disk and group.any_keys(besides=master):
        problem = f"their master {master.host} is down without keys, and would wipe theirs"
    else:
        problem = _strays(group, master)
    if problem or master is None:
        return _Decision(5, f"{no_master}; {problem}: {by_hand}")
    return _Decision(
        5,
        f"no master is up, and {_names(replicas)} {_follow(replicas)} {master.host}, which is down"
        f" {'with its data' if master.state == DOWN else 'like them without keys'}:"
        " it is started in place",
        master,
        master,
        _start_with(group, master),
    )


def _row6(group: _Set) -> _Decision | None:
    down = group.in_state(DOWN)
    if group.in_state(UP, UNREACHABLE) or not down:
        return None
    claiming = [node for node in down if node.file_replicaof is None]
    master = claiming[0] if len(claiming) == 1 else None
    if master is None:
        problem = (
            f"the files of {_names(claiming)} all say master"
            if claiming
            else f"the file of none of {_names(down)} says master"
        )
    elif not master.keys_on_disk and group.any_keys(besides=master):
        problem = f"the only file that says master is that of {master.host}, which has no keys"
    else:
        problem = _strays(group, master)
    if problem or master is None:
        return _Decision(
            6,
            f"no host is up; {problem}: start the one with the right data by hand, and run again",
        )
    return _Decision(
        6,
        f"no host is up, and {master.host} is the only one whose file says master: it starts first",
        master,
        master,
        _start_with(group, master),
    )


def _strays(group: _Set, master: Node) -> str:
    """What speaks against this master in the files of other hosts that are down; "" if nothing.

    A file that names somebody else may be the only trace of a failover after which this master
    was no master any more.
    """
    found = []
    for node in group.in_state(DOWN):
        if node is master or node.host in group.rejoin or master.is_at(node.file_replicaof):
            continue
        if node.file_replicaof is None:
            found.append(f"the file of {node.host} says master")
        else:
            found.append(f"the file of {node.host} says replica of {_show(node.file_replicaof)}")
    if not found:
        return ""
    return f"{_and(found)}, so it is not certain that {master.host} was the last master"


def _row7(group: _Set) -> _Decision | None:
    if len(group.in_state(VIRGIN)) != len(group.nodes):
        return None
    master = group.intended
    does = {node.host: BOOTSTRAP if node is master else JOIN for node in group.nodes}
    return _Decision(
        7,
        f"no host has data: the set starts as the inventory says, with {master.host} as master",
        master,
        master,
        does,
    )


def _row8(group: _Set) -> _Decision:
    unreachable = group.in_state(UNREACHABLE)
    if unreachable and not group.masters:
        return _Decision(
            8,
            f"no master is up, and {_names(unreachable)}, which may be one or have the newest"
            " data, cannot be reached: bring it back, or make another host the master by hand",
        )
    if group.masters:
        return _Decision(
            8,
            f"{_names(group.masters)} are all masters: make all but one replicas by REPLICAOF, and"
            " run again",
        )
    return _Decision(8, "no rule says who the master is: make one by hand, and run again")


# --- the plan --------------------------------------------------------------------------------


def _as_replica(node: Node, master: Node) -> str:
    if node.state == VIRGIN:
        return JOIN
    if node.state == DOWN:
        return START
    if not master.is_at(node.master):
        return REPOINT
    return KEEP if master.is_at(node.file_replicaof) else PERSIST


def _start_with(group: _Set, master: Node) -> dict[str, str]:
    return {
        node.host: START if node is master else _as_replica(node, master) for node in group.nodes
    }


def _outsiders(group: _Set) -> list[tuple[Node, Endpoint | None]]:
    """Hosts that follow, or by their file would follow, somebody outside the set."""
    found = []
    for node in group.nodes:
        followed = node.master if node.up_replica else node.file_replicaof
        follows = node.up_replica or (node.state == DOWN and followed is not None)
        if follows and node.host not in group.rejoin and group.at(followed) is None:
            found.append((node, followed))
    return found


def _plan(group: _Set, decision: _Decision) -> dict[str, dict[str, Any]]:
    if decision.does is None or decision.master is None:
        return {}
    master = decision.master
    return {
        node.host: {
            "role": MASTER if node is master else REPLICA,
            "replicaof": None if node is master else list(master.endpoint),
            "does": decision.does[node.host],
        }
        for node in group.nodes
    }


# --- words -----------------------------------------------------------------------------------


def _line(group: _Set, node: Node) -> str:
    return f"{node.host} ({_show(node.endpoint)}): {_describe(group, node)}" + (
        f" ({node.detail})" if node.detail else ""
    )


def _describe(group: _Set, node: Node) -> str:
    if node.state == VIRGIN:
        return "no data"
    if node.state == UNREACHABLE:
        return "unreachable"
    if node.state == AUTH_REFUSED:
        return "refused the password"
    if node.state == NOT_OURS:
        return "not ours"
    file_says = (
        f"its file says replica of {_whom(group, node.file_replicaof)}"
        if node.file_replicaof
        else "its file says master"
    )
    if node.state == DOWN:
        keys = "with keys" if node.keys_on_disk else "without keys"
        return f"down, {keys} on disk, offset {_offset(node)}, {file_says}"
    if node.role == MASTER:
        return (
            f"master, {_count(node.keys, 'key')}, {_count(node.connected_replicas, 'replica')},"
            f" offset {_offset(node)}, {file_says}"
        )
    return (
        f"replica of {_whom(group, node.master)}, link {'up' if node.link_up else 'down'},"
        f" {_count(node.keys, 'key')}, offset {_offset(node)}, {file_says}"
    )


def _whom(group: _Set, endpoint: Endpoint | None) -> str:
    node = group.at(endpoint)
    return node.host if node else f"{_show(endpoint)}, outside the set"


def _show(endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return "nobody"
    address, port = endpoint
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _offset(node: Node) -> str:
    return "unknown" if node.offset is None else str(node.offset)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _names(nodes: Iterable[Node]) -> str:
    return _and([node.host for node in nodes])


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _has(nodes: Sequence[Node]) -> str:
    return "has" if len(nodes) == 1 else "have"


def _follow(nodes: Sequence[Node]) -> str:
    return "follows" if len(nodes) == 1 else "follow"


# --- input -----------------------------------------------------------------------------------


def _read(
    nodes: Sequence[Mapping[str, Any]], intended_master: str, rejoin: Collection[str]
) -> _Set:
    if isinstance(rejoin, str):
        raise TopologyError("rejoin_as_replica has to be a list of hosts")
    read = tuple(_node(data) for data in nodes)
    hosts = [node.host for node in read]
    if len(set(hosts)) != len(hosts):
        raise TopologyError(f"a host is described twice: {_and(hosts)}")
    for node in read:
        twin = next(other for other in read if other.is_at(node.endpoint))
        if twin is not node:
            raise TopologyError(
                f"{twin.host} and {node.host} have the same address {_show(node.endpoint)};"
                " give each its own redis_address or redis_port"
            )
    unknown = sorted(set(rejoin) - set(hosts))
    if unknown:
        raise TopologyError(f"redis_rejoin_as_replica names {_and(unknown)}, no host of this set")
    intended = next((node for node in read if node.host == intended_master), None)
    if intended is None:
        raise TopologyError(
            f"the master of the inventory, {intended_master!r}, is no host of this set"
            f" ({_and(hosts) if hosts else 'which has no hosts'})"
        )
    return _Set(read, intended, frozenset(rejoin))


def _node(data: Mapping[str, Any]) -> Node:
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
        raise TopologyError(f"{host}: {_and(missing)} is not given")
    role = data.get("role")
    if state == UP and role not in (MASTER, REPLICA):
        raise TopologyError(f"{host}: role {role!r} is neither {MASTER} nor {REPLICA}")
    node = Node(
        host=host,
        address=str(data["address"]),
        port=_integer(host, data, "port"),
        state=str(state),
        role=str(role) if state == UP else None,
        master=_endpoint(host, data.get("master_host"), data.get("master_port")),
        link_up=data.get("link_up") is True,
        offset=None if data.get("offset") is None else _integer(host, data, "offset"),
        keys=_integer(host, data, "keys") if state == UP else 0,
        connected_replicas=_integer(host, data, "connected_replicas") if state == UP else 0,
        keys_on_disk=_boolean(host, data, "keys_on_disk"),
        file_replicaof=_endpoint(host, *(data.get("file_replicaof") or (None, None))),
        detail=str(data.get("detail") or ""),
        aliases=tuple(str(name) for name in data.get("aliases") or ()),
    )
    if state == VIRGIN and node.keys_on_disk:
        raise TopologyError(f"{host}: it cannot be {VIRGIN} and have keys on disk")
    return node


def _integer(host: str, data: Mapping[str, Any], name: str) -> int:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TopologyError(f"{host}: {name} is {value!r}, not a number")
    try:
        return int(value)
    except ValueError:
        raise TopologyError(f"{host}: {name} is {value!r}, not a number") from None


def _boolean(host: str, data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise TopologyError(f"{host}: {name} is {value!r}, neither true nor false")
    return value


def _endpoint(host: str, address: Any, port: Any) -> Endpoint | None:
    if not address:
        return None
    return str(address), _integer(host, {"port of the master": port}, "port of the master")


def _same_form(address: str) -> str:
    """One form for addresses that are equal: `::1` and `0:0::1`, names in any case."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")
