"""`redis-backup fetch`: one backup of the store as a plain RDB, for a person."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..base.errors import ToolError, UsageError
from ..base.files import free_bytes, fsync_directory
from ..base.output import Output, human_bytes
from ..config.model import ServerConfig
from ..repository import catalogue as catalogue_module
from ..repository import reread, store


def run(config: ServerConfig, target: str, directory: Path, output: Output) -> dict[str, Any]:
    """Write a backup, read to its end and compared with its manifest, as `<directory>/<id>.rdb`.
    Returns what was written, as JSON data. Raises UsageError for a directory that is not there,
    ToolError when the file is there already, the backup is not good, or there is no room.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory")
    set_name, backup_id = store.find(config, target)
    set_dir = config.store / set_name
    line = catalogue_module.read(set_dir).present().get(backup_id)
    if line is None:
        raise ToolError(store.absent(catalogue_module.read(set_dir), backup_id))
    manifest = store.check_backup(set_dir, line)
    result = directory / f"{backup_id}.rdb"
    if os.path.lexists(result):
        raise ToolError(f"{result}: is there already; nothing is written over it")
    free = free_bytes(directory)
    if free < manifest.payload.size:
        raise ToolError(
            f"{directory} has {human_bytes(free)} free, {human_bytes(manifest.payload.size)} are"
            " needed"
        )
    output.step(f"{set_name}/{backup_id}: {human_bytes(manifest.payload.size)}")
    # Its name is right when its content is: a run that ends in the middle leaves another one.
    partial = directory / f".{backup_id}.rdb.partial"
    partial.unlink(missing_ok=True)
    try:
        reread.unpack(set_dir / backup_id, manifest, partial)
        reread.walk(
            partial,
            manifest,
            progress=lambda done, total: output.progress(f"walk {backup_id}", done, total),
        )
        # Unlike a rename, a link replaces nothing that has come there meanwhile.
        os.link(partial, result)
    except FileExistsError:
        raise ToolError(f"{result}: is there already; nothing is written over it") from None
    finally:
        partial.unlink(missing_ok=True)
    fsync_directory(directory)
    return {
        "set": set_name,
        "id": backup_id,
        "path": str(result),
        "size": manifest.payload.size,
        "sha256": manifest.payload.sha256,
        "engine": manifest.engine,
        "server_version": manifest.server_version,
    }
