"""What is wrong with sets, their backups and their drills, in sentences. Pure, no I/O.

Who is the master of a set is never wrong by itself: a failover is legitimate, and the live state
counts. Wrong is what keeps a set from being one: no master, two of them, a link that is down, a
server that cannot save; what differs from the inventory; and whatever nobody could be asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_set import (
    AUTH_REFUSED,
    DOWN,
    MASTER,
    NOT_OURS,
    REPLICA,
    UNREACHABLE,
    UP,
    VIRGIN,
    Instance,
    Set,
    TopologyError,
    endpoint_text,
    enumeration,
    names,
    read,
)
from ansible_collections.proven.redis.plugins.module_utils.sizes import human_bytes

# A rewrite or a snapshot that takes longer has to be looked at: the backup gives up by then too.
LONG = 3600  # seconds
RUN = "run site.yml"


def of_set(
    name: str,
    instances: Sequence[Mapping[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What is wrong with a set.

    Args:
        instances: as `redis_topology.decide` takes them.
        hosts: of each host that was looked at, what `of_host` takes.
    """
    try:
        group = read(instances, str(instances[0]["host"]), ())
    except TopologyError as error:
        silences = (
            _silent(host, seen["silence"]) for host, seen in hosts.items() if seen.get("silence")
        )
        return [*silences, f"set {name}: {error}"]
    return [
        *_states(group, hosts),
        *_masters(name, group),
        *_circles(group),
        *_replicas(group, hosts),
        *_files(group),
        *(
            sentence
            for instance in group.instances
            if instance.host in hosts
            for sentence in of_host(instance, hosts[instance.host])
        ),
    ]


# --- the set ---------------------------------------------------------------------------------


