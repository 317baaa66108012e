"""`redis-backup create`: one verified backup of the set, published and confirmed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import __version__, codec, rdb, receipts, snapshot, transport, turn, verify
from . import manifest as manifest_module
from .config import HostConfig, RedisAccess
from .errors import NotNow, ToolError
from .fields import whole_number
from .files import (
    check_owner,
    free_bytes,
    fsync_directory,
    locked,
    make_directory,
    remove_tree,
    write_durably,
)
from .manifest import MANIFEST_NAME, PAYLOAD_NAME, STORED_NAME, Manifest, Position, StoredFile
from .output import Output, human_bytes
from .server import RedisServer, ServerError, integer, replicas
from .transport import TransportError

STAGING_NAME = ".redis-backup"
LOCK_NAME = "lock"
_SYNC_TIMEOUT = 30.0  # seconds for a replica to reach the offset that its master had
_POLL = 0.2  # seconds
_RECEIPT_POLL_FIRST = 0.5  # seconds
_RECEIPT_POLL_MAX = 5.0  # seconds
# Bytes per second at which a slow backup server copies and verifies an upload. A lower bound: a
# receipt that comes is seen at once, and a backup given up too early is made again for nothing.
_ACCEPTED_PER_SECOND = 20_000_000


@dataclass(frozen=True)
class Standing:
    """What this host is at the start: its rank (None: it has no turn) and where the master is."""

    is_master: bool
    rank: int | None
    master_name: str
    master: Position | None


def run(config: HostConfig, output: Output, *, now: bool) -> dict[str, Any]:
    """Make a backup when it is this host's turn (`now`: whoever's turn it is). Returns what was
    done, as JSON data.

    Raises NotNow when it is not this host's turn or another run is at work, ToolError when
    anything is off.
    """
    started = time.monotonic()
    server = RedisServer(config.redis)
    try:
        codec.binary()
        transport.binary()
        place = snapshot.locate(server)
        check_owner(place.directory)
        staging = place.directory / STAGING_NAME
        make_staging(staging)
        with locked(staging / LOCK_NAME):
            _clean(staging)
            for path in snapshot.sweep(server, place):
                output.step(f"removed: {path}: a save of a Redis that was killed left it")
            standing = stand(server, config)
            if not now:
                _take_turn(config, standing, staging, output)
            result = _backup(server, config, place, staging, output)
    finally:
        server.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


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


def make_staging(staging: Path) -> None:
    """Make the staging directory, private to the engine's user. Raises ToolError."""
    try:
        make_directory(staging)
        staging.chmod(0o700)
    except OSError as problem:
        raise ToolError(
            f"{staging}: cannot be made ({problem.strerror}); run as the user of the Redis server"
        ) from None


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


def _take_turn(config: HostConfig, standing: Standing, staging: Path, output: Output) -> None:
    """Wait by rank; end with NotNow when another host's backup was accepted meanwhile."""
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
    other = turn.must_yield(standing.rank, before, _accepted(config, staging, output))
    if other is not None:
        raise NotNow(f"not this host's turn: {other} was accepted")
    output.step("turn: no other backup appeared, this host acts")


def _accepted(config: HostConfig, staging: Path, output: Output) -> frozenset[str] | None:
    try:
        return receipts.accepted_ids(
            transport.fetch_receipts(config.transport, staging), config.set
        )
    except TransportError as problem:
        output.warn(f"receipts cannot be read, so this host acts: {problem}")
        return None


def _backup(
    server: RedisServer, config: HostConfig, place: snapshot.Place, staging: Path, output: Output
) -> dict[str, Any]:
    # Asked again: the turn may have taken minutes.
    standing = stand(server, config)
    if server.config("rdbchecksum") != "yes":
        raise ToolError(
            "rdbchecksum is off: an RDB without a checksum cannot be proved; set"
            " redis_rdbchecksum: true"
            " (a restart is needed)"
        )
    if not standing.is_master and standing.master is not None:
        _wait_for_offset(server, standing.master, output)
    info = server.info()
    snapshot.check_room(place, info, config.disk_reserve)
    backup_id = _new_id(server, config.host, staging)
    work = staging / backup_id
    work.mkdir(mode=0o700)
    try:
        return _make_and_publish(server, config, place, standing, info, work, output)
    finally:
        remove_tree(work)


