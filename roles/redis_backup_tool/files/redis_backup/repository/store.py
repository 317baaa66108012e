"""The store of backups on the backup server: where things are, and what disagrees with the
catalogue.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base.errors import ToolError, UsageError
from ..base.fields import is_backup_id, is_name
from ..config.model import ServerConfig
from ..formats import receipts
from ..formats.catalogue import Catalogue, Entry
from ..formats.manifest import EXAMPLE_ID, MANIFEST_NAME, Manifest
from ..formats.receipts import RECEIPT_NAME, Receipt
from ..formats.report import REPORT_NAME
from ..transport.zstd import Progress
from . import catalogue as catalogue_module
from . import reread

DRILLS_NAME = "drills"
EVENTS_NAME = "events"
# Backups on their way into the store, and out of it: same file system, names that no set can have.
INCOMING_NAME = ".incoming"
PRUNED_NAME = ".pruned"
# The receipts of drill reports, by drill id.
REPORT_RECEIPTS_NAME = ".receipts"
LOCK_NAME = ".lock"


def set_names(store: Path) -> list[str]:
    """The sets in the store. Raises ToolError when the store cannot be read."""
    try:
        return sorted(
            entry.name for entry in store.iterdir() if is_name(entry.name) and entry.is_dir()
        )
    except OSError as problem:
        raise ToolError(
            f"{store}: the store cannot be read ({problem.strerror}); run as the user redis-backup"
        ) from None


def backup_ids(set_dir: Path) -> list[str]:
    """The ids of the backups in a set's directory, oldest first."""
    return sorted(entry.name for entry in set_dir.iterdir() if is_backup_id(entry.name))


def drill_ids(set_dir: Path) -> list[str]:
    """The ids of the reports in a set's directory, oldest first."""
    with suppress(FileNotFoundError):
        names = os.listdir(set_dir / DRILLS_NAME)
        return sorted(name for name in names if is_backup_id(name))
    return []


def event_paths(set_dir: Path) -> list[Path]:
    """The documents of the other events, in the order of their numbers."""
    with suppress(FileNotFoundError):
        names = os.listdir(set_dir / EVENTS_NAME)
        return [set_dir / EVENTS_NAME / name for name in sorted(names) if name[:1].isdigit()]
    return []


def read_receipt(path: Path, where: str) -> Receipt:
    """A receipt that lies in the store. Raises ToolError, which names `where`."""
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise ToolError(f"{where}: cannot be read ({problem.strerror})") from None
    return receipts.decode(raw, where)


def drill_receipt(set_dir: Path, drill_id: str) -> Receipt:
    """The receipt of a drill's report. Raises ToolError."""
    path = set_dir / DRILLS_NAME / drill_id / RECEIPT_NAME
    return read_receipt(path, f"{set_dir.name}/{DRILLS_NAME}/{drill_id}/{RECEIPT_NAME}")


def find(config: ServerConfig, target: str) -> tuple[str, str]:
    """The set and id that `<set>/<id>` or `<id>` means. Raises UsageError when the form is wrong,
    ToolError when it is not there or the id alone names several.
    """
    set_name, _, backup_id = target.rpartition("/")
    if not is_backup_id(backup_id) or (set_name and not is_name(set_name)):
        raise UsageError(
            f"{target[:100]!r} is not a backup ID; IDs look like {EXAMPLE_ID}, with <set>/ before"
            " it where needed"
        )
    names = [set_name] if set_name else set_names(config.store)
    found = [
        name
        for name in names
        if (config.store / name / backup_id).is_dir()
        or backup_id in catalogue_module.read(config.store / name).accepted()
    ]
    if not found:
        raise ToolError(
            f"{target}: no such backup in {config.store}; `redis-backup list` shows what there is"
        )
    if len(found) > 1:
        raise ToolError(
            f"{target}: several sets have it, say"
            f" {' or '.join(f'{name}/{backup_id}' for name in found)}"
        )
    return found[0], backup_id