def _states(group: Set, hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Hosts that are not up, or of which nothing is known."""
    for instance in group.instances:
        silence = (hosts.get(instance.host) or {}).get("silence")
        host, detail = instance.host, _plain(instance.detail)
        if silence:
            yield _silent(host, silence)
        elif instance.state == UNREACHABLE:
            yield f"{host} cannot be reached: nothing is known of its server"
        elif instance.state == AUTH_REFUSED:
            yield f"{host} refuses the password of the inventory: {detail}"
        elif instance.state == NOT_OURS:
            yield f"{host} has a Redis or data that is not this instance's: {detail}"
        elif instance.state == VIRGIN:
            yield f"{host} has no server of its set yet ({detail}): {RUN}"
        elif instance.state == DOWN:
            yield f"the server of {host} is down ({detail}): see its log, then {RUN}"


def _masters(name: str, group: Set) -> Iterator[str]:
    masters = group.masters
    unknown = group.in_state(UNREACHABLE)
    if len(masters) > 1:
        yield (
            f"set {name} has {len(masters)} masters, {names(masters)}: what is written to one is"
            " not on the others; find out which has the newest data and make the others its"
            " replicas by REPLICAOF"
        )
    elif not masters and len(unknown) < len(group.instances):
        beside = f", unless {names(unknown)} is one" if unknown else ""
        yield f"set {name} has no master: no write is accepted{beside}"


def _circles(group: Set) -> Iterator[str]:
    """Replicas that follow one another: every link is up, and no write ever arrives."""
    told: set[str] = set()
    for start in group.replicas:
        chain: list[Instance] = []
        instance: Instance | None = start
        while instance is not None and instance.up_replica and instance not in chain:
            chain.append(instance)
            instance = group.at(instance.master)
        if instance is not None and instance in chain and instance.host not in told:
            circle = chain[chain.index(instance) :]
            told.update(member.host for member in circle)
            path = " follows ".join(member.host for member in [*circle, circle[0]])
            yield f"replicas follow one another in a circle: {path}"


def _replicas(group: Set, hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for instance in group.replicas:
        upstream = group.at(instance.master)
        whom = endpoint_text(instance.master)
        if upstream is None:
            yield (
                f"{instance.host} follows {whom}, which is no server of its set: its data is"
                " somebody else's, or will be"
            )
        elif upstream.up_replica and group.masters:
            yield (
                f"{instance.host} follows {upstream.host}, a replica itself: {RUN}, which makes it"
                f" follow {names(group.masters)}"
            )
        if not instance.link_up:
            replication = (hosts.get(instance.host) or {}).get("replication") or {}
            master = upstream.host if upstream else whom
            syncing = replication.get("master_sync_in_progress")
            yield (
                f"the link of {instance.host} to its master {master} is down"
                f"{' (a full resync is at work)' if syncing else ''}"
            )


def _files(group: Set) -> Iterator[str]:
    """Servers that come back in another role than they have."""
    for instance in group.instances:
        if instance.state != UP:
            continue
        host, said = instance.host, instance.file_replicaof
        if instance.role == MASTER and said is not None:
            yield (
                f"{host} is a master, and its file says replica of {_whom(group, said)}: after a"
                f" restart it would follow; {RUN}"
            )
        elif instance.role == REPLICA and said is None:
            yield (
                f"{host} is a replica, and its file says master: after a restart there would be"
                f" another one; {RUN}"
            )
        elif instance.role == REPLICA and not _same(group, said, instance.master):
            yield (
                f"{host} follows {_whom(group, instance.master)}, and its file says"
                f" {_whom(group, said)}; {RUN}"
            )


def _same(group: Set, one: Any, other: Any) -> bool:
    known = group.at(one)
    return known is group.at(other) if known else one == other


def _whom(group: Set, endpoint: Any) -> str:
    known = group.at(endpoint)
    return known.host if known else endpoint_text(endpoint)


# --- one host --------------------------------------------------------------------------------


def of_host(instance: Instance, seen: Mapping[str, Any]) -> list[str]:
    """What is wrong with one instance and its host.

    `seen` has, where it is known: `settings` (lines that differ from the inventory), `problem` (why
    they could not be compared), `persistence` and `replication` (sections of INFO), `disk`,
    `enabled`, `units` (properties of systemd), `schedule` (paths of the backup's schedule
    that are not as the inventory says) and `crontabs`.
    """
    return [
        *_operation(instance),
        *_settings(instance.host, seen),
        *_persistence(instance.host, seen.get("persistence") or {}),
        *_writes(instance, seen.get("replication") or {}),
        *_disk(instance.host, seen.get("disk")),
        *_enabled(instance, seen),
        *of_units(instance.host, seen.get("units") or ()),
        *_schedule(instance.host, "backup", seen.get("schedule") or ()),
        *(
            f"{instance.host}: {line}; remove it, it makes no backup"
            for line in seen.get("crontabs") or ()
        ),
    ]


def _operation(instance: Instance) -> Iterator[str]:
    if instance.operation:
        yield (
            f"{instance.host}: {_plain(instance.operation)}; end it or give it up by its playbook"
        )


def _settings(host: str, seen: Mapping[str, Any]) -> Iterator[str]:
    if seen.get("problem"):
        yield f"{host}: its settings could not be compared: {_plain(seen['problem'])}"
    # The role has its own sentence.
    lines = [line for line in seen.get("settings") or () if not line.startswith("replicaof:")]
    if lines:
        yield f"{host}: its settings are not as the inventory says ({'; '.join(lines)}); {RUN}"


def _persistence(host: str, info: Mapping[str, Any]) -> Iterator[str]:
    log = "its log says why"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield (
            f"{host}: the last snapshot failed; {log}. With stop-writes-on-bgsave-error it refuses"
            " writes"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield f"{host}: it cannot write its append-only file; {log}"
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield f"{host}: the last rewrite of the append-only file failed; {log}"
    rewriting = info.get("aof_rewrite_in_progress") or info.get("aof_rewrite_scheduled")
    if info.get("aof_enabled") and rewriting and not info.get("aof_base_size", 1):
        yield (
            f"{host}: the first rewrite of its append-only file has not ended: a restart now would"
            " find no data in it"
        )
    for what, field in (
        ("rewrite of the append-only file", "aof_current_rewrite_time_sec"),
        ("snapshot", "rdb_current_bgsave_time_sec"),
    ):
        if int(info.get(field, -1)) > LONG:
            yield f"{host}: a {what} has been at work for {int(info[field]) // 60} minutes; {log}"


def _writes(instance: Instance, replication: Mapping[str, Any]) -> Iterator[str]:
    wanted = int(replication.get("min_replicas_to_write") or 0)
    good = int(replication.get("min_slaves_good_slaves") or 0)
    if instance.role == MASTER and good < wanted:
        yield (
            f"{instance.host} refuses writes: {good} of the {wanted} replicas that"
            " redis_min_replicas_to_write asks for are in sync"
        )


def _disk(host: str, disk: Mapping[str, Any] | None) -> Iterator[str]:
    if disk and disk["free"] < disk["needed"]:
        yield (
            f"{host}: {disk['dir']} has {human_bytes(disk['free'])} free, its next snapshot needs"
            f" {human_bytes(disk['needed'])}: make room"
        )


def _enabled(instance: Instance, seen: Mapping[str, Any]) -> Iterator[str]:
    if instance.state in (UP, DOWN) and seen.get("enabled") is False:
        yield f"{instance.host}: its server does not start with the machine; {RUN}"


# --- units, the backup server, drill hosts ---------------------------------------------------


def of_units(host: str, units: Iterable[Mapping[str, str]]) -> list[str]:
    """What is wrong with units of systemd, as `units_shown` reads them."""
    found = []
    for unit in units:
        name = unit["Id"]
        if unit.get("LoadState") == "not-found":
            found.append(f"{host} has no {name}: {RUN}")
        elif unit["ActiveState"] == "failed":
            found.append(
                f"{host}: {name} failed ({unit.get('Result') or '?'}): journalctl -u {name}"
            )
        elif unit["wanted"] == "active" and unit["ActiveState"] not in ("active", "reloading"):
            found.append(f"{host}: {name} does not run ({unit['ActiveState']}); {RUN}")
        elif unit["wanted"] == "active" and unit.get("UnitFileState") not in ("enabled", "static"):
            found.append(f"{host}: {name} does not start with the machine; {RUN}")
    return found


def _schedule(host: str, what: str, paths: Sequence[str]) -> Iterator[str]:
    if paths:
        yield (
            f"{host}: the schedule of its {what} is not as the inventory says"
            f" ({enumeration(paths)}); {RUN}"
        )


def of_server(host: str, seen: Mapping[str, Any], sets: Sequence[str]) -> list[str]:
    """What is wrong with the backup server and all that it keeps.

    `seen` has `silence`, or `checks` (those of `redis-backup check --json`), `units` and `files`
    (paths that are not as the inventory says). `sets` are the sets of the inventory.
    """
    if seen.get("silence"):
        return [_silent(host, seen["silence"])]
    checks = seen.get("checks") or []
    found = [
        f"{check['check']}{' of set ' + check['set'] if check.get('set') else ''}:"
        f" {_plain(check['message'])}"
        for check in checks
        if not check["ok"]
    ]
    expected = {check["set"] for check in checks if check["check"] == "backup" and check.get("set")}
    found += [
        f"{host} expects no backups of set {name}, whose hosts are not registered there; {RUN}"
        for name in sets
        if name not in expected
    ]
    files = seen.get("files") or []
    if files:
        found.append(
            f"{host}: the backup server is not set up as the inventory says"
            f" ({enumeration(files)}); {RUN}"
        )
    return found + of_units(host, seen.get("units") or ())


def of_drill_host(host: str, seen: Mapping[str, Any]) -> list[str]:
    """What is wrong with a drill host; what its drills proved, the backup server knows."""
    if seen.get("silence"):
        return [_silent(host, seen["silence"])]
    return [
        *_schedule(host, "drill", seen.get("schedule") or ()),
        *of_units(host, seen.get("units") or ()),
    ]


def units_shown(shown: str, daemons: tuple[str, ...]) -> list[dict[str, str]]:
    """Units from the output of `systemctl show --property=Id,…`, with what each has to be: those
    whose name ends like one of the daemons have to be active.
    """
    units = []
    for block in shown.strip().split("\n\n"):
        pairs = (line.partition("=") for line in block.splitlines())
        unit = {key: value for key, _, value in pairs}
        if "Id" in unit:
            wanted = "active" if unit["Id"].endswith(daemons) else ""
            units.append({**unit, "wanted": wanted})
    return units


def _silent(host: str, why: object) -> str:
    return f"{host} did not answer: {_plain(why)}"


def _plain(text: object) -> str:
    """Words of elsewhere in one line, without a full stop, and not without end."""
    words = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return (words[:600] + "…" if len(words) > 600 else words).rstrip(".")