def _make_and_publish(
    server: RedisServer,
    config: HostConfig,
    place: snapshot.Place,
    standing: Standing,
    info: Mapping[str, str],
    work: Path,
    output: Output,
) -> dict[str, Any]:
    output.step(
        f"snapshot: BGSAVE on {server.name} ({'master' if standing.is_master else 'replica'})"
    )
    payload = work / PAYLOAD_NAME
    requested = snapshot.take(
        server,
        place,
        payload,
        config.bgsave_timeout,
        config.disk_reserve,
        say=output.step,
        progress=lambda done, total: output.progress("snapshot", done, total),
    )
    size = payload.stat().st_size
    walked = rdb.inspect(
        payload,
        progress=lambda done, total: output.progress("walk", done, total),
        digest=True,
    )
    check_snapshot(walked, requested, standing)
    keys = sum(item.keys for item in walked.databases.values())
    output.step(
        f"walked: {human_bytes(size)}, {keys} keys in {len(walked.databases)} databases,"
        " checksum right"
    )
    if free_bytes(work) < size + config.disk_reserve:
        raise ToolError(
            f"{work.parent}: {human_bytes(free_bytes(work))} are free, no room to compress"
            f" {human_bytes(size)} beside the data and keep {human_bytes(config.disk_reserve)} in"
            " reserve; make room"
        )
    packed = codec.compress(
        payload,
        work / STORED_NAME,
        config.zstd_level,
        progress=lambda done, total: output.progress("compress", done, total),
    )
    payload.unlink()
    manifest = describe(work.name, config, info, walked, standing, packed)
    raw = manifest_module.encode(manifest)
    write_durably(work / MANIFEST_NAME, raw)
    fsync_directory(work)
    output.step(
        f"compressed: {human_bytes(packed.plain.size)} to {human_bytes(packed.stored.size)}"
    )
    transport.upload(
        config.transport,
        work.parent,
        work.name,
        (STORED_NAME, MANIFEST_NAME),
        notify=output.warn,
    )
    output.step(f"uploaded: {config.set}/{work.name}")
    wait = receipt_wait(config.receipt_timeout, packed.plain.size, packed.stored.size)
    receipt = _confirm(config, work, manifest_module.sha256(raw), wait, output)
    output.step(
        f"accepted: {config.set}/{work.name} at {receipt.accepted_at} by the server's clock"
    )
    return {
        "status": receipt.status,
        "id": manifest.id,
        "set": manifest.set,
        "host": manifest.host,
        "role": "master" if standing.is_master else "replica",
        "fork_time": manifest.fork_time,
        "freshness": manifest.freshness,
        "size": packed.plain.size,
        "stored_size": packed.stored.size,
        "databases": manifest_module.databases_to_json(manifest.databases),
        "manifest_sha256": manifest_module.sha256(raw),
        "accepted_at": receipt.accepted_at,
    }


def describe(
    backup_id: str,
    config: HostConfig,
    info: Mapping[str, str],
    walked: rdb.RdbInfo,
    standing: Standing,
    packed: codec.Compressed,
) -> Manifest:
    """The manifest of a snapshot. Pure. Counts and position come from the RDB, not from INFO."""
    repl_id, repl_offset = verify.replication_position(walked)
    valkey = info.get("valkey_version")
    return Manifest(
        id=backup_id,
        set=config.set,
        host=config.host,
        engine="redis" if valkey is None else "valkey",
        # Valkey's redis_version is the one that it is compatible with, not its own.
        server_version=valkey or info.get("redis_version", "0.0.0"),
        rdb_magic=walked.magic,
        rdb_version=walked.rdb_version,
        repl_id=repl_id,
        repl_offset=repl_offset,
        master=standing.master,
        fork_time=int(walked.aux["ctime"]),
        databases=verify.counts_of(walked),
        digest=walked.digest,
        files=(
            StoredFile(
                name=PAYLOAD_NAME,
                stored_name=STORED_NAME,
                codec=manifest_module.CODEC,
                size=packed.plain.size,
                sha256=packed.plain.sha256,
                stored_size=packed.stored.size,
                stored_sha256=packed.stored.sha256,
            ),
        ),
        tool_version=__version__,
    )


