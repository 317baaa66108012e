"""What a data directory of Redis holds, told without a server.

Only as much of an RDB is read as is needed to say whether it holds keys and at which replication
offset it was taken: the header, the AUX fields and the first opcode behind them. The format is
that of Redis's rdb.c. The strict reader of the whole format is the backup tool's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

# Names of the data files where the configuration does not set them.
DEFAULT_NAMES: Mapping[str, str] = {
    "dbfilename": "dump.rdb",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
}

_OPCODE_AUX = 0xFA
_OPCODE_FUNCTION2 = 0xF5
_OPCODE_SELECTDB = 0xFE
_OPCODE_EOF = 0xFF


class RdbHead(NamedTuple):
    """The beginning of an RDB file: its AUX fields, and whether anything follows them."""

    aux: dict[str, str]
    has_data: bool


class DataFiles(NamedTuple):
    """What a server that is started on this directory would find.

    Attributes:
        rdb: an RDB file is there.
        aof: an append-only file is there.
        rdb_keys: the RDB holds data (or cannot be read, which must count as data).
        aof_keys: the append-only file holds data.
        rdb_offset: replication offset written into the RDB, if any.
    """

    rdb: bool
    aof: bool
    rdb_keys: bool
    aof_keys: bool
    rdb_offset: int | None

    @property
    def has_keys(self) -> bool:
        return self.rdb_keys or self.aof_keys

    @property
    def aof_hides_rdb(self) -> bool:
        """An append-only file without keys beside an RDB with keys: loaded, it would hide them."""
        return self.aof and not self.aof_keys and self.rdb_keys


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
    if length > 2:
        raise ValueError("compressed AUX field")
    return str(int.from_bytes(file.read(1 << length), "little", signed=True))


def rdb_head(path: str) -> RdbHead:
    """Read the beginning of an RDB file.

    A file that cannot be understood is reported as holding data: whoever asks is about to decide
    whether something could be lost.

    Raises:
        OSError: the file cannot be read.
    """
    aux: dict[str, str] = {}
    with open(path, "rb") as file:
        try:
            if file.read(5) not in (b"REDIS", b"VALKE"):
                return RdbHead(aux, True)
            file.read(4)
            while True:
                opcode = file.read(1)[0]
                if opcode != _OPCODE_AUX:
                    return RdbHead(aux, opcode != _OPCODE_EOF)
                name = _string(file)
                aux[name] = _string(file)
        except (IndexError, ValueError):
            return RdbHead(aux, True)


def _aof_files(directory: str, names: Mapping[str, str]) -> list[str]:
    """Files of the append-only file: those the manifest of 7.0 lists, or the one of 6.x."""
    single = os.path.join(directory, names["appendfilename"])
    if os.path.isfile(single):
        return [single]
    folder = os.path.join(directory, names["appenddirname"])
    manifest = os.path.join(folder, names["appendfilename"] + ".manifest")
    if not os.path.isfile(manifest):
        return []
    files = []
    with open(manifest, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            words = shlex.split(line)
            pairs = dict(zip(words[::2], words[1::2]))
            # Files of type "h" are history: a server that starts does not load them.
            if pairs.get("type") in ("b", "i") and "file" in pairs:
                files.append(os.path.join(folder, pairs["file"]))
    return files


def data_names(values: Mapping[str, str]) -> dict[str, str]:
    """Names of the data files of a server with these settings."""
    return {name: values.get(name, default) for name, default in DEFAULT_NAMES.items()}


def data_files(directory: str, names: Mapping[str, str]) -> DataFiles:
    """Look for data in ``directory``.

    Args:
        directory: the server's ``dir``.
        names: as `data_names` tells them.

    Raises:
        OSError: something is there that cannot be read.
    """
    rdb = os.path.join(directory, names["dbfilename"])
    has_rdb = os.path.isfile(rdb)
    head = rdb_head(rdb) if has_rdb else RdbHead({}, False)
    offset = head.aux.get("repl-offset", "")
    aof = _aof_files(directory, names)
    aof_keys = False
    for path in aof:
        if not os.path.isfile(path):
            aof_keys = True
        elif path.endswith(".rdb"):
            aof_keys = aof_keys or rdb_head(path).has_data
        else:
            aof_keys = aof_keys or os.path.getsize(path) > 0
    return DataFiles(
        rdb=has_rdb,
        aof=bool(aof),
        rdb_keys=head.has_data,
        aof_keys=aof_keys,
        rdb_offset=int(offset) if offset.lstrip("-").isdigit() else None,
    )


def start_appendonly(wanted: bool, was: bool, files: DataFiles) -> bool:
    """The ``appendonly`` a stopped server must be started with, so that it loads its data.

    Redis loads either the append-only file or the RDB, never both: with ``appendonly yes`` and no
    append-only file it starts empty and then saves that emptiness over the RDB. So a server starts
    the way its data lies on disk, and is switched to what is wanted while it runs.

    Args:
        wanted: what the inventory says.
        was: what the present configuration file says, whose server wrote the files.
        files: what is on disk.
    """
    if was and files.aof:
        return True
    if files.rdb_keys:
        return False
    if files.aof_keys:
        return True
    return wanted