def consistency(set_dir: Path, catalogue: Catalogue) -> Iterator[str]:
    """What store and catalogue of a set disagree about, one complaint each, naming `<set>/<id>`.

    A backup with a receipt and without a line is none: a run is between the two, or was killed
    there, and the next one writes the line.
    """
    name = set_dir.name
    present = catalogue.present()
    there = backup_ids(set_dir)
    for backup_id in sorted(set(there) | set(present)):
        where = f"{name}/{backup_id}"
        if backup_id not in there:
            yield (
                f"{where}: has a line in the catalogue but is not in the store: restore the"
                " directory from a copy, if there is one"
            )
        elif backup_id not in present and not (set_dir / backup_id / RECEIPT_NAME).exists():
            yield (
                f"{where}: is in the store but has no receipt, so it was never accepted: it counts"
                " for nothing; look at it, then remove it"
            )


def verify_backup(
    set_dir: Path, backup_id: str, catalogue: Catalogue, progress: Progress | None = None
) -> None:
    """Re-read one backup of the store to its end and compare it with manifest and catalogue: level
    *form*. Raises VerifyError, or ToolError when the disk fails.
    """
    manifest = _accepted_manifest(set_dir, _line(set_dir, backup_id, catalogue))
    reread.verify_set(set_dir / backup_id, manifest, progress=progress)


def scrub_backup(
    set_dir: Path, backup_id: str, catalogue: Catalogue, _progress: Progress | None = None
) -> None:
    """Compare the stored bytes of one backup with manifest and catalogue: level *bytes*. Raises as
    `verify_backup`.
    """
    manifest = _accepted_manifest(set_dir, _line(set_dir, backup_id, catalogue))
    reread.check_stored(set_dir / backup_id, manifest)


def forget_pages(directory: Path) -> None:
    """Have the files of a directory read from the disk again, and not from the memory of the
    system. Raises OSError.
    """
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _line(set_dir: Path, backup_id: str, catalogue: Catalogue) -> Entry:
    line = catalogue.present().get(backup_id)
    if line is None:
        raise reread.VerifyError(absent(catalogue, backup_id))
    if not (set_dir / backup_id).is_dir():
        raise reread.VerifyError(
            f"{set_dir.name}/{backup_id}: has a line in the catalogue but is not in the store"
        )
    return line


def check_backup(set_dir: Path, line: Entry) -> Manifest:
    """The manifest of an accepted backup, if it is the accepted one and its payload is there in
    full size; nothing else is read of it. Raises VerifyError, or ToolError when the disk fails.
    """
    manifest = _accepted_manifest(set_dir, line)
    where = f"{set_dir.name}/{line.id}/{manifest.payload.stored_name}"
    try:
        status = (set_dir / line.id / manifest.payload.stored_name).lstat()
    except OSError as problem:
        raise reread.VerifyError(f"{where}: cannot be found ({problem.strerror})") from None
    if not stat.S_ISREG(status.st_mode) or status.st_size != manifest.payload.stored_size:
        raise reread.VerifyError(
            f"{where}: is not a file of {manifest.payload.stored_size} bytes, as the manifest says"
        )
    return manifest


def _accepted_manifest(set_dir: Path, line: Entry) -> Manifest:
    manifest, digest = reread.read_manifest(set_dir / line.id, set_dir.name, line.id)
    if digest != line.manifest_sha256:
        raise reread.VerifyError(
            f"{set_dir.name}/{line.id}/{MANIFEST_NAME}: sha256 is {digest}, the catalogue says"
            f" {line.manifest_sha256}:"
            " the manifest was changed or damaged"
        )
    return manifest


def absent(catalogue: Catalogue, backup_id: str) -> str:
    """Why a backup is not one of those in the store."""
    where = f"{catalogue.set}/{backup_id}"
    gone = catalogue.deleted_on(backup_id)
    if gone is not None:
        return f"{where}: was deleted by retention on {gone}"
    return f"{where}: has no line in the catalogue, so it was never accepted"


def read_drill(set_dir: Path, drill_id: str) -> dict[str, Any]:
    """The report of a drill as it was stored. Raises ToolError."""
    path = set_dir / DRILLS_NAME / drill_id / REPORT_NAME
    where = f"{set_dir.name}/{DRILLS_NAME}/{drill_id}/{REPORT_NAME}"
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise ToolError(f"{where}: cannot be read ({problem})") from None
    if not isinstance(data, dict):
        raise ToolError(f"{where}: is no report")
    return data