def check_snapshot(walked: rdb.RdbInfo, requested: int, standing: Standing) -> None:
    """That a walked RDB was forked after the request and holds all that the master had then. Pure.
    Raises ToolError.

    `requested` is the server's unix time (seconds) before the request; `ctime` is the same clock
    at the fork.
    """
    ctime = walked.aux.get("ctime", "")
    forked = whole_number(ctime)
    if forked is None or forked < requested:
        raise ToolError(
            f"the RDB was forked at {ctime or 'an unknown time'}, asked for at {requested}: an"
            " older snapshot is no answer"
        )
    repl_id, offset = verify.replication_position(walked)
    freshness = manifest_module.freshness(repl_id, offset, standing.master)
    if freshness == "stale" and standing.master is not None:
        raise ToolError(
            f"the snapshot is stale: replication offset {offset}, the master was at"
            f" {standing.master.repl_offset}; it is no backup, look at the replica's link"
        )
    if freshness == "unknown" and not standing.is_master:
        raise ToolError(
            "the snapshot's replication history is not the master's: the master changed"
            " meanwhile; run again"
        )


def _wait_for_offset(server: RedisServer, master: Position, output: Output) -> None:
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


def _new_id(server: RedisServer, host: str, staging: Path) -> str:
    """An id that this host never used: at most one per second, which the lock file remembers."""
    lock = staging / LOCK_NAME
    while True:
        backup_id = manifest_module.make_id(server.time(), host)
        if lock.read_text(encoding="ascii", errors="replace").strip() != backup_id:
            lock.write_text(backup_id + "\n", encoding="ascii")
            return backup_id
        time.sleep(_POLL)


def receipt_wait(timeout: float, size: int, stored_size: int) -> float:
    """Seconds to wait for a receipt: the configured ones, and what the server needs to copy and
    verify an upload of these sizes (bytes, plain and stored). Pure.
    """
    return timeout + (size + stored_size) / _ACCEPTED_PER_SECOND


def _confirm(
    config: HostConfig, work: Path, manifest_sha256: str, wait: float, output: Output
) -> receipts.Receipt:
    """Wait so many seconds for the receipt of this very backup. Raises ToolError when it does not
    come or says no.
    """
    backup_id = work.name
    deadline = time.monotonic() + wait
    delay = _RECEIPT_POLL_FIRST
    trouble = ""
    while True:
        try:
            raw = transport.fetch_receipt(config.transport, backup_id, work)
            trouble = ""
        except TransportError as problem:
            raw, trouble = None, f" ({problem})"
        if raw is not None:
            receipt = receipts.decode(raw, f"receipt {backup_id}.json")
            complaint = receipts.judge(receipt, config.set, config.host, backup_id, manifest_sha256)
            if complaint is not None:
                raise ToolError(complaint)
            return receipt
        left = deadline - time.monotonic()
        if left <= 0:
            raise ToolError(
                f"uploaded, not confirmed: no receipt for {config.set}/{backup_id} within"
                f" {wait:.1f} s{trouble}; `journalctl -u redis-backup-accept` on the backup"
                " server says why"
            )
        output.progress("waiting for the receipt", 0, 0)
        time.sleep(min(delay, left))
        delay = min(delay * 1.5, _RECEIPT_POLL_MAX)


def _clean(staging: Path) -> None:
    """Remove what a killed run left. Only the holder of the lock may call this."""
    for entry in list(staging.iterdir()):
        if entry.name != LOCK_NAME:
            remove_tree(entry)
