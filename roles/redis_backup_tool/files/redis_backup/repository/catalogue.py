"""The catalogue of a set on disk: read with its chain checked, added to and written anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..base.files import fsync_directory, write_durably
from ..formats.catalogue import (
    CATALOGUE_NAME,
    FIRST_PREVIOUS,
    Catalogue,
    CatalogueError,
    Chain,
    Entry,
    encode,
    line_hash,
    parse,
)

# By directory of a set: the whole lines that were parsed last, and what they were parsed to.
_parsed: dict[Path, tuple[bytes, Catalogue]] = {}


def read(set_dir: Path) -> Catalogue:
    """Read the catalogue of a set's directory (its name is the set's); a missing file has no lines.
    Raises CatalogueError.

    Lines that this process has parsed before are compared with what is there now, and not parsed
    again: some commands read the catalogue once per backup.
    """
    try:
        raw = (set_dir / CATALOGUE_NAME).read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as problem:
        raise CatalogueError(
            f"{set_dir.name}/{CATALOGUE_NAME}: cannot be read ({problem.strerror})"
        ) from None
    whole, before = _parsed.get(set_dir, (b"", None))
    if before is not None and raw == whole:
        return before
    known = parse(raw, set_dir.name, before if raw.startswith(whole) else None)
    if not known.torn:
        _parsed[set_dir] = raw, known
    return known


def append(set_dir: Path, before: Catalogue, entries: Sequence[Entry]) -> Catalogue:
    """Write lines behind those of `before`, durably, and return the catalogue with them.

    Only the holder of the store's lock may call this, with what it has read under that lock. A line
    whose writer was killed half-way is cut off first: nobody was told of it. Raises CatalogueError
    when an event does not fit, OSError when the disk fails.
    """
    chained, data = _chained(set_dir.name, before.entries, before.head, entries)
    descriptor = os.open(
        set_dir / CATALOGUE_NAME, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
    )
    try:
        if before.torn:
            os.ftruncate(descriptor, before.complete_bytes)
        os.lseek(descriptor, before.complete_bytes, os.SEEK_SET)
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if not before.complete_bytes:
        fsync_directory(set_dir)
    return Catalogue(
        set=before.set,
        entries=(*before.entries, *chained),
        head=line_hash(data.rstrip(b"\n").rpartition(b"\n")[2]) if data else before.head,
        complete_bytes=before.complete_bytes + len(data),
        torn=False,
    )


def rewrite(set_dir: Path, entries: Sequence[Entry]) -> Catalogue:
    """Write the whole catalogue anew, durably, of these events in their order. As `append`."""
    _, data = _chained(set_dir.name, (), FIRST_PREVIOUS, entries)
    write_durably(set_dir / CATALOGUE_NAME, data, 0o640)
    return parse(data, set_dir.name)


def _chained(
    set_name: str, before: Sequence[Entry], head: str, entries: Sequence[Entry]
) -> tuple[list[Entry], bytes]:
    """The events with their places in the chain, and the bytes of their lines."""
    chain = Chain(set_name, before)
    chained, lines = [], []
    for entry in entries:
        entry = replace(entry, previous=head)
        chain.add(entry, f"{set_name}/{CATALOGUE_NAME}")
        line = encode(entry)
        head = line_hash(line)
        chained.append(entry)
        lines.append(line + b"\n")
    return chained, b"".join(lines)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
