"""Stores for tests of what happens to backups after they were accepted: drills, verdicts, and very
many backups at once.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from redis_backup.base.output import Output
from redis_backup.base.times import timestamp
from redis_backup.formats import document, manifest, receipts
from redis_backup.formats.catalogue import Entry
from redis_backup.repository import catalogue, identity, ledger, store

from tests.tool.backup_lab import SET, BackupServer, make_upload, store_backup

DUMP = Path(__file__).parents[1] / "fixtures" / "rdb" / "redis-7.0" / "tiny.rdb"
DAY = 86400
HOST = "redis-1"


def quiet() -> Output:
    """An output that nobody reads."""
    return Output(True, io.StringIO(), io.StringIO())


def stored(server: BackupServer, days: float, *, host: str = HOST, drill: str | None = None) -> str:
    """Put a backup into the store as if it had been made and accepted some days ago, and drilled
    with this verdict a second later. Returns its id.
    """
    moment = time.time() - days * DAY
    backup_id = manifest.make_id(moment, host)
    store_backup(server, DUMP.read_bytes(), backup_id, at=moment)
    if drill is not None:
        drilled(server, backup_id, drill, moment + 1)
    return backup_id


def opened(server: BackupServer) -> ledger.Ledger:
    """The ledger of the set; nobody else is at work in these tests."""
    return ledger.Ledger(server.loaded(), SET)


def drilled(
    server: BackupServer,
    backup_id: str | None,
    verdict: str,
    at: float,
    **report: Any,
) -> str:
    """Store the report of a drill of this moment (unix seconds) as `accept` does. Returns its
    id.
    """
    drill_id = manifest.make_id(at, "drill-1")
    while drill_id in store.drill_ids(server.store / SET):
        at += 1
        drill_id = manifest.make_id(at, "drill-1")
    book = opened(server)
    level = "values" if verdict == "passed" else "none"
    raw = document.encode(
        {"set": SET, "backup_id": backup_id, "verdict": verdict, "level": level, **report}
    )
    work = server.root / "uploads" / drill_id
    work.mkdir(parents=True)
    (work / "report.json").write_bytes(raw)
    event = None
    if backup_id is not None:
        about = book.about(backup_id, "drilled", at)
        event = replace(about, host="drill-1", drill_id=drill_id, level=level, verdict=verdict)
    receipt = receipts.Receipt(
        id=drill_id,
        set=SET,
        host="drill-1",
        status=receipts.ACCEPTED,
        repository=identity.require(server.loaded()),
        manifest_sha256=manifest.sha256(raw),
        event=event,
    )
    book.take_report(work, receipt)
    return drill_id


def ids(server: BackupServer) -> list[str]:
    """The directories of backups in the store."""
    return store.backup_ids(server.store / SET)


def flip(path: Path, position: int = 20) -> None:
    """One bit of a file turns over, and nothing else of it."""
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)


def many(server: BackupServer, number: int, hours: float = 24) -> list[str]:
    """So many backups, one every so many hours until now, made by hand and fast. Returns their
    ids, oldest first.
    """
    config = server.loaded()
    set_dir = config.store / SET
    (config.receipts / SET).mkdir(exist_ok=True)
    model = make_upload(server.root / "model", DUMP.read_bytes(), f"20260101T000000Z-{HOST}")
    payload = (model / manifest.STORED_NAME).read_bytes()
    data = json.loads((model / manifest.MANIFEST_NAME).read_bytes())
    repository = identity.require(config)
    entries: list[Entry] = []
    now = int(time.time())
    for index in range(number):
        moment = now - int((number - 1 - index) * hours * 3600)
        backup_id = manifest.make_id(moment, HOST)
        directory = set_dir / backup_id
        directory.mkdir(parents=True)
        raw = json.dumps({**data, "id": backup_id}).encode()
        event = Entry(
            event="accepted",
            id=backup_id,
            set=SET,
            at=timestamp(moment),
            manifest_sha256=manifest.sha256(raw),
            host=HOST,
            n=index + 1,
            kind="nightly",
            level="form",
            fork_time=moment,
            keys=1,
            size=data["files"][0]["size"],
            stored_size=len(payload),
        )
        receipt = receipts.encode(
            receipts.Receipt(
                id=backup_id,
                set=SET,
                host=HOST,
                status=receipts.ACCEPTED,
                repository=repository,
                manifest_sha256=event.manifest_sha256,
                event=event,
            )
        )
        (directory / manifest.STORED_NAME).write_bytes(payload)
        (directory / manifest.MANIFEST_NAME).write_bytes(raw)
        (directory / receipts.RECEIPT_NAME).write_bytes(receipt)
        (config.receipts / SET / f"{backup_id}.json").write_bytes(receipt)
        entries.append(event)
    catalogue.rewrite(set_dir, entries)
    return [entry.id for entry in entries]
