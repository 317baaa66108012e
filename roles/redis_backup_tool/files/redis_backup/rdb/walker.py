"""Strict walk of an RDB file of any version in `versions`: every type, nothing taken for granted.

A walk proves the form of a backup and counts its keys. It reads the file once, front to back, in
chunks; it holds one chunk and one packed or compressed value at a time, never the file. Anything
that no release would have written there is an RdbError. What the format is: rdb.h and rdb.c of
Redis and Valkey. (Duplicate keys, fields and members are not looked for: that would need all of
them in memory. A server that loads the file does look. Nor is the code of functions compiled.)

`inspect` validates and counts, and skips what it need not look at. `entries` reads the same records
with their values, in a form that does not depend on the encoding they were stored in.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, NoReturn, Protocol

from ..base.errors import ToolError
from .cursor import (
    CHECKSUM_SIZE,
    KEY_SHOWN,
    Cursor,
    Progress,
    RdbError,
    Source,
    WindowFull,
    named,
    text,
    unreadable,
)
from .packed import no_tick
from .values import MODULE_UNSIGNED, Type, Values, module_name, no_warning, types
from .versions import HEADER_SIZE, VALKEY, header

__all__ = [
    "HEADER_SIZE",
    "DbCounts",
    "Entry",
    "RdbError",
    "RdbInfo",
    "entries",
    "header",
    "inspect",
    "inspect_stream",
]

_MAX_DATABASES = 1 << 31

_EOF = 255
_SELECTDB = 254
_EXPIRETIME = 253
_EXPIRETIME_MS = 252
_RESIZEDB = 251
_AUX = 250
_FREQ = 249
_IDLE = 248
_MODULE_AUX = 247
_FUNCTION_PRE_GA = 246
_FUNCTION2 = 245
_SLOT_INFO = 244
# The same number in two formats.
_SLOT_IMPORT = _KEY_METADATA = 243

# An expiry of -1 is how Redis says "none" in memory; it is never written.
_NO_EXPIRY = b"\xff" * 8

# Written once each, and read by what decides about a backup. Others may repeat: `lua`, Valkey's
# `slot-info`.
_SINGLE_AUX = frozenset(
    (
        "redis-ver",
        "valkey-ver",
        "redis-bits",
        "ctime",
        "used-mem",
        "repl-stream-db",
        "repl-id",
        "repl-offset",
        "aof-base",
        "aof-preamble",
    )
)
# Other fields are kept when they are short and few: memory stays bounded whatever the file says.
_AUX_KEPT = 64
_AUX_LENGTH = 1024
_SLOTS = 16384
# Bytes of records that are handed to the digester at once, or a few more.
_BLOCK = 1 << 20
# Valkey's `slot-info`: slot, keys, expiries, and what later versions may add. ASCII and bounded,
# because `int` takes the digits of every script and fails on very many.
_SLOT_TEXT = re.compile(r"([0-9]{1,5}),([0-9]{1,19}),([0-9]{1,19})(?:,[0-9]{1,19})*\Z")


@dataclass(frozen=True)
class DbCounts:
    """How many keys a database holds, and how many of them have an expiry."""

    keys: int
    expires: int


@dataclass(frozen=True)
class RdbInfo:
    """What a whole RDB says. `databases` are counts of what was walked, equal to those declared.
    `digest` is that of all values (`digest`), None where nobody asked for it.
    """

    magic: str
    rdb_version: int
    aux: dict[str, str]
    databases: dict[int, DbCounts]
    functions: int
    size: int
    crc: str
    digest: str | None = None
    #: What the server that wrote the file loads, but should not have: database, key and fault, a
    #: line each, and how many more there are.
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same, for json.dumps()."""
        return {
            "magic": self.magic,
            "rdb_version": self.rdb_version,
            "aux": dict(self.aux),
            "databases": {
                str(number): {"keys": counts.keys, "expires": counts.expires}
                for number, counts in sorted(self.databases.items())
            },
            "functions": self.functions,
            "size": self.size,
            "crc64": self.crc,
            "warnings": list(self.warnings),
            **({} if self.digest is None else {"digest": self.digest}),
        }


