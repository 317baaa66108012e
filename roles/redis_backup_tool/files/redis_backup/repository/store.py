"""The store of backups on the backup server: where things are, and what disagrees with the
catalogue.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..base.errors import ToolError, UsageError
from ..base.fields import is_backup_id, is_name
from ..config.model import ServerConfig
from ..formats.catalogue import CATALOGUE_NAME, Catalogue, CatalogueError, Entry, parse_timestamp
from ..formats.manifest import EXAMPLE_ID, MANIFEST_NAME, Manifest
from ..transport.zstd import Progress
from . import catalogue as catalogue_module
from . import reread

DRILLS_NAME = "drills"
# Backups on their way into the store: same file system, a name that no set can have.
INCOMING_NAME = ".incoming"
# What was in the store, damaged and never accepted: `<set>/<id>-<time>`, for somebody to look at.
QUARANTINE_NAME = ".quarantine"
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


def without_line(set_dir: Path, catalogue: Catalogue) -> list[str]:
    """The ids of the backups in a set's directory that the catalogue does not know, oldest
    first.
    """
    accepted = catalogue.accepted()
    return [backup_id for backup_id in backup_ids(set_dir) if backup_id not in accepted]


def lost_lines(set_dir: Path, catalogue: Catalogue) -> str | None:
    """What is wrong when backups have no line and no kill explains it, None otherwise.

    An `accept` that is killed before it writes the line leaves one, which is newer than the last
    line: the next run does not take anything into the set before that is finished.
    """
    left = without_line(set_dir, catalogue)
    if len(left) > 1:
        return catalogue_module.lost_lines(set_dir.name, "lost its end", left)
    if left and catalogue.entries:
        last = list(catalogue.accepted().values())[-1]
        with suppress(FileNotFoundError):
            # A second for clocks: that of the kernel's files is behind by milliseconds.
            made = (set_dir / left[0]).stat().st_mtime
            if made + 1 < parse_timestamp(last.at):
                return catalogue_module.lost_lines(set_dir.name, "lost a line", left)
    return None


def check_lines(set_dir: Path, catalogue: Catalogue) -> None:
    """Raises CatalogueError when lines were lost: what is decided without them would be wrong."""
    lost = lost_lines(set_dir, catalogue)
    if lost is not None:
        raise CatalogueError(lost)


def drill_ids(set_dir: Path) -> list[str]:
    """The ids of the reports in a set's directory, oldest first."""
    names = (path.name[: -len(".json")] for path in (set_dir / DRILLS_NAME).glob("*.json"))
    return sorted(name for name in names if is_backup_id(name))


def _drilled(set_dir: Path, drill_id: str) -> str | None:
    """The backup that a report is about, None when it is about none or cannot be read."""
    try:
        return str(read_drill(set_dir, drill_id).get("backup_id"))
    except ToolError:
        return None


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
    """What store and catalogue of a set disagree about, one complaint each, naming `<set>/<id>`."""
    name = set_dir.name
    if catalogue.torn:
        yield (
            f"{name}/{CATALOGUE_NAME}: ends in the middle of a line: its writer"
            " was killed;"
            " the next `redis-backup accept` repairs it"
        )
    lost = lost_lines(set_dir, catalogue)
    if lost is not None:
        yield lost
    accepted, present = catalogue.accepted(), catalogue.present()
    there = backup_ids(set_dir)
    for backup_id in sorted(set(there) | set(present)):
        where = f"{name}/{backup_id}"
        if backup_id not in accepted:
            if lost is None:
                yield f"{where}: is in the store but has no line in the catalogue"
        elif backup_id not in present:
            yield f"{where}: is in the store but is pruned by the catalogue"
        elif backup_id not in there:
            yield f"{where}: has a line in the catalogue but is not in the store"
    for drill_id in drill_ids(set_dir):
        if not catalogue.has_drill(drill_id) and _drilled(set_dir, drill_id) in present:
            yield (
                f"{name}/{DRILLS_NAME}/{drill_id}.json: has no line in the catalogue;"
                " the next `redis-backup accept` writes it"
            )


def verify_backup(
    set_dir: Path,
    backup_id: str,
    catalogue: Catalogue,
    progress: Progress | None = None,
) -> reread.Verified:
    """Re-read one backup of the store and compare it with manifest and catalogue. Raises
    VerifyError.
    """
    line = catalogue.present().get(backup_id)
    where = f"{set_dir.name}/{backup_id}"
    if line is None:
        gone = catalogue.deleted_on(backup_id)
        raise reread.VerifyError(
            f"{where}: has no line in the catalogue, so it was never accepted"
            if gone is None
            else f"{where}: was deleted by retention on {gone}"
        )
    if not (set_dir / backup_id).is_dir():
        raise reread.VerifyError(f"{where}: has a line in the catalogue but is not in the store")
    manifest = _accepted_manifest(set_dir, line)
    info = reread.verify_set(set_dir / backup_id, manifest, progress=progress)
    return reread.Verified(manifest, line.manifest_sha256, info)


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


def read_drill(set_dir: Path, drill_id: str) -> dict[str, Any]:
    """The report of a drill as it was stored. Raises ToolError."""
    path = set_dir / DRILLS_NAME / f"{drill_id}.json"
    where = f"{set_dir.name}/{DRILLS_NAME}/{drill_id}.json"
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise ToolError(f"{where}: cannot be read ({problem})") from None
    if not isinstance(data, dict):
        raise ToolError(f"{where}: is no report")
    return data
