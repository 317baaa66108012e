"""What a data directory of Redis holds, told without a server.

Only as much of an RDB is read as is needed to tell what its first database holds, when it was
saved and at which replication offset: the header, the AUX fields and the first opcodes behind them,
and its last bytes, which a file that was cut off does not have. The format is that of Redis's
rdb.c. The strict reader of the whole format is the backup tool's.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

# Names of the data files where the configuration does not set them.
DEFAULT_NAMES: Mapping[str, str] = {
    "dbfilename": "dump.rdb",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
}

# How often a directory is looked at whose files come and go meanwhile.
_ATTEMPTS = 5

_OPCODE_FUNCTION2 = 0xF5
_OPCODE_AUX = 0xFA
_OPCODE_RESIZEDB = 0xFB
_OPCODE_SELECTDB = 0xFE
_OPCODE_EOF = 0xFF
_CHECKSUM = 8  # bytes behind the last opcode
_LZF = 3  # the encoding of a compressed string


class Keys(NamedTuple):
    """How many keys a database of an RDB has, and how many of them expire."""

    database: int
    keys: int
    expires: int


class RdbHead(NamedTuple):
    """The beginning of an RDB file.

    Attributes:
        aux: its AUX fields.
        has_data: anything follows them, or the file cannot be understood.
        keys: those of its first database; None where the file does not tell.
        end: where an RDB without data ends.
    """

    aux: dict[str, str]
    has_data: bool
    keys: Keys | None = None
    end: int = 0


class Rdb(NamedTuple):
    """An RDB file.

    Attributes:
        there: something lies under its name.
        has_data: it holds data, or cannot be read, which must count as data.
        keys: those of its first database, where it tells.
        saved: when its data was read out of memory, by its own word; in whole seconds.
        written: when the file was last written to.
        offset: the replication offset written into it, if any.
        damage: why no server can load it; empty where nothing is seen of that.
    """

    there: bool = False
    has_data: bool = False
    keys: Keys | None = None
    saved: float = -math.inf
    written: float = -math.inf
    offset: int | None = None
    damage: str = ""


class Aof(NamedTuple):
    """An append-only file, of one part as in 6.x or of several.

    Attributes:
        there: something lies under its name.
        has_data: its bytes say that it holds data; they may end with a FLUSHALL.
        keys: those of the first database of its base, where it tells.
        bytes: size of what was appended to its base.
        blank: it holds nothing because nothing was ever written to it, as a server leaves it that
            was started without one. Empty after a rewrite it is not blank.
        written: when the newest of its parts was written to.
        damage: why no server can load it; empty where nothing is seen of that.
    """

    there: bool = False
    has_data: bool = False
    keys: Keys | None = None
    bytes: int = 0
    blank: bool = False
    written: float = -math.inf
    damage: str = ""


class DataFiles(NamedTuple):
    """What a server that is started on this directory would find.

    Attributes:
        rdb: the RDB.
        aof: the append-only file that this release loads.
        other: that of the other layout, which this release does not look at.
    """

    rdb: Rdb = Rdb()
    aof: Aof = Aof()
    other: Aof = Aof()

    @property
    def has_keys(self) -> bool:
        return self.rdb.has_data or self.aof.has_data or self.other.has_data


def _length(file: BinaryIO) -> tuple[int, bool]:
    """Read an RDB length; the flag says that it is an encoding of a string instead."""
    first = file.read(1)[0]
    kind = first >> 6
    if kind == 0:
        return first & 0x3F, False
    if kind == 1:
        return (first & 0x3F) << 8 | file.read(1)[0], False
    if kind == 3:
        return first & 0x3F, True
    return int.from_bytes(file.read(8 if first == 0x81 else 4), "big"), False


def _string(file: BinaryIO) -> str:
    length, encoded = _length(file)
    if not encoded:
        return file.read(length).decode("utf-8", "surrogateescape")
    if length == _LZF:
        packed = _length(file)[0]
        _length(file)
        file.seek(packed, os.SEEK_CUR)
        return ""
    if length > _LZF:
        raise ValueError("unknown encoding of a string")
    return str(int.from_bytes(file.read(1 << length), "little", signed=True))


def rdb_head(path: str) -> RdbHead:
    """Read the beginning of an RDB file.

    A file that cannot be understood is reported as holding data: whoever asks is about to decide
    whether something could be lost.

    Raises:
        OSError: the file cannot be read.
    """
    aux: dict[str, str] = {}
    has_data = False
    with open(path, "rb") as file:
        try:
            if file.read(5) not in (b"REDIS", b"VALKE"):
                return RdbHead(aux, True)
            file.read(4)
            while True:
                opcode = file.read(1)[0]
                if opcode == _OPCODE_AUX:
                    name = _string(file)
                    aux[name] = _string(file)
                elif opcode == _OPCODE_FUNCTION2:
                    has_data = True
                    _string(file)
                elif opcode == _OPCODE_EOF:
                    return RdbHead(aux, has_data, end=file.tell() + _CHECKSUM)
                elif opcode == _OPCODE_SELECTDB:
                    database = _length(file)[0]
                    if file.read(1)[0] != _OPCODE_RESIZEDB:
                        return RdbHead(aux, True)
                    return RdbHead(aux, True, Keys(database, _length(file)[0], _length(file)[0]))
                else:
                    return RdbHead(aux, True)
        except (IndexError, ValueError):
            return RdbHead(aux, True)


def _number(text: str) -> int | None:
    return int(text) if text.lstrip("-").isdigit() else None


def _rdb(path: str) -> Rdb:
    if not os.path.isfile(path):
        if not os.path.lexists(path):
            return Rdb()
        # When the data behind it was saved nobody knows: a link may lead to a disk that is away.
        return Rdb(True, True, None, math.inf, math.inf, None, "it is not a file")
    status, head = os.stat(path), rdb_head(path)
    with open(path, "rb") as file:
        file.seek(max(0, status.st_size - _CHECKSUM - 1))
        whole = status.st_size > _CHECKSUM + 9 and file.read(1)[0] == _OPCODE_EOF
    saved = _number(head.aux.get("ctime", ""))
    return Rdb(
        there=True,
        has_data=head.has_data,
        keys=head.keys,
        saved=int(status.st_mtime) if saved is None else saved,
        written=status.st_mtime,
        offset=_number(head.aux.get("repl-offset", "")),
        damage="" if whole else "its end is missing",
    )


class _Part(NamedTuple):
    """One file of an append-only file."""

    has_data: bool
    keys: Keys | None
    appended: int


def _part(path: str) -> _Part:
    """A part is an RDB, commands, or an RDB with commands behind it."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(5) not in (b"REDIS", b"VALKE"):
            return _Part(size > 0, None, size)
    head = rdb_head(path)
    appended = max(0, size - head.end) if head.end else 0
    return _Part(head.has_data or appended > 0, head.keys, appended)