class Entry(NamedTuple):
    """One key. `expire` is in milliseconds since 1970; `value` depends on `kind`.

    string: bytes · list: list of bytes, in order · set: list of bytes, in no order · zset: list of
    (member, score), in no order · hash: list of (field, value, expiry in ms or None), in no order ·
    stream: Stream · module: Module.
    """

    db: int
    key: bytes
    expire: int | None
    kind: str
    value: Any


class RecordReader(Protocol):
    """Reads records that are too large for a block, where the cursor stands."""

    #: Readers of values that give them as the digest wants them.
    values: Values
    #: Whether the last record had an expiry.
    expires: bool
    #: The key of the last record.
    key: bytes

    def next(self) -> bytes:
        """The record that begins at the cursor. Raises RdbError."""


class Digester(Protocol):
    """What computes the digest while a walk goes on: the wing `digest` stands above this one."""

    def begin(self, version: int, tick: Callable[[], None]) -> None:
        """The version of the RDB whose records follow. `tick` is to be called now and then, also
        while it waits, and what it raises comes out.
        """

    def block(self, database: int, at: int, data: bytes) -> None:
        """Whole records of a database, one behind the other, from that byte of the file on.

        Raises RdbError, for this block or one before.
        """

    def records(self, cursor: Cursor, warn: Callable[[str], None]) -> RecordReader:
        """A reader of records that are too large for a block; `warn` as that of `Values`."""

    def record(self, database: int, record: bytes) -> None:
        """One record of a database."""

    def function(self, code: bytes) -> None:
        """A library of functions."""

    def module_data(self, name: str, encoding: int, when: int, fields: bytes) -> None:
        """What a module wrote beside the keys."""

    def digest(self) -> tuple[str | None, dict[int, int]]:
        """The digest, if there is one, and how many keys of every database were taken."""

    def close(self) -> None:
        """End what it started."""


class Skimmer(Digester, Protocol):
    """A digester that finds the ends of records itself, without a look into values."""

    def skim(self, database: int, data: bytes, at: int) -> tuple[int, int, int]:
        """Take the whole records that stand in `data` from `at` on. Returns where that ended (at
        what is no whole record, or none that it knows the end of), how many there were, and how
        many of them expire.
        """


_Reader = Callable[[], Any]

# A file says what it likes: what is told of it is bounded. Characters of a line, lines of a file
# and of a key.
_WARNING_LENGTH = 300
_WARNINGS = 20
_WARNINGS_OF_A_KEY = 3


def _no_more(_size: int) -> bytes:
    return b""


def _named(database: int, key: bytes) -> str:
    return f"database {database}, {named(key)}"


