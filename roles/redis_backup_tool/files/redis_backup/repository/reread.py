"""Re-reading a backup: its manifest, its bytes, its form, its counts. No server is needed.

Every complaint names the file as `<set>/<id>/<file>`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..base.errors import ToolError
from ..formats import manifest as manifest_module
from ..formats.agreement import compare, other_version
from ..formats.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest
from ..rdb import walker
from ..transport import zstd
from ..transport.zstd import Digest, Progress


class VerifyError(ToolError):
    """A backup is not what it claims to be. `reached` is the level that held, None when not even
    the bytes did.
    """

    def __init__(self, message: str, reached: str | None = None) -> None:
        super().__init__(message)
        self.reached = reached


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
    directory: Path,
    manifest: Manifest,
    *,
    progress: Progress | None = None,
) -> walker.RdbInfo:
    """Re-read one backup and compare it with its manifest: levels bytes, form and counts.

    `directory` holds the files under the names of the manifest. Raises VerifyError, which names
    `<set>/<id>/<file>`. The stored bytes are compared before anything reads them as a format.
    """
    where = _where(manifest)
    with _opened(directory / manifest.payload.stored_name, where) as file:
        _check_stored(file, where, manifest)
        info = _walk(file, where, manifest, progress)
    complaint = compare(info, manifest)
    if complaint is not None:
        raise VerifyError(f"{where}: {complaint}", "form")
    return info


def check_stored(directory: Path, manifest: Manifest) -> None:
    """That the stored bytes of a backup are those that its manifest names. Raises VerifyError, or
    ToolError when the disk cannot read them.
    """
    where = _where(manifest)
    with _opened(directory / manifest.payload.stored_name, where) as file:
        _check_stored(file, where, manifest)


def unpack(directory: Path, manifest: Manifest, target: Path) -> None:
    """Write the plain RDB of a backup into a new file: of stored bytes that are the manifest's, and
    with its header. `walk` has to look at the rest. Raises VerifyError.
    """
    where = _where(manifest)
    with _opened(directory / manifest.payload.stored_name, where) as file:
        _check_stored(file, where, manifest)
        try:
            zstd.decompress(file, target, manifest.payload.size)
        except zstd.DamagedError as problem:
            raise VerifyError(f"{where}: {problem}") from None
    with target.open("rb") as plain:
        try:
            magic, version = walker.header(plain.read(walker.HEADER_SIZE))
        except walker.RdbError as problem:
            raise VerifyError(f"{where}: {problem}", "bytes") from None
    if (magic, version) != (manifest.rdb_magic, manifest.rdb_version):
        raise VerifyError(f"{where}: {other_version(magic, version, manifest)}", "bytes")


def walk(
    path: Path,
    manifest: Manifest,
    *,
    progress: Progress | None = None,
    digester: walker.Digester | None = None,
    skimmer: walker.Skimmer | None = None,
    checksum: bool = True,
    budget: Callable[[], None] | None = None,
) -> walker.RdbInfo:
    """Compare the plain RDB of a backup with its manifest: levels bytes, form and counts. With a
    `skimmer` somebody else has to look into values, and without `checksum` at that of the RDB.
    `digester` and `skimmer` get what is walked, `budget` ends it by what it raises. Raises
    VerifyError.
    """
    where = _where(manifest)
    with path.open("rb", 0) as file:
        stream = zstd.HashingReader(file, manifest.payload.size, progress)
        try:
            info = _walk_stream(
                stream,
                where,
                manifest,
                digester=digester,
                skimmer=skimmer,
                checksum=checksum,
                budget=budget,
            )
        except zstd.DamagedError as problem:
            raise VerifyError(f"{where}: {problem}") from None
    complaint = compare(info, manifest)
    if complaint is not None:
        raise VerifyError(f"{where}: {complaint}", "form")
    return info


def _where(manifest: Manifest) -> str:
    return f"{manifest.set}/{manifest.id}/{manifest.payload.stored_name}"


def _check_stored(file: BinaryIO, where: str, manifest: Manifest) -> None:
    """That an open stored file has the bytes that its manifest names. Raises VerifyError."""
    payload = manifest.payload
    size = os.fstat(file.fileno()).st_size
    if size != payload.stored_size:
        raise VerifyError(f"{where}: {size} bytes, the manifest says {payload.stored_size}")
    try:
        stored = zstd.hash_file(file, payload.stored_size)
    except zstd.DamagedError as problem:
        raise VerifyError(f"{where}: {problem}") from None
    except OSError as problem:
        raise ToolError(f"{where}: cannot be read ({problem.strerror})") from None
    if stored.sha256 != payload.stored_sha256:
        raise VerifyError(
            f"{where}: sha256 is {stored.sha256}, the manifest says {payload.stored_sha256}:"
            " the stored file was changed or damaged"
        )


def _check_plain(plain: Digest, where: str, manifest: Manifest) -> None:
    payload = manifest.payload
    if plain != Digest(payload.size, payload.sha256):
        raise VerifyError(
            f"{where}: decompressed it has {plain.size} bytes with sha256 {plain.sha256},"
            f" the manifest says {payload.size} and {payload.sha256}"
        )


def _walk(
    file: BinaryIO, where: str, manifest: Manifest, progress: Progress | None
) -> walker.RdbInfo:
    """Decompress, hash and walk in one pass. Raises VerifyError."""
    try:
        with zstd.decompressed(file, manifest.payload.size, progress) as stream:
            return _walk_stream(stream, where, manifest)
    except zstd.DamagedError as problem:
        raise VerifyError(f"{where}: {problem}") from None


def _walk_stream(
    stream: zstd.HashingReader,
    where: str,
    manifest: Manifest,
    *,
    digester: walker.Digester | None = None,
    skimmer: walker.Skimmer | None = None,
    checksum: bool = True,
    budget: Callable[[], None] | None = None,
) -> walker.RdbInfo:
    """Hash and walk in one pass. A wrong hash goes before a wrong form: bytes come first. Raises
    VerifyError, DamagedError.
    """
    size = manifest.payload.size
    try:
        info: walker.RdbInfo | walker.RdbError = walker.inspect_stream(
            stream, size, digester=digester, skimmer=skimmer, checksum=checksum, budget=budget
        )
    except walker.RdbError as problem:
        info = problem
    _check_plain(stream.drain(), where, manifest)
    if isinstance(info, walker.RdbError):
        raise VerifyError(f"{where}: {info}", "bytes")
    return info


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
