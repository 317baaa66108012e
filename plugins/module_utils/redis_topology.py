"""Who is the master of a replication set, decided from what its hosts say. Pure, no I/O.

The inventory's roles count only while no host has data. After that the live state does: a run must
never start a second master, and never make a host with data the replica of an empty one.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.redis_history import may_share
from ansible_collections.proven.redis.plugins.module_utils.redis_set import (
    AUTH_REFUSED,
    DOWN,
    MASTER,
    NOT_OURS,
    REPLICA,
    UNREACHABLE,
    UP,
    VIRGIN,
    Endpoint,
    Instance,
    Set,
    endpoint_text,
    enumeration,
    follow,
    has,
    line_of,
    names,
    offset_text,
    read,
)

PROCEED = "proceed"
STOP = "stop"

BOOTSTRAP = "bootstrap"
JOIN = "join"
START = "start"
REPOINT = "repoint"
KEEP = "keep"
PERSIST = "persist"


class _Decision(NamedTuple):
    row: int
    reason: str
    master: Instance | None = None
    start_first: Instance | None = None
    does: Mapping[str, str] | None = None  # host -> what happens to it; None: stop
    lost: frozenset[str] = frozenset()  # hosts whose consent was needed


def decide(
    instances: Sequence[Mapping[str, Any]],
    intended_master: str,
    rejoin_as_replica: Collection[str] = (),
) -> dict[str, Any]:
    """Decide what every host of a replication set has to be.

    Each instance is a mapping with `host`, `address`, `port` and `state` (one of STATES). With
    state `up` also `role`, `keys` (in memory, all databases), `connected_replicas`, `offset`,
    `replid`, `replid2`, `second_offset` (see `redis_history`), `backlog_active`, and for a
    replica `master_host`, `master_port`, `link_up`; with `down` also `offset` (None if unknown).
    Both have `keys_on_disk` and `file_replicaof` ([address, port] or None, from redis.conf).
    `operation` describes a switchover or a restore that is at work. `detail` is shown to the
    reader, `aliases` are further names of the address. `virgin` means no data anywhere; a server
    that is still loading is waited for before it is described here.

    `intended_master` is the inventory's master; it counts only for a set without any data.
    `rejoin_as_replica` has HOST@OFFSET for each host whose own data, as far as that offset, may be
    given up.

    The rows are tried in order, the first that matches decides:

    1. a host that refuses the password or is not ours, or on which an operation is at work: stop;
    2. two masters up that hold keys or have replicas: stop;
    3. a master up without keys, while another host has keys that it does not follow: stop;
    4. exactly one master up: it is the master. A host that cannot be reached is left out, and so is
       nothing else, but for a replica that has a link to it;
    5. replicas up, no master: the one host that all of them name is started in place;
    6. none up, some with data: the one whose file has no replicaof starts first;
    7. all virgin: as the inventory says;
    8. anything else: stop.

    Returns `row`, `action` (`proceed` or `stop`), `master`, `start_first` (hosts or None), `plan`
    (host -> what `redis_guard` takes as `decided`, with `role`, `replicaof` ([address, port] or
    None) and `does`; every host that can be reached when proceeding, empty when stopping),
    `reason` (one sentence), `report` (a line per host), `left_out` (hosts that cannot be reached)
    and `unneeded` (entries of `rejoin_as_replica` that nothing asked for).

    Raises TopologyError for a description that is incomplete or contradicts itself.
    """
    group = read(instances, intended_master, rejoin_as_replica)
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
            line_of(group, instance) + (f" -> {_what(plan, instance)}" if plan else "")
            for instance in group.instances
        ],
        "left_out": [instance.host for instance in group.in_state(UNREACHABLE)],
        "unneeded": [str(entry) for entry in group.rejoin if entry.host not in decision.lost]
        if plan
        else [],
    }


def _what(plan: Mapping[str, Mapping[str, Any]], instance: Instance) -> str:
    entry = plan.get(instance.host)
    return str(entry["does"]) if entry else "left out"


# --- the rows --------------------------------------------------------------------------------


def _row1(group: Set) -> _Decision | None:
    said = []
    refused = group.in_state(AUTH_REFUSED)
    if refused:
        said.append(
            f"{names(refused)} refused the password of the inventory: put back the one that works"
            " there, or, to change it without refusing a client, give the one that works as"
            " redis_previous_password beside the new one"
        )
    foreign = group.in_state(NOT_OURS)
    if foreign:
        said.append(
            f"{names(foreign)} {has(foreign)} a Redis or data that is not this instance's:"
            " nothing of it is touched"
        )
    said += [f"on {n.host} {n.operation}" for n in group.instances if n.operation]
    return _Decision(1, "; ".join(said)) if said else None


def _row2(group: Set) -> _Decision | None:
    bearing = [
        instance for instance in group.masters if instance.keys or instance.connected_replicas
    ]
    if len(bearing) < 2:
        return None
    return _Decision(
        2,
        f"{names(bearing)} are all masters with keys or replicas, and one of them would lose its"
        " data as a replica of another: choose, make the others replicas by REPLICAOF, and run"
        " again",
    )


def _row3(group: Set) -> _Decision | None:
    for empty in group.masters:
        holders = [n for n in group.instances if n is not empty and _has_other_keys(n, empty)]
        if empty.keys == 0 and holders:
            return _Decision(
                3,
                f"{empty.host} is a master without keys, but {names(holders)} {has(holders)}"
                " keys that an empty master would wipe: find out why it is empty, make the host"
                " with the right data the master, and run again",
            )
    return None


def _has_other_keys(instance: Instance, master: Instance) -> bool:
    """Has this host keys that following the master would cost?

    A replica in sync has none: what it holds is what the master holds, and an older dump on its
    disk is only waiting for the next save (every key may just have expired).
    """
    if instance.up_replica and instance.link_up and master.is_at(instance.master):
        return False
    return instance.keys_on_disk or (instance.state == UP and instance.keys > 0)


def _row4(group: Set) -> _Decision | None:
    if len(group.masters) != 1:
        return None
    (master,) = group.masters
    problems: list[tuple[int, str]] = []
    # Whatever else is true of a host that cannot be reached, a replica that has a link to it
    # shows that it is alive: it may take writes that nobody here knows of.
    problems += [
        (
            4,
            f"{instance.host} has a link to {upstream.host}, which cannot be reached from here and"
            f" may be a master beside {master.host}: bring {upstream.host} back, or make"
            f" {instance.host} a replica of {master.host} by REPLICAOF",
        )
        for instance in group.replicas
        for upstream in group.in_state(UNREACHABLE)
        if instance.link_up and upstream.is_at(instance.master)
    ]
    asked = [
        (
            4,
            instance,
            f"{instance.host} is down and its own file says master: its data (offset"
            f" {offset_text(instance)}) may have writes that {master.host}"
            f" (offset {offset_text(master)}) never got",
        )
        for instance in group.in_state(DOWN)
        if instance.file_replicaof is None
    ]
    asked += [
        (
            8,
            instance,
            f"{instance.host} follows {endpoint_text(endpoint)}, which is no host of this set",
        )
        for instance, endpoint in _outsiders(group)
    ]
    asked += [
        (
            4,
            instance,
            f"{instance.host} is at {instance.position} of a history that {master.host} (at"
            f" {master.position}) does not contain: as its replica, it would lose what"
            f" {master.host} never got",
        )
        for instance in _not_contained(group, master)
    ]
    problems += [
        (row, f"{text}; to give that up, have {_consent(instance)} in redis_rejoin_as_replica")
        for row, instance, text in asked
        if not group.may_lose(instance)
    ]
    if problems:
        row = min(row for row, _text in problems)
        return _Decision(row, "; ".join(text for _row, text in problems), master)
    does = {}
    for instance in group.instances:
        if instance is master:
            does[instance.host] = KEEP if instance.file_replicaof is None else PERSIST
        elif instance.state != UNREACHABLE:
            does[instance.host] = _as_replica(instance, master)
    lost = frozenset(instance.host for _row, instance, _text in asked)
    return _Decision(4, f"{master.host} is up and the only master", master, None, does, lost)


def _not_contained(group: Set, master: Instance) -> list[Instance]:
    """Replicas of another host of the set that hold what this master may not have."""
    return [
        instance
        for instance in group.replicas
        if instance.keys
        and not master.is_at(instance.master)
        and group.at(instance.master) is not None
        and not (
            instance.position and master.position and may_share(master.position, instance.position)
        )
    ]


def _consent(instance: Instance) -> str:
    """The entry of redis_rejoin_as_replica for the data that an instance has now."""
    return f"{instance.host}@{offset_text(instance)}"


def _row5(group: Set) -> _Decision | None:
    replicas = group.replicas
    if group.masters or not replicas or group.in_state(UNREACHABLE):
        return None
    named = {instance.host: group.at(instance.master) for instance in replicas}
    master = named[replicas[0].host]
    no_master = f"no master is up, only {names(replicas)}"
    by_hand = "make the host with the newest data the master (REPLICAOF NO ONE), and run again"
    strangers = [n for n in replicas if named[n.host] is None]
    if strangers:
        whom = enumeration(sorted({endpoint_text(instance.master) for instance in strangers}))
        problem = f"{names(strangers)} {follow(strangers)} {whom}, which is no host of this set"
    elif master is None or any(other is not master for other in named.values()):
        pairs = [f"{host} follows {instance.host}" for host, instance in named.items() if instance]
        problem = f"they do not name one host: {enumeration(pairs)}"
    elif master.state == VIRGIN and group.any_keys(besides=master):
        problem = f"their master {master.host} has no data any more, and would wipe theirs"
    elif master.state not in (DOWN, VIRGIN):
        problem = f"{master.host}, which they follow, is itself a replica"
    elif master.file_replicaof is not None:
        problem = (
            f"the file of {master.host}, which they follow, says replica of"
            f" {endpoint_text(master.file_replicaof)}"
        )
    elif not master.keys_on_disk and group.any_keys(besides=master):
        problem = f"their master {master.host} is down without keys, and would wipe theirs"
    else:
        problem = _strays(group, master)
    if problem or master is None:
        return _Decision(5, f"{no_master}; {problem}: {by_hand}")
    return _Decision(
        5,
        f"no master is up, and {names(replicas)} {follow(replicas)} {master.host}, which is down"
        f" {'with its data' if master.state == DOWN else 'like them without keys'}:"
        " it is started in place",
        master,
        master,
        _start_with(group, master),
        _given_up(group, master),
    )


def _row6(group: Set) -> _Decision | None:
    down = group.in_state(DOWN)
    if group.in_state(UP, UNREACHABLE) or not down:
        return None
    claiming = [instance for instance in down if instance.file_replicaof is None]
    master = claiming[0] if len(claiming) == 1 else None
    if master is None:
        problem = (
            f"the files of {names(claiming)} all say master"
            if claiming
            else f"the file of none of {names(down)} says master"
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
        _given_up(group, master),
    )


def _doubting(group: Set, master: Instance) -> list[Instance]:
    """Hosts that are down, and whose own files speak against this master."""
    return [
        instance
        for instance in group.in_state(DOWN)
        if instance is not master and not master.is_at(instance.file_replicaof)
    ]


def _given_up(group: Set, master: Instance) -> frozenset[str]:
    return frozenset(instance.host for instance in _doubting(group, master))


def _strays(group: Set, master: Instance) -> str:
    """What speaks against this master in the files of other hosts that are down; "" if nothing.

    A file that names somebody else may be the only trace of a failover after which this master
    was no master any more.
    """
    found = []
    for instance in _doubting(group, master):
        if group.may_lose(instance):
            continue
        if instance.file_replicaof is None:
            found.append(f"the file of {instance.host} says master")
        else:
            target = endpoint_text(instance.file_replicaof)
            found.append(f"the file of {instance.host} says replica of {target}")
    if not found:
        return ""
    entries = enumeration([_consent(n) for n in _doubting(group, master) if not group.may_lose(n)])
    return (
        f"{enumeration(found)}, so it is not certain that {master.host} was the last master (where"
        f" it was, have {entries} in redis_rejoin_as_replica)"
    )


def _row7(group: Set) -> _Decision | None:
    if len(group.in_state(VIRGIN)) != len(group.instances):
        return None
    master = group.intended
    does = {
        instance.host: BOOTSTRAP if instance is master else JOIN for instance in group.instances
    }
    return _Decision(
        7,
        f"no host has data: the set starts as the inventory says, with {master.host} as master",
        master,
        master,
        does,
    )


def _row8(group: Set) -> _Decision:
    unreachable = group.in_state(UNREACHABLE)
    if unreachable and not group.masters:
        return _Decision(
            8,
            f"no master is up, and {names(unreachable)}, which may be one or have the newest"
            " data, cannot be reached: bring it back, or make another host the master by hand",
        )
    if group.masters:
        return _Decision(
            8,
            f"{names(group.masters)} are all masters: make all but one replicas by REPLICAOF, and"
            " run again",
        )
    return _Decision(8, "no rule says who the master is: make one by hand, and run again")


# --- the plan --------------------------------------------------------------------------------


def _as_replica(instance: Instance, master: Instance) -> str:
    if instance.state == VIRGIN:
        return JOIN
    if instance.state == DOWN:
        return START
    if not master.is_at(instance.master):
        return REPOINT
    return KEEP if master.is_at(instance.file_replicaof) else PERSIST


def _start_with(group: Set, master: Instance) -> dict[str, str]:
    return {
        instance.host: START if instance is master else _as_replica(instance, master)
        for instance in group.instances
    }


def _outsiders(group: Set) -> list[tuple[Instance, Endpoint | None]]:
    """Hosts that follow, or by their file would follow, somebody outside the set."""
    found = []
    for instance in group.instances:
        followed = instance.master if instance.up_replica else instance.file_replicaof
        follows = instance.up_replica or (instance.state == DOWN and followed is not None)
        if follows and group.at(followed) is None:
            found.append((instance, followed))
    return found


def _plan(group: Set, decision: _Decision) -> dict[str, dict[str, Any]]:
    if decision.does is None or decision.master is None:
        return {}
    master = decision.master
    # A master takes a new replication id with the first replica, and when it runs again.
    replid = master.position.replid if master.position and master.backlog_active else None
    return {
        instance.host: {
            "host": instance.host,
            "role": MASTER if instance is master else REPLICA,
            "replicaof": None if instance is master else list(master.endpoint),
            "does": decision.does[instance.host],
            "seen_role": instance.role,
            "seen_master": list(instance.master) if instance.master else None,
            "may_lose": group.may_lose(instance),
            "master": master.host,
            "master_addresses": list(master.names),
            "master_port": master.port,
            "master_replid": replid,
        }
        for instance in group.instances
        if instance.host in decision.does
    }
