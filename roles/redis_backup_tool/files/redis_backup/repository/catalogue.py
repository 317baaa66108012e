"""The catalogue of a set on disk: read with its chain checked, added to one line at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..base.fields import is_backup_id
from ..base.files import fsync_directory
from ..formats.catalogue import (
    CATALOGUE_NAME,
    Catalogue,
    CatalogueError,
    Entry,
    check_order,
    decode,
    encode,
    line_hash,
    parse,
)


def read(set_dir: Path) -> Catalogue:
    """Read the catalogue of a set's directory (its name is the set's). Raises CatalogueError, also
    for one without lines beside several backups; beside none or one it is that of a new set.
    """
    found = read_lines(set_dir)
    if not found.entries:
        with suppress(FileNotFoundError):
            names = (path.name for path in set_dir.iterdir())
            backups = sorted(name for name in names if is_backup_id(name))
            if len(backups) > 1:
                raise CatalogueError(lost_lines(set_dir.name, "is gone", backups))
    return found


def read_lines(set_dir: Path) -> Catalogue:
    """As `read`, whatever lies beside it; a missing file has no lines."""
    try:
        raw = (set_dir / CATALOGUE_NAME).read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as problem:
        raise CatalogueError(
            f"{set_dir.name}/{CATALOGUE_NAME}: cannot be read ({problem.strerror})"
        ) from None
    return parse(raw, set_dir.name)


def lost_lines(set_name: str, seen: str, backups: Sequence[str]) -> str:
    """What to tell when backups have no line and no killed run explains it."""
    named = ", ".join([*backups[:1], *(["..."] if len(backups) > 2 else []), *backups[1:][-1:]])
    return (
        f"{set_name}/{CATALOGUE_NAME}: the catalogue {seen}, {len(backups)}"
        f" {'backups have' if len(backups) > 1 else 'backup has'} no line: {named};"
        " nothing is accepted into this set or deleted from it: put back the newest copy of the"
        f" file if there is one, then run `redis-backup accept --rebuild {set_name}`"
    )


def append(set_dir: Path, entry: Entry) -> Catalogue:
    """Write a line, durably, and return the catalogue with it. `entry.previous` is filled in here.

    Only the holder of the store's lock may call this. A line whose writer was killed half-way is
    cut off first: nobody was told of it. Raises CatalogueError when the chain is broken, OSError
    when the disk fails.
    """
    before = read_lines(set_dir)
    entry = Entry(**{**vars(entry), "previous": before.head})
    events = {item.event for item in before.entries if item.id == entry.id}
    check_order(entry, events, f"{set_dir.name}/{CATALOGUE_NAME}")
    line = encode(entry)
    decode(line, f"{set_dir.name}/{CATALOGUE_NAME}")
    descriptor = os.open(
        set_dir / CATALOGUE_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
    )
    try:
        if before.torn:
            os.ftruncate(descriptor, before.complete_bytes)
        os.lseek(descriptor, before.complete_bytes, os.SEEK_SET)
        _write_all(descriptor, line + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fsync_directory(set_dir)
    return Catalogue(
        set=before.set,
        entries=(*before.entries, entry),
        head=line_hash(line),
        complete_bytes=before.complete_bytes + len(line) + 1,
        torn=False,
    )


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
