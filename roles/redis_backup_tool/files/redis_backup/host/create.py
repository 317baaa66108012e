"""`redis-backup create`: one verified backup of the set, published and confirmed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..base import priority
from ..base.errors import ToolError
from ..base.fields import whole_number
from ..base.files import (
    check_owner,
    free_bytes,
    fsync_directory,
    locked,
    make_directory,
    read_if_there,
    remove_tree,
    write_durably,
)
from ..base.output import Output, human_bytes
from ..config.model import HostConfig
from ..digest.comparison import Counting
from ..formats import agreement, lease, receipts
from ..formats import manifest as manifest_module
from ..formats.manifest import (
    MANIFEST_NAME,
    PAYLOAD_NAME,
    STORED_NAME,
    Manifest,
    StoredFile,
)
from ..rdb import walker
from ..transport import rsync, zstd
from . import snapshot
from .server import RedisServer
from .standing import Standing, stand, take_turn, wait_for_offset

STAGING_NAME = ".redis-backup"
LOCK_NAME = "lock"
_POLL = 0.2  # seconds
# Bytes per second at which a slow backup server copies and verifies an upload. A lower bound: a
# receipt that comes is seen at once, and a backup given up too early is made again for nothing.
_ACCEPTED_PER_SECOND = 10_000_000


def run(config: HostConfig, output: Output, *, now: bool) -> dict[str, Any]:
    """Make a backup when it is this host's turn (with `now`, also when it is another's).
    Returns what was done, as JSON data.

    Raises NotNow when it is not this host's turn or another run is at work, ToolError when
    anything is off.
    """
    started = time.monotonic()
    server = RedisServer(config.redis)
    try:
        zstd.binary()
        rsync.binary()
        place = snapshot.locate(server)
        check_owner(place.directory)
        staging = place.directory / STAGING_NAME
        make_staging(staging)
        with locked(staging / LOCK_NAME):
            check_lease(config)
            _clean(staging)
            for path in snapshot.sweep(server, place):
                output.step(f"removed: {path}: a save of a Redis that was killed left it")
            standing = stand(server, config)
            if not now:
                take_turn(server, config, standing, staging, output)
            kind = "manual" if now else "nightly"
            result = _backup(server, config, place, staging, kind, output)
    finally:
        server.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    return result


def check_lease(config: HostConfig) -> None:
    """No backup is made while a restore of this set is at work, or has left its marks: it would be
    one of data in between. Raises ToolError, which names it.
    """
    raw = None if config.lease is None else read_if_there(config.lease)
    if raw is not None:
        found = lease.decode(raw, str(config.lease))
        raise ToolError(
            f"{found.words()} is at work: no backup is made until it is finished or aborted"
        )


def make_staging(staging: Path) -> None:
    """Make the staging directory, private to the engine's user. Raises ToolError."""
    try:
        make_directory(staging)
        staging.chmod(0o700)
    except OSError as problem:
        raise ToolError(
            f"{staging}: cannot be made ({problem.strerror}); run as the user of the Redis server"
        ) from None


