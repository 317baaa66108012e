"""Re-reading a backup: its manifest, its bytes, its form, its counts. No server is needed.

Every complaint names the file as `<set>/<id>/<file>`.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import codec, rdb
from . import manifest as manifest_module
from .codec import Digest, Progress
from .errors import ToolError
from .fields import whole_number
from .manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Counts, Manifest


class VerifyError(ToolError):
    """A backup is not what it claims to be. `reached` is the level that held, None when not even
    the bytes did.
    """

    def __init__(self, message: str, reached: str | None = None) -> None:
        super().__init__(message)
        self.reached = reached


@dataclass(frozen=True)
class Verified:
    """A backup that is what it claims to be: its manifest, the sha256 of the manifest's bytes, and
    its RDB.
    """

    manifest: Manifest
    manifest_sha256: str
    info: rdb.RdbInfo


def read_manifest(directory: Path, set_name: str, backup_id: str) -> tuple[Manifest, str]:
    """The manifest in a backup's directory and the sha256 of its bytes.

    It must be about this set and this id. Raises VerifyError, or ToolError when the disk cannot
    read it; both name `<set>/<id>/manifest.json`.
    """
    where = f"{set_name}/{backup_id}/{MANIFEST_NAME}"
    with _opened(directory / MANIFEST_NAME, where) as file:
        try:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as problem:
            raise ToolError(f"{where}: cannot be read ({problem.strerror})") from None
    try:
        manifest = manifest_module.decode(raw, where)
    except ToolError as problem:
        raise VerifyError(str(problem)) from None
    if manifest.id != backup_id or manifest.set != set_name:
        raise VerifyError(f"{where}: is the manifest of {manifest.set}/{manifest.id}")
    return manifest, manifest_module.sha256(raw)


def verify_set(
    directory: Path, manifest: Manifest, *, progress: Progress | None = None
) -> rdb.RdbInfo:
    """Re-read one backup and compare it with its manifest: levels bytes, form and counts.

    `directory` holds the files under the names of the manifest. Raises VerifyError, which names
    `<set>/<id>/<file>`.
    """
    return verify_payload(directory, manifest, progress=progress)


def verify_payload(
    directory: Path,
    manifest: Manifest,
    *,
    sink: BinaryIO | None = None,
    progress: Progress | None = None,
) -> rdb.RdbInfo:
    """As `verify_set`; the plain RDB is also written into `sink`, which holds it only when this
    returns.

    The stored bytes are compared before anything reads them as a format.
    """
    payload = manifest.payload
    where = f"{manifest.set}/{manifest.id}/{payload.stored_name}"
    with _opened(directory / payload.stored_name, where) as file:
        size = os.fstat(file.fileno()).st_size
        if size != payload.stored_size:
            raise VerifyError(f"{where}: {size} bytes, the manifest says {payload.stored_size}")
        try:
            stored = codec.hash_file(file, payload.stored_size)
        except codec.DamagedError as problem:
            raise VerifyError(f"{where}: {problem}") from None
        except OSError as problem:
            raise ToolError(f"{where}: cannot be read ({problem.strerror})") from None
        if stored.sha256 != payload.stored_sha256:
            raise VerifyError(
                f"{where}: sha256 is {stored.sha256}, the manifest says {payload.stored_sha256}:"
                " the stored file was changed or damaged"
            )
        info = _walk(file, where, manifest, sink, progress)
    complaint = compare(info, manifest)
    if complaint is not None:
        raise VerifyError(f"{where}: {complaint}", "form")
    return info


def compare(info: rdb.RdbInfo, manifest: Manifest) -> str | None:
    """What in an RDB disagrees with the manifest, None when nothing does. Pure."""
    if (info.magic, info.rdb_version) != (manifest.rdb_magic, manifest.rdb_version):
        return (
            f"the file is {info.magic} version {info.rdb_version},"
            f" the manifest says {manifest.rdb_magic} version {manifest.rdb_version}"
        )
    if info.aux.get("ctime") != str(manifest.fork_time):
        return f"made at {info.aux.get('ctime')}, the manifest says {manifest.fork_time}"
    position = replication_position(info)
    if position != (manifest.repl_id, manifest.repl_offset):
        return (
            f"replication position is {position}, the manifest says"
            f" {(manifest.repl_id, manifest.repl_offset)}"
        )
    found = counts_of(info)
    for number in sorted(set(found) | set(manifest.databases)):
        here = found.get(number, Counts(0, 0))
        claimed = manifest.databases.get(number, Counts(0, 0))
        if here != claimed:
            return (
                f"db{number} has {here.keys} keys, {here.expires} that expire;"
                f" the manifest says {claimed.keys} and {claimed.expires}"
            )
    return None


def counts_of(info: rdb.RdbInfo) -> dict[int, Counts]:
    """The counts per database of a walked RDB, as the manifest has them."""
    return {number: Counts(item.keys, item.expires) for number, item in info.databases.items()}


def replication_position(info: rdb.RdbInfo) -> tuple[str | None, int | None]:
    """`repl-id` and `repl-offset` of a walked RDB, None and None where it has none or they are not
    usable.
    """
    repl_id, offset = info.aux.get("repl-id"), info.aux.get("repl-offset")
    number = None if offset is None else whole_number(offset)
    if repl_id is None or number is None:
        return None, None
    return repl_id, number


def _walk(
    file: BinaryIO, where: str, manifest: Manifest, sink: BinaryIO | None, progress: Progress | None
) -> rdb.RdbInfo:
    """Decompress, hash and walk in one pass. A wrong hash goes before a wrong form: bytes come
    first.
    """
    payload = manifest.payload
    malformed: rdb.RdbError | None = None
    info: rdb.RdbInfo | None = None
    try:
        with codec.decompressed(file, payload.size, progress) as stream:
            source = stream if sink is None else _Tee(stream, sink)
            buffered = io.BufferedReader(source, codec.CHUNK)
            try:
                info = rdb.inspect_stream(buffered, payload.size)
            except rdb.RdbError as problem:
                malformed = problem
            # What the buffer read ahead was hashed already; letting go of it must not close the
            # stream.
            buffered.detach()
            plain = _drain(stream, source)
    except codec.DamagedError as problem:
        raise VerifyError(f"{where}: {problem}") from None
    if plain != Digest(payload.size, payload.sha256):
        raise VerifyError(
            f"{where}: decompressed it has {plain.size} bytes with sha256 {plain.sha256},"
            f" the manifest says {payload.size} and {payload.sha256}"
        )
    if malformed is not None:
        raise VerifyError(f"{where}: {malformed}", "bytes")
    if info is None:
        raise AssertionError("walked or malformed")
    return info


class _Tee(io.RawIOBase):
    """A stream that also writes what is read through it."""

    def __init__(self, source: codec.HashingReader, sink: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._sink = sink

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        count = self._source.readinto(buffer)
        self._sink.write(memoryview(buffer)[:count])
        return count


def _drain(stream: codec.HashingReader, source: io.RawIOBase) -> Digest:
    """Read what the walker left, through the tee when there is one."""
    while source.read(codec.CHUNK):
        pass
    return stream.drain()


@contextmanager
def _opened(path: Path, where: str) -> Iterator[BinaryIO]:
    """A regular file, opened without following a link. Raises VerifyError, which names `where`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise VerifyError(f"{where}: is missing") from None
    except OSError as problem:
        raise VerifyError(f"{where}: cannot be opened ({problem.strerror})") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise VerifyError(f"{where}: is not a regular file")
        yield file
