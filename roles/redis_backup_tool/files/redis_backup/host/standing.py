"""What this host is in its set, as its server and its master see it; and waiting for its turn."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..base.errors import NotNow, ToolError
from ..base.fields import whole_number
from ..base.output import Output
from ..config.model import HostConfig, RedisAccess
from ..formats import receipts
from ..formats.manifest import Position
from ..formats.receipts import Receipt
from ..transport import rsync
from ..transport.redis_client import ServerError
from ..transport.rsync import TransportError
from . import turn
from .server import RedisServer, integer, keys_of, replicas

_SYNC_TIMEOUT = 30.0  # seconds for a replica to reach the offset that its master had
_POLL = 0.2  # seconds


@dataclass(frozen=True)
class Standing:
    """What this host is at the start: its rank (None: it has no turn) and where the master is."""

    is_master: bool
    rank: int | None
    master_name: str
    master: Position | None


def whose_turn(config: HostConfig) -> dict[str, Any]:
    """Where this host stands, as JSON data: its role, its rank (0 acts first, None has no turn) and
    the name of its master. Changes nothing.

    Raises ToolError when this host could make no good backup now.
    """
    server = RedisServer(config.redis)
    try:
        standing = stand(server, config)
    finally:
        server.close()
    return {
        "set": config.set,
        "host": config.host,
        "role": "master" if standing.is_master else "replica",
        "rank": standing.rank,
        "master": standing.master_name,
    }


def stand(server: RedisServer, config: HostConfig) -> Standing:
    """Ask this server and its master what this host is. Raises ToolError when it can make no good
    backup.
    """
    info = server.info()
    check_instance(info, config)
    if info.get("role") == "master":
        place = turn.rank(config.hosts, replicas(info), config.host, True)
        return Standing(True, place, config.host, _position(info))
    address, port = info.get("master_host", ""), integer(info, "master_port")
    upstream = f"{address}:{port}"
    if info.get("master_link_status") != "up":
        raise ToolError(
            f"the link of this replica to its master {upstream} is down: what it holds may be"
            " stale, so it makes no backup; its log says why"
        )
    known = [host for host in config.hosts if (host.address, host.port) == (address, port)]
    if not known:
        raise ToolError(
            f"this replica follows {upstream}, which is no host of set {config.set}: not backed"
            " up under that name"
        )
    access: RedisAccess = replace(config.redis, address=address, port=port, unixsocket=None)
    master = RedisServer(access)
    try:
        master_info = master.info()
    except ServerError as problem:
        raise ToolError(f"the master, {known[0].name}, cannot be asked: {problem}") from None
    finally:
        master.close()
    if master_info.get("role") != "master":
        raise ToolError(
            f"this host follows {known[0].name}, which is a replica itself: only replicas of the"
            " master make backups"
        )
    place = turn.rank(config.hosts, replicas(master_info), config.host, False)
    return Standing(False, place, known[0].name, _position(master_info))


def check_instance(info: Mapping[str, str], config: HostConfig) -> None:
    """That the server is ready and the one that is meant. Raises ToolError."""
    if info.get("loading", "0") != "0" or info.get("async_loading", "0") != "0":
        raise ToolError("Redis is loading its dataset: nothing to back up yet; run again later")
    own = next(host for host in config.hosts if host.name == config.host)
    if integer(info, "tcp_port") not in (0, own.port):
        raise ToolError(
            f"the server listens on port {info.get('tcp_port')}, {config.host} of set"
            f" {config.set} is port {own.port}:"
            " this is another instance"
        )


def _position(info: Mapping[str, str]) -> Position | None:
    repl_id, offset = info.get("master_replid", ""), info.get("master_repl_offset", "")
    number = whole_number(offset)
    return Position(repl_id, number) if len(repl_id) == 40 and number is not None else None


def take_turn(
    server: RedisServer, config: HostConfig, standing: Standing, staging: Path, output: Output
) -> None:
    """Wait by rank; end with NotNow when another host's backup, which answers for this host's data
    too, was accepted meanwhile.
    """
    if standing.rank is None:
        listed = ", ".join(f"{host.name} = {host.address}:{host.port}" for host in config.hosts)
        raise ToolError(
            f"the master, {standing.master_name}, does not list this host as a replica in sync"
            f" ({listed}):"
            " it has no turn"
        )
    if standing.rank == 0:
        return
    before = _accepted(config, staging, output)
    delay = turn.wait_seconds(standing.rank, config.turn_delay)
    output.step(f"turn: rank {standing.rank}, waiting {delay:g} s for another host's backup")
    time.sleep(delay)
    after = _accepted(config, staging, output)
    other = turn.must_yield(standing.rank, before, after, _own(server), delay, config.shrink_limit)
    if other is not None:
        raise NotNow(f"not this host's turn: {other} was accepted")
    others = sorted(set(after or ()) - set(before or ()))
    if others:
        output.step(
            f"turn: {others[-1]} was accepted, but is not of this turn, or not of these data: this"
            " host acts"
        )
    else:
        output.step("turn: no other backup appeared, this host acts")


def _own(server: RedisServer) -> turn.Own:
    info = server.info()
    former = whole_number(info.get("second_repl_offset", "")) or 0
    offset = "master_repl_offset" if info.get("role") == "master" else "slave_repl_offset"
    return turn.Own(
        repl_id=info.get("master_replid", ""),
        repl_offset=integer(info, offset),
        former_id=info.get("master_replid2", ""),
        former_offset=former,
        keys=keys_of(info),
        time=server.time(),
    )


def _accepted(config: HostConfig, staging: Path, output: Output) -> dict[str, Receipt] | None:
    try:
        found = receipts.accepted(rsync.fetch_receipts(config.transport, staging), config.set)
        return {
            key: receipt
            for key, receipt in found.items()
            if config.repository is None or receipt.repository == config.repository
        }
    except TransportError as problem:
        output.warn(f"receipts cannot be read, so this host acts: {problem}")
        return None


def wait_for_offset(server: RedisServer, master: Position, output: Output) -> None:
    """Wait until this replica has what its master had when it was asked. Raises ToolError."""
    deadline = time.monotonic() + _SYNC_TIMEOUT
    while True:
        info = server.info()
        if (
            info.get("master_link_status") != "up"
            or info.get("master_sync_in_progress", "0") != "0"
        ):
            raise ToolError(
                "the link of this replica to its master went down: it makes no backup; its log"
                " says why"
            )
        offset = integer(info, "slave_repl_offset", -1)
        if offset >= master.repl_offset:
            output.step(f"in sync: offset {offset}, the master was at {master.repl_offset}")
            return
        if time.monotonic() >= deadline:
            raise ToolError(
                f"this replica is behind: offset {offset}, the master was at {master.repl_offset}"
                f" {_SYNC_TIMEOUT:g} s ago; it makes no backup; look at the network between them"
            )
        time.sleep(_POLL)