def _backup(
    server: RedisServer,
    config: HostConfig,
    place: snapshot.Place,
    staging: Path,
    kind: str,
    output: Output,
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
        wait_for_offset(server, standing.master, output)
    info = server.info()
    snapshot.check_room(place, info, config.disk_reserve)
    backup_id = _new_id(server, config.host, staging)
    work = staging / backup_id
    work.mkdir(mode=0o700)
    try:
        return _make_and_publish(server, config, place, standing, info, work, kind, output)
    finally:
        remove_tree(work)


def _make_and_publish(
    server: RedisServer,
    config: HostConfig,
    place: snapshot.Place,
    standing: Standing,
    info: Mapping[str, str],
    work: Path,
    kind: str,
    output: Output,
) -> dict[str, Any]:
    output.step(
        f"snapshot: BGSAVE on {server.name} ({'master' if standing.is_master else 'replica'})"
    )
    seconds: dict[str, float] = {}
    payload = work / PAYLOAD_NAME
    settings = server.settings()
    began = time.monotonic()
    requested = snapshot.take(
        server,
        place,
        payload,
        config.bgsave_timeout,
        config.disk_reserve,
        say=output.step,
        progress=lambda done, total: output.progress("snapshot", done, total),
    )
    seconds["snapshot"] = time.monotonic() - began
    size = payload.stat().st_size
    if free_bytes(work) < size + config.disk_reserve:
        raise ToolError(
            f"{work.parent}: {human_bytes(free_bytes(work))} are free, no room to compress"
            f" {human_bytes(size)} beside the data and keep {human_bytes(config.disk_reserve)} in"
            " reserve; make room"
        )
    # Redis comes first on this host, and nobody waits for what follows.
    priority.stand_back()
    walked, packed = _walk_and_compress(payload, work / STORED_NAME, config, seconds, output)
    check_snapshot(walked, requested, standing)
    payload.unlink()
    manifest = describe(work.name, kind, config, info, settings, seconds, walked, standing, packed)
    raw = manifest_module.encode(manifest)
    write_durably(work / MANIFEST_NAME, raw)
    fsync_directory(work)
    rsync.upload(
        config.transport,
        work.parent,
        work.name,
        (STORED_NAME, MANIFEST_NAME),
        notify=output.warn,
    )
    output.step(f"uploaded: {config.set}/{work.name}")
    wait = receipt_wait(config.receipt_timeout, packed.plain.size, packed.stored.size)
    receipt = _confirm(config, work, manifest_module.sha256(raw), wait, output)
    for warning in receipt.warnings:
        output.warn(warning)
    accepted_at = None if receipt.event is None else receipt.event.at
    output.step(f"accepted: {config.set}/{work.name} at {accepted_at} by the server's clock")
    return {
        "status": receipt.status,
        "id": manifest.id,
        "set": manifest.set,
        "host": manifest.host,
        "kind": manifest.kind,
        "role": "master" if standing.is_master else "replica",
        "fork_time": manifest.fork_time,
        "freshness": manifest.freshness,
        "size": packed.plain.size,
        "stored_size": packed.stored.size,
        "databases": manifest_module.databases_to_json(manifest.databases),
        "manifest_sha256": manifest_module.sha256(raw),
        "accepted_at": accepted_at,
    }


def _walk_and_compress(
    payload: Path, target: Path, config: HostConfig, seconds: dict[str, float], output: Output
) -> tuple[walker.RdbInfo, zstd.Compressed]:
    """Read the snapshot once, for the walk, the hash and zstd; adds to `seconds`. Raises
    RdbError, ToolError.
    """
    size = payload.stat().st_size
    walked: list[walker.RdbInfo] = []
    began = time.monotonic()

    def look(stream: zstd.HashingReader) -> None:
        try:
            # What is in values is what Redis computed the checksum of; the backup server looks.
            walked.append(walker.inspect_stream(stream, size, skimmer=Counting()))
        except walker.RdbError as problem:
            raise walker.RdbError(
                problem.offset, problem.seen, problem.meaning, str(payload)
            ) from None
        seconds["walk"] = time.monotonic() - began

    packed = zstd.compress(
        payload,
        target,
        config.zstd_level,
        progress=lambda done, total: output.progress("walk and compress", done, total),
        look=look,
    )
    seconds["compress"] = time.monotonic() - began - seconds["walk"]
    [found] = walked
    keys = sum(item.keys for item in found.databases.values())
    output.step(
        f"walked: {human_bytes(size)}, {keys} keys in {len(found.databases)} databases,"
        " checksum right"
    )
    output.step(
        f"compressed: {human_bytes(packed.plain.size)} to {human_bytes(packed.stored.size)}"
    )
    return found, packed


def describe(
    backup_id: str,
    kind: str,
    config: HostConfig,
    info: Mapping[str, str],
    settings: Mapping[str, str],
    seconds: Mapping[str, float],
    walked: walker.RdbInfo,
    standing: Standing,
    packed: zstd.Compressed,
) -> Manifest:
    """The manifest of a snapshot. Pure. Counts and position come from the RDB, not from INFO."""
    repl_id, repl_offset = agreement.replication_position(walked)
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
        databases=agreement.counts_of(walked),
        settings=settings,
        seconds={phase: round(spent, 3) for phase, spent in seconds.items()},
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
        kind=kind,
    )


def check_snapshot(walked: walker.RdbInfo, requested: int, standing: Standing) -> None:
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
    repl_id, offset = agreement.replication_position(walked)
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
    trouble = ""
    answers = rsync.polled(lambda: rsync.fetch_receipt(config.transport, backup_id, work), wait)
    for raw, unasked in answers:
        trouble = unasked
        if raw is not None:
            receipt = receipts.decode(raw, f"receipt {backup_id}.json")
            if receipt.status == receipts.DEFERRED:
                trouble = f" (deferred by the backup server: {receipt.reason}; it goes on trying)"
            else:
                complaint = receipts.judge(
                    receipt,
                    config.set,
                    config.host,
                    backup_id,
                    manifest_sha256,
                    config.repository,
                )
                if complaint is not None:
                    raise ToolError(complaint)
                return receipt
        output.progress("waiting for the receipt", 0, 0)
    raise ToolError(
        f"uploaded, not confirmed: no receipt for {config.set}/{backup_id} within"
        f" {wait:.1f} s{trouble}; `journalctl -u redis-backup-accept` on the backup"
        " server says why"
    )


def _clean(staging: Path) -> None:
    """Remove what a killed run left. Only the holder of the lock may call this."""
    for entry in list(staging.iterdir()):
        if entry.name != LOCK_NAME:
            remove_tree(entry)