class _Warnings:
    """What the server loads, but should not have."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._more = 0
        self._at = -1
        self._of_this_key: set[str] = set()

    def add(self, at: int, whose: Callable[[], str], fault: str) -> None:
        """Keep a fault of the key whose record begins at that byte. One is told once, for a value
        that is larger than the window is read twice.
        """
        if at != self._at:
            self._at = at
            self._of_this_key = set()
        if fault in self._of_this_key or len(self._of_this_key) == _WARNINGS_OF_A_KEY:
            return
        self._of_this_key.add(fault)
        if len(self._lines) < _WARNINGS:
            self._lines.append(f"{whose()}: {fault}"[:_WARNING_LENGTH])
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        """A line for each, and one for those that are not shown."""
        return (*self._lines, *([f"and {self._more} more"] if self._more else []))


class _Walker:
    """One pass over one file."""

    def __init__(
        self,
        cursor: Cursor,
        wanted: bool = False,
        digester: Digester | None = None,
        skimmer: Skimmer | None = None,
    ) -> None:
        self._cursor = cursor
        self._skimmer = skimmer
        self._digester = digester if skimmer is None else skimmer
        # Where the record begins that is being read, and how many keys and expiries were before it.
        self._border = (0, 0, 0)
        self._wanted = wanted
        self._values: Values
        self._readers: list[_Reader | None] = [None] * 256
        self._magic = ""
        self.version = 0
        self._types: dict[int, Type] = {}
        self.aux: dict[str, str] = {}
        self.databases: dict[int, DbCounts] = {}
        self.functions = 0
        self._db = -1
        self._db_at = 0
        self._declared: DbCounts | None = None
        self._keys = 0
        self._expires = 0
        self._slot_keys: int | None = None
        # The last key that is no plain string: where its record begins, in the file and in a
        # window; or, without a place in a window, the beginning of the key.
        self._record_at = (0, b"", -1)
        self._warnings = _Warnings()

    def walk(self) -> RdbInfo:
        """Walk the whole file."""
        self._header()
        step = self._step
        if self._digester is not None:
            self._digester.begin(self.version, self._cursor.tick)
            step = self._digested_step if self._skimmer is None else self._skimmed_step
        while step():
            pass
        return self._finish()

    def _step(self) -> bool:
        """Go past one record or more; False at the end."""
        if self._declared is not None:
            read = self._fast()
            if read is not None:
                try:
                    read()
                except RdbError as error:
                    raise error.of(self._whose()) from None
                return True
        return self._record() is not _EOF

    def _whose(self) -> str:
        """The last key that is no plain string, for people."""
        _, window, at = self._record_at
        if at >= 0:
            cursor = Cursor(_no_more, None, None)
            cursor.buf, cursor.pos = window, at
            while (code := cursor.byte("a key")) >= _IDLE:
                if code == _IDLE:
                    cursor.length("a key's idle time")
                else:
                    cursor.skip({_EXPIRETIME_MS: 8, _FREQ: 1}[code], "an expiry or a frequency")
            window = cursor.head(KEY_SHOWN + 1, "a key")
        return _named(self._db, window)

    def _warn(self, fault: str) -> None:
        """Note a fault in the value of the last key."""
        self._warnings.add(self._record_at[0], self._whose, fault)

    def _digested_step(self) -> bool:
        """As `_step`, with the bytes of the records handed to the digester."""
        cursor = self._cursor
        if cursor.mark is None and self._declared is not None:
            cursor.mark = cursor.pos
        try:
            more = self._step()
            if cursor.mark is not None and cursor.pos - cursor.mark >= _BLOCK:
                self._hand_over()
        except WindowFull:
            self._large_record()
            more = True
        return more

    def _skimmed_step(self) -> bool:
        """As `_digested_step`, with records whose ends the skimmer finds; what it does not know is
        read as by any other walk.
        """
        cursor = self._cursor
        if self._skimmer is not None and self._declared is not None:
            start = cursor.pos
            cursor.pos, keys, expires = self._skimmer.skim(self._db, cursor.buf, start)
            self._keys += keys
            self._expires += expires
            # What is left is mostly a record that goes past the end of the window.
            if cursor.pos > start or (len(cursor.buf) - start < _BLOCK and cursor.more()):
                return True
            cursor.mark = cursor.pos
            self._border = (cursor.at(), self._keys, self._expires)
        try:
            more = self._record() is not _EOF
            if cursor.mark is not None:
                self._hand_over()
                cursor.mark = None
        except WindowFull:
            self._large_record()
            more = True
        return more

    def _hand_over(self) -> None:
        """Give the digester what is marked: whole records up to the cursor."""
        data = self._cursor.marked()
        if data and self._digester is not None:
            self._digester.block(self._db, self._cursor.at() - len(data), data)

    def _large_record(self) -> None:
        """Go back to where a record begins that is larger than the window, and digest it piece by
        piece. What precedes its value has been checked.
        """
        if self._digester is None:
            raise AssertionError("only a digest marks bytes")
        at, self._keys, self._expires = self._border
        cursor = self._cursor
        cursor.back(at)
        self._hand_over()
        cursor.mark = None
        records = self._digester.records(
            cursor,
            lambda fault: self._warnings.add(at, lambda: _named(self._db, records.key), fault),
        )
        self._digester.record(self._db, records.next())
        self._keys += 1
        self._expires += records.expires

    def entries(self) -> Iterator[Entry]:
        """Walk the whole file, giving each key. What was given counts only when this ends."""
        self._header()
        while True:
            record = self._record()
            if record is _EOF:
                break
            if isinstance(record, Entry):
                yield record
        self._finish()

    def _header(self) -> None:
        cursor = self._cursor
        if cursor.size == 0:
            raise RdbError(0, "an empty file", "no RDB")
        magic = cursor.take(HEADER_SIZE, "the header of an RDB")
        self._magic, self.version = header(magic)
        self._values = Values(cursor, self.version, self._wanted, warn=self._warn)
        self._types = types(self.version)
        for number, kind in self._types.items():
            self._readers[number] = getattr(self._values, kind.method)

    # -- records

    def _fast(self) -> _Reader | None:
        """Count keys that need no closer look: those whose value is a plain string.

        Returns the reader of the first value that is anything else, with the cursor on it and its
        key counted; or None, with the cursor on a record for `_record`. This loop is what the time
        of a walk goes into: it works on the window itself, and a record that goes past its end is
        begun again in the next one.
        """
        # Unrolled on purpose, as the other loops over single bytes are: a call per key would cost
        # the drill a multiple of its time.
        cursor = self._cursor
        readers = self._readers
        buf = cursor.buf
        at = cursor.pos
        keys = expires = 0
        read: _Reader | None = None
        while True:
            start = began = at
            try:
                while True:
                    start = began = at
                    kind = buf[at]
                    expiring = 0
                    if kind >= _IDLE:
                        if kind == _EXPIRETIME_MS:
                            if buf[at + 1 : at + 9] == _NO_EXPIRY:
                                break
                            expiring = 1
                            at += 9
                            kind = buf[at]
                        if kind == _FREQ:
                            at += 2
                            kind = buf[at]
                        elif kind == _IDLE:
                            size = buf[at + 1]
                            at += 2 if size < 0x40 else 3 if size < 0x80 else 6
                            if size > 0x80:
                                break
                            kind = buf[at]
                    if kind:
                        read = readers[kind]
                        if read is None:
                            break
                    size = buf[at + 1]
                    if size < 0x40:
                        at += 2 + size
                    elif size < 0x80:
                        at += 3 + ((size & 0x3F) << 8 | buf[at + 2])
                    elif 0xC0 <= size < 0xC3:
                        at += 2 + (1 << size - 0xC0)
                    else:
                        read = None
                        break
                    if kind:
                        if at > len(buf):
                            raise IndexError  # the key goes past the window
                        keys += 1
                        expires += expiring
                        start = at
                        break
                    size = buf[at]
                    if size < 0x40:
                        at += 1 + size
                    elif size < 0x80:
                        at += 2 + ((size & 0x3F) << 8 | buf[at + 1])
                    elif 0xC0 <= size < 0xC3:
                        at += 1 + (1 << size - 0xC0)
                    else:
                        read = readers[kind]
                        keys += 1
                        expires += expiring
                        start = at
                        break
                    keys += 1
                    expires += expiring
                cursor.pos = start
            except IndexError:
                read = None
                cursor.pos = start
                if cursor.mark is not None:
                    self._hand_over()
                if cursor.more():
                    buf = cursor.buf
                    at = cursor.pos
                    continue
            self._keys += keys
            self._expires += expires
            if read is not None:
                self._record_at = (cursor.at() - start + began, buf, began)
            if cursor.mark is not None:
                # The key whose value comes was counted.
                self._border = (
                    (cursor.at(), self._keys, self._expires)
                    if read is None
                    else (cursor.at() - start + began, self._keys - 1, self._expires - expiring)
                )
            return read

    def _record(self) -> Entry | int | None:
        """One record in full: an Entry where values are wanted, _EOF at the end, else None."""
        cursor = self._cursor
        start = cursor.at()
        seen: set[int] = set()
        expire: int | None = None
        while True:
            at = cursor.at()
            code = cursor.byte("the end mark of an RDB, or a record before it,")
            if code not in (_EXPIRETIME_MS, _EXPIRETIME, _FREQ, _IDLE):
                break
            group = _EXPIRETIME_MS if code == _EXPIRETIME else code
            if group in seen:
                raise RdbError(at, f"opcode {code} again", "a key has it once: damaged")
            seen.add(group)
            if code == _FREQ:
                cursor.byte("a key's frequency")
            elif code == _IDLE:
                cursor.length("a key's idle time")
            else:
                width, unit = (8, 1) if code == _EXPIRETIME_MS else (4, 1000)
                raw = cursor.take(width, "a key's expiry")
                expire = int.from_bytes(raw, "little", signed=True) * unit
                if expire == -1:
                    raise RdbError(at, "expiry -1", "Redis takes that for none: damaged")
        read = self._readers[code]
        if read is None:
            if seen:
                raise RdbError(
                    start, "an expiry, frequency or idle time", f"opcode {code} follows, not a key"
                )
            return self._opcode(code, at)
        if self._declared is None:
            raise RdbError(
                at,
                f"a key (type {code})",
                "no database is selected"
                if self._db < 0
                else f"database {self._db} begins without its number of keys (RESIZEDB)",
            )
        self._keys += 1
        self._expires += expire is not None
        self._record_at = (start, b"", -1)
        key = cursor.string("a key") if self._wanted else cursor.head(KEY_SHOWN + 1, "a key")
        self._record_at = (start, key, -1)
        try:
            value = read()
        except RdbError as error:
            raise error.of(self._whose()) from None
        if not self._wanted:
            return None
        return Entry(self._db, key, expire, self._types[code].kind, value)

    def _opcode(self, code: int, at: int) -> int | None:
        cursor = self._cursor
        if cursor.mark is not None:
            cursor.back(at)
            self._hand_over()
            cursor.mark = None
            cursor.pos += 1
        if code == _EOF:
            self._close_database(at)
            return _EOF
        if self._db >= 0 and self._declared is None and code != _RESIZEDB:
            raise RdbError(
                at,
                f"opcode {code}",
                f"database {self._db} begins without its number of keys (RESIZEDB)",
            )
        if code == _SELECTDB:
            self._select(at)
        elif code == _RESIZEDB:
            self._resize(at)
        elif code == _AUX:
            self._aux_field(at)
        elif code == _MODULE_AUX:
            self._module_aux()
        elif code == _FUNCTION2 and self.version >= 10:
            if self._digester is None:
                cursor.skip_string("a function library")
            else:
                library = cursor.string("a function library")
                self._digester.function(library)
            self.functions += 1
        elif code == _SLOT_IMPORT and self.version >= VALKEY:
            self._slot_import(at)
        elif code == _SLOT_INFO and 12 <= self.version < VALKEY:
            self._slot(
                at,
                cursor.length("a slot"),
                cursor.length("a slot's keys"),
                cursor.length("a slot's expiries"),
            )
        else:
            self._refuse(code, at)
        return None

    def _refuse(self, code: int, at: int) -> NoReturn:
        if code == 6:
            seen, meaning = (
                "a module value of a release candidate of Redis 4.0",
                "no release reads it",
            )
        elif code == _FUNCTION_PRE_GA:
            seen, meaning = "functions of a release candidate of Redis 7.0", "no release reads them"
        elif code == _KEY_METADATA and 13 <= self.version < VALKEY:
            seen, meaning = (
                "metadata of a module beside a key",
                "this tool cannot tell whether a server without that module keeps it",
            )
        elif self.version < VALKEY and code in types(VALKEY - 1):
            kind = types(VALKEY - 1)[code]
            seen = f"type {code} ({kind.kind}) in RDB version {self.version}"
            meaning = f"it came with version {kind.since}: damaged, or not by Redis"
        elif code in (_FUNCTION2, _SLOT_INFO) and self.version < VALKEY:
            seen = f"opcode {code} in RDB version {self.version}"
            meaning = "it came later: damaged, or not by Redis"
        else:
            seen = f"type or opcode {code}"
            meaning = f"RDB version {self.version} has none such: damaged, or not by Redis"
        raise RdbError(at, seen, meaning)

    def _select(self, at: int) -> None:
        self._close_database(at)
        number = self._cursor.length("a database's number")
        if number >= _MAX_DATABASES:
            raise RdbError(at, f"database {number}", "Redis has none such: damaged")
        if number in self.databases:
            raise RdbError(at, f"database {number} again", "an RDB has each once: damaged")
        self._db = number
        self._db_at = at
        self._declared = None
        self._keys = self._expires = 0
        self._slot_keys = None

    def _resize(self, at: int) -> None:
        if self._db < 0 or self._declared is not None:
            raise RdbError(
                at,
                "numbers of keys and expiries (RESIZEDB)",
                "no database begins here" if self._db < 0 else "the database has them already",
            )
        keys = self._cursor.count("the number of keys")
        expires = self._cursor.length("the number of keys that expire")
        if not keys:
            raise RdbError(
                at, f"database {self._db} without keys", "Redis does not write such a one"
            )
        self._declared = DbCounts(keys, expires)

    def _close_database(self, at: int) -> None:
        if self._db < 0:
            return
        walked = DbCounts(self._keys, self._expires)
        declared = self._declared
        if declared is None:
            raise RdbError(
                at, f"the end of database {self._db}", "it has no number of keys (RESIZEDB)"
            )
        if walked != declared:
            raise RdbError(
                at,
                f"database {self._db} with {walked.keys} keys, {walked.expires} of which expire",
                f"it declares {declared.keys} and {declared.expires} at byte {self._db_at}: "
                "keys were lost or added",
            )
        if self._slot_keys is not None and self._slot_keys != walked.keys:
            raise RdbError(
                at,
                f"database {self._db} with {walked.keys} keys",
                f"its slots declare {self._slot_keys}",
            )
        self.databases[self._db] = walked

    def _aux_field(self, at: int) -> None:
        cursor = self._cursor
        name = text(cursor.string("an AUX field's name"))
        if name not in _SINGLE_AUX and name != "slot-info" and len(self.aux) >= _AUX_KEPT:
            cursor.skip_string("an AUX field")
            return
        value = text(cursor.string("an AUX field"))
        if name == "slot-info":
            # Valkey's slot opcode of Redis 7.4, in a form that older servers skip
            numbers = _SLOT_TEXT.match(value)
            if numbers is None:
                raise RdbError(at, f"slot-info {value[:40]!r}", "it is slot,keys,expiries: damaged")
            self._slot(at, *map(int, numbers.groups()))
        elif name in _SINGLE_AUX:
            if name in self.aux:
                raise RdbError(at, f"AUX field {name} again", "an RDB has it once: damaged")
            self.aux[name] = value
        elif len(value) <= _AUX_LENGTH and name != "lua":
            self.aux.setdefault(name[:_AUX_LENGTH], value)

    def _slot(self, at: int, slot: int, keys: int, expires: int) -> None:
        if slot >= _SLOTS or expires > keys or self._declared is None:
            raise RdbError(
                at,
                f"slot {slot} with {keys} keys, {expires} of which expire",
                "no cluster has such a slot, or no database is selected: damaged",
            )
        self._slot_keys = (self._slot_keys or 0) + keys

    def _slot_import(self, at: int) -> None:
        """Slots that a node of a Valkey cluster was taking over when it saved: a job and ranges of
        slots, of clusterRDBSaveSlotImports() in Valkey's cluster_migrateslots.c.
        """
        cursor = self._cursor
        cursor.skip_string("the name of a migration of slots")
        for _ in range(cursor.count("the number of ranges of slots")):
            first, last = cursor.length("a slot"), cursor.length("a slot")
            if not first <= last < _SLOTS:
                raise RdbError(at, f"slots {first} to {last}", "no cluster has such: damaged")

    def _module_aux(self) -> None:
        cursor = self._cursor
        module_id = cursor.length("a module's id")
        name = module_name(module_id)
        at = cursor.at()
        code = cursor.length(f"when module {name} wrote")
        when = cursor.length(f"when module {name} wrote")
        if code != MODULE_UNSIGNED or when not in (1, 2):
            raise RdbError(
                at, f"data of module {name} with {code}, {when}", "it begins with 2, 1 or 2, 2"
            )
        if self._digester is None:
            self._values.module_fields(name)
            return
        fields = self._digester.records(cursor, no_warning).values.module_fields(name)
        self._digester.module_data(name, module_id & 1023, when, fields)

    def _finish(self) -> RdbInfo:
        cursor = self._cursor
        at = cursor.at()
        while len(cursor.buf) - cursor.pos <= CHECKSUM_SIZE and cursor.more():
            pass
        left = len(cursor.buf) - cursor.pos
        if left < CHECKSUM_SIZE:
            raise cursor.end("the checksum")
        if left > CHECKSUM_SIZE:
            extra = (
                f"{cursor.size - at - CHECKSUM_SIZE} bytes" if cursor.size is not None else "bytes"
            )
            raise RdbError(
                at + CHECKSUM_SIZE, f"{extra} after the end", "an RDB ends with its checksum"
            )
        stored = int.from_bytes(cursor.buf[cursor.pos :], "little")
        if not stored:
            raise RdbError(
                at, "no checksum", "saved with `rdbchecksum no`, or wiped: nothing can be proven"
            )
        if cursor.checksum and stored != cursor.crc():
            raise RdbError(
                at,
                f"checksum {stored:016x}",
                f"the bytes before it give {cursor.crc():016x}: the file is damaged",
            )
        if cursor.size is not None and cursor.received != cursor.size:
            raise RdbError(
                cursor.received,
                "the end",
                f"{cursor.size} bytes were promised: it changed meanwhile",
            )
        digest: str | None = None
        if self._digester is not None:
            digest, counts = self._digester.digest()
            if counts != {number: found.keys for number, found in self.databases.items()}:
                raise RdbError(
                    at, f"a digest of {counts} keys", "others were walked: a fault of the tool"
                )
        return RdbInfo(
            self._magic,
            self.version,
            self.aux,
            self.databases,
            self.functions,
            cursor.received,
            f"{stored:016x}",
            digest,
            self._warnings.told(),
        )


def inspect_stream(
    fileobj: Source,
    size: int | None = None,
    *,
    progress: Progress | None = None,
    digester: Digester | None = None,
    skimmer: Skimmer | None = None,
    checksum: bool = True,
    budget: Callable[[], None] | None = None,
) -> RdbInfo:
    """Walk an RDB from its first byte to the end of `fileobj`, which need not be seekable.

    `size` is how many bytes there must be, None when that is not known. With `digester`, all values
    are read too and handed to it, and it is closed at the end. A `skimmer` gets the same in its
    place, and what is in values is not looked at. Without `checksum` there must be one, but it is
    not computed: for whoever has the bytes checked in another way. `budget` is called several times
    a second, whatever is in the file, and ends the walk by the ToolError that it raises. Raises
    RdbError, also for content that nobody thought of or has the memory for; an OSError of `fileobj`
    comes through as it is.
    """
    cursor = Cursor(fileobj.read, size, progress, checksum, budget or no_tick)
    try:
        return _Walker(cursor, digester=digester, skimmer=skimmer).walk()
    except (ToolError, OSError):
        raise
    except Exception as fault:
        raise unreadable(cursor.at(), fault) from fault
    finally:
        if digester is not None:
            digester.close()


def _open(path: str | os.PathLike[str]) -> tuple[BinaryIO, int]:
    """An open regular file and its size. A pipe or device is refused without waiting for it. Raises
    ToolError.
    """
    try:
        fileobj: BinaryIO = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ToolError(f"{os.fspath(path)}: cannot be opened ({reason})") from None
    status = os.fstat(fileobj.fileno())
    if not stat.S_ISREG(status.st_mode):
        fileobj.close()
        raise ToolError(f"{os.fspath(path)}: not a regular file")
    return fileobj, status.st_size


def inspect(
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    digester: Digester | None = None,
    skimmer: Skimmer | None = None,
    checksum: bool = True,
    budget: Callable[[], None] | None = None,
) -> RdbInfo:
    """Walk the RDB file at `path` and say what it holds; `digester`, `skimmer`, `checksum` and
    `budget` as for `inspect_stream`.

    `progress` is called with bytes done and bytes in all, about once per MiB. Raises RdbError,
    whatever the file is, and ToolError where there is none.
    """
    fileobj, size = _open(path)
    with fileobj:
        try:
            return inspect_stream(
                fileobj,
                size,
                progress=progress,
                digester=digester,
                skimmer=skimmer,
                checksum=checksum,
                budget=budget,
            )
        except RdbError as error:
            raise RdbError(error.offset, error.seen, error.meaning, os.fspath(path)) from None


def entries(path: str | os.PathLike[str]) -> Iterator[Entry]:
    """The keys of the RDB file at `path` with their values.

    The file has been checked only when the last one is out. Raises RdbError, ToolError.
    """
    fileobj, size = _open(path)
    with closing(fileobj):
        try:
            yield from _Walker(Cursor(fileobj.read, size, None), wanted=True).entries()
        except RdbError as error:
            raise RdbError(error.offset, error.seen, error.meaning, os.fspath(path)) from None