def single_file(directory: str, names: Mapping[str, str]) -> str:
    """The append-only file of 6.x."""
    return os.path.join(directory, names["appendfilename"])


def manifest_file(directory: str, names: Mapping[str, str]) -> str:
    """The list of the parts of an append-only file, since 7.0."""
    return os.path.join(directory, names["appenddirname"], names["appendfilename"] + ".manifest")


def _single(directory: str, names: Mapping[str, str]) -> Aof:
    path = single_file(directory, names)
    if not os.path.isfile(path):
        return _odd(path, "it is not a file")
    part = _part(path)
    return Aof(
        there=True,
        has_data=part.has_data,
        keys=part.keys,
        bytes=part.appended,
        blank=os.path.getsize(path) == 0,
        written=os.stat(path).st_mtime,
    )


def _odd(path: str, damage: str) -> Aof:
    if not os.path.lexists(path):
        return Aof()
    return Aof(there=True, has_data=True, written=math.inf, damage=damage)


def manifest_parts(directory: str, names: Mapping[str, str]) -> list[tuple[str, int, str]]:
    """What a manifest lists: path, sequence number and type (``b`` or ``i``) of each part.

    Raises:
        ValueError: it cannot be understood.
    """
    manifest = manifest_file(directory, names)
    parts = []
    with open(manifest, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            if line.startswith("#"):
                continue
            words = shlex.split(line)
            pairs = dict(zip(words[::2], words[1::2]))
            # Files of type "h" are history: a server that starts does not load them.
            if pairs.get("type") in ("b", "i") and "file" in pairs:
                path = os.path.join(os.path.dirname(manifest), pairs["file"])
                parts.append((path, int(pairs.get("seq", "0")), pairs["type"]))
    return parts


def _several(directory: str, names: Mapping[str, str]) -> Aof:
    folder = os.path.join(directory, names["appenddirname"])
    if not os.path.isdir(folder):
        return _odd(folder, "it is not a directory")
    manifest = manifest_file(directory, names)
    if not os.path.isfile(manifest):
        lost = [entry.stat() for entry in os.scandir(folder) if entry.is_file()]
        if not any(status.st_size for status in lost):
            return Aof(there=bool(lost), blank=True)
        return Aof(
            there=True,
            has_data=True,
            bytes=sum(status.st_size for status in lost),
            written=max(status.st_mtime for status in lost),
            damage=f"there is no {os.path.basename(manifest)} that lists its parts",
        )
    try:
        parts = manifest_parts(directory, names)
    except ValueError:
        parts = []
    written = os.stat(manifest).st_mtime if not parts else -math.inf
    found: list[_Part] = []
    damage = "" if parts else f"{os.path.basename(manifest)} lists no part of it"
    for path, _, _ in parts:
        if os.path.isfile(path):
            found.append(_part(path))
            written = max(written, os.stat(path).st_mtime)
        else:
            damage = f"its manifest names {os.path.basename(path)}, which is missing"
    if damage:
        # What is missing may have been the newest part.
        written = max(written, os.stat(folder).st_mtime)
    has_data = bool(damage) or any(part.has_data for part in found)
    return Aof(
        there=True,
        has_data=has_data,
        keys=next((part.keys for part in found if part.keys), None),
        bytes=sum(part.appended for part in found),
        blank=not has_data and all(number <= 1 for _, number, _ in parts),
        written=written,
        damage=damage,
    )


def data_names(values: Mapping[str, str]) -> dict[str, str]:
    """Names of the data files of a server with these settings."""
    return {name: values.get(name, default) for name, default in DEFAULT_NAMES.items()}


def reads_single_file(directory: str, names: Mapping[str, str], release: tuple[int, ...]) -> bool:
    """Whether a server would load the append-only file of 6.x.

    Since 7.0 it does so where there is no manifest, and makes it the base of the new layout.
    """
    if release < (7,):
        return True
    return os.path.lexists(single_file(directory, names)) and not os.path.lexists(
        manifest_file(directory, names)
    )


def data_files(
    directory: str, names: Mapping[str, str], release: tuple[int, ...] = (7, 0)
) -> DataFiles:
    """Look for data in ``directory``.

    Args:
        directory: the server's ``dir``.
        names: as `data_names` tells them.
        release: major and minor version of the server that would load it.

    Raises:
        OSError: something is there that cannot be read.
    """
    attempts = _ATTEMPTS
    while True:
        try:
            return _data_files(directory, names, release)
        except FileNotFoundError:
            # A server that runs renames and removes files, in a rewrite of the append-only file.
            attempts -= 1
            if not attempts:
                raise
            time.sleep(0.05)


def _data_files(directory: str, names: Mapping[str, str], release: tuple[int, ...]) -> DataFiles:
    single, several = _single(directory, names), _several(directory, names)
    if not reads_single_file(directory, names, release):
        single, several = several, single
    return DataFiles(_rdb(os.path.join(directory, names["dbfilename"])), single, several)
