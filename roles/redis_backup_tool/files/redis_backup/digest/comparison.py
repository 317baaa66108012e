"""Whether two RDBs hold the same data, without holding either: sums of hashes of records.

Every record falls into a bucket by its hash. A bucket is the sum of the hashes of the one side less
those of the other: zero, when both sides have the same in it. The order of records does not count
in a sum, and equal records do not cancel out as they would in an exclusive or. Each stage goes over
both sides, and the first one is mostly enough:

1. `Raw` takes records as they are in the file (`borders`). A server of the same release with the
   same settings writes nearly all of them as they were, byte for byte. With few buckets, which a
   processor's cache holds; where many of them differ, once more with many.
2. `Canonical` decodes the records of the buckets that differ into the form that does not depend on
   how a value is encoded (`records`). What differs then is looked for among all records.
3. `Names` finds the keys in some of the buckets that differ even then.

A hash is the BLAKE2b of 128 bits of a record, personalised with the number of its database, and
with a salt that is drawn for each stage: nobody can make a backup whose sums come out equal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

from ..base.output import printable
from ..rdb.cursor import Cursor, RdbError, text
from ..rdb.packed import no_tick
from ..rdb.values import no_warning
from .borders import key_of, split
from .records import Records, function, module_data

# Few buckets: a sum takes 56 bytes, so these take half a megabyte. Many of them: 59 MB.
_FEW = 1 << 13
_MANY = 1 << 20
# The share of buckets that differ from which on decoding their records takes longer than a pass.
_SHARE = 8
# Stands for the database of functions and of data of modules.
_BESIDE = -1
# Begins no record of a file: a canonical record is not another one's raw form.
_CANONICAL = b"\xff"
# Databases whose keys are named, and buckets of each of them.
_NAMED_DATABASES = 16
_NAMED_BUCKETS = 16
# Bytes that hold what precedes a key, and of the key more than is shown.
_HEAD = 512
# Characters of a key's name.
_NAME_LENGTH = 60


#: Feeds a stage all of one side.
Feed = Callable[["Stage"], None]


class Difference(NamedTuple):
    """What differs: by database some keys, printable; and whether functions or data of modules
    do.
    """

    keys: dict[int, list[str]]
    beside: bool


def compare(raw: Raw, backup: Feed, saved: Feed) -> Difference | None:
    """Compare the side that `raw` was fed with (`backup`) with the other one; None when they are
    equal. Raises what the feeds do.
    """

    def both(stage: Stage) -> None:
        backup(stage)
        stage.turn()
        saved(stage)

    raw.turn()
    saved(raw)
    if not raw.differs:
        return None
    if len(raw.unequal) * _SHARE > raw.size:
        raw = Raw(_MANY)
        both(raw)
    canonical = Canonical(raw)
    both(canonical)
    if not canonical.differs:
        return None
    canonical = Canonical()
    both(canonical)
    if not canonical.differs:
        return None
    names = Names(canonical)
    both(names)
    return Difference(names.names(), canonical.beside)


class Stage:
    """What walks feed (`rdb.walker.Digester`): first all of the one side, then, after `turn`, all
    of the other.
    """

    def __init__(self, buckets: int) -> None:
        #: How many buckets there are.
        self.size = buckets
        self._mask = buckets - 1
        self._sums = [0] * buckets
        self._beside = 0
        self.salt = os.urandom(blake2b.SALT_SIZE)
        self._hashers: dict[int, Callable[[bytes], Any]] = {}
        self._version = 0
        self._tick: Callable[[], None] = no_tick
        self._counts: Counter[int] = Counter()
        # Of the last record that was read here, with its key.
        self._head = b""

    def turn(self) -> None:
        """The other side follows."""
        self._sums = [-number for number in self._sums]
        self._beside = -self._beside

    @property
    def unequal(self) -> frozenset[int]:
        """The numbers of the buckets that are not zero."""
        return frozenset(number for number, found in enumerate(self._sums) if found)

    @property
    def beside(self) -> bool:
        """Whether functions or data of modules differ."""
        return self._beside != 0

    @property
    def differs(self) -> bool:
        """Whether anything does."""
        return self.beside or any(self._sums)

    def _take(self, database: int, records: list[bytes]) -> None:
        """Records as `split` gives them."""
        raise NotImplementedError

    def _take_canonical(self, database: int, record: bytes) -> None:
        """The last record that was read, in the canonical form."""
        raise NotImplementedError

    def _hasher(self, database: int) -> Callable[[bytes], Any]:
        found = self._hashers.get(database)
        if found is None:
            person = database.to_bytes(blake2b.PERSON_SIZE, "little", signed=True)
            found = partial(blake2b, digest_size=16, salt=self.salt, person=person)
            self._hashers[database] = found
        return found

    def _hash(self, database: int, record: bytes) -> int:
        return int.from_bytes(self._hasher(database)(record).digest(), "little")

    # -- what a walk calls

    def begin(self, version: int, tick: Callable[[], None] = no_tick) -> None:
        """The version of the RDB whose records follow. `tick` is called now and then, and what it
        raises comes out.
        """
        self._version = version
        self._tick = tick
        self._counts.clear()

    def skim(self, database: int, data: bytes, at: int) -> tuple[int, int, int]:
        """Take the whole records that stand in `data` from `at` on. Returns where that ended, how
        many there were, and how many of them expire.
        """
        records: list[bytes] = []
        self._tick()
        at, expires = split(data, at, self._version, records)
        self._counts[database] += len(records)
        self._take(database, records)
        return at, len(records), expires

    def block(self, database: int, at: int, data: bytes) -> None:  # noqa: ARG002 - as walks call it
        """Whole records of a database, one behind the other. Raises RdbError."""
        place = 0
        while place < len(data):
            place, _, _ = self.skim(database, data, place)
            if place < len(data):
                cursor = _over(data)
                cursor.pos = place
                self.record(database, self.records(cursor).next())
                place = cursor.pos

    def records(self, cursor: Cursor, warn: Callable[[str], None] = no_warning) -> Records:
        """A reader of what no `skim` takes, where the cursor stands."""
        self._head = cursor.buf[cursor.pos : cursor.pos + _HEAD]
        return Records(cursor, self._version, warn)

    def record(self, database: int, record: bytes) -> None:
        """The record that `records` was asked for last, in the canonical form."""
        self._counts[database] += 1
        self._take_canonical(database, record)

    def function(self, code: bytes) -> None:
        """A library of functions."""
        self._beside += self._hash(_BESIDE, function(code))

    def module_data(self, name: str, encoding: int, when: int, fields: bytes) -> None:
        """What a module wrote beside the keys; `fields` as `records` reads them."""
        self._beside += self._hash(_BESIDE, module_data(name, encoding, when, fields))

    def digest(self) -> tuple[None, dict[int, int]]:
        """No digest, and how many keys of every database were taken."""
        return None, dict(self._counts)

    def close(self) -> None:
        """Nothing was opened."""


class Counting(Stage):
    """Nothing is compared: for a walk that finds where each record ends, and counts them."""

    def __init__(self) -> None:
        super().__init__(1)

    def _take(self, database: int, records: list[bytes]) -> None:
        pass

    def block(self, database: int, at: int, data: bytes) -> None:  # noqa: ARG002 - as walks call it
        """A record that `skim` left to the walk, which hands over one at a time then."""
        self._counts[database] += 1

    def _take_canonical(self, database: int, record: bytes) -> None:
        pass


class Raw(Stage):
    """Records as they are in the file."""

    def __init__(self, buckets: int = _FEW) -> None:
        super().__init__(buckets)

    def _take(self, database: int, records: list[bytes]) -> None:
        sums, mask, hasher, number = self._sums, self._mask, self._hasher(database), int.from_bytes
        for record in records:
            found = number(hasher(record).digest(), "little")
            sums[found & mask] += found

    def _take_canonical(self, database: int, record: bytes) -> None:
        found = self._hash(database, _CANONICAL + record)
        self._sums[found & self._mask] += found

    def chosen(self, database: int, records: list[bytes], unequal: frozenset[int]) -> list[bytes]:
        """Those of the records that are in these buckets."""
        mask, hasher, number = self._mask, self._hasher(database), int.from_bytes
        return [
            record
            for record in records
            if number(hasher(record).digest(), "little") & mask in unequal
        ]


class Canonical(Stage):
    """Records decoded: those of the buckets in which `raw` differs, or all."""

    def __init__(self, raw: Raw | None = None) -> None:
        super().__init__(_MANY)
        self._raw = raw
        self._unequal = frozenset() if raw is None else raw.unequal

    def _take(self, database: int, records: list[bytes]) -> None:
        if self._raw is not None:
            records = self._raw.chosen(database, records, self._unequal)
        if records:
            reader = Records(_over(b"".join(records)), self._version)
            for record in records:
                self._head = record
                self._take_canonical(database, reader.next())

    def _take_canonical(self, database: int, record: bytes) -> None:
        # What `Raw` takes in this form is taken here whatever its bucket: it is equal on both
        # sides, or differs.
        found = self._hash(database, record)
        self._sums[found & self._mask] += found


class Names(Canonical):
    """The keys of records that the one side has and the other has not."""

    def __init__(self, canonical: Canonical) -> None:
        super().__init__()
        # So that the hashes of this stage are those of the one before, and the buckets too.
        self.salt = canonical.salt
        self._wanted = canonical.unequal
        self._buckets: dict[int, set[int]] = {}
        self._keys: dict[tuple[int, int], str] = {}
        self._balance: Counter[tuple[int, int]] = Counter()
        self._side = 1

    def turn(self) -> None:
        """The other side follows."""
        self._side = -1

    def _take_canonical(self, database: int, record: bytes) -> None:
        found = self._hash(database, record)
        bucket = found & self._mask
        if bucket not in self._wanted:
            return
        # Memory stays bounded however much differs. A bucket is taken from its first record on
        # either side, or not at all, so what is taken of it is complete.
        if database not in self._buckets and len(self._buckets) == _NAMED_DATABASES:
            return
        buckets = self._buckets.setdefault(database, set())
        if bucket not in buckets:
            if len(buckets) == _NAMED_BUCKETS:
                return
            buckets.add(bucket)
        self._keys[database, found] = _name(self._head)
        self._balance[database, found] += self._side

    def names(self) -> dict[int, list[str]]:
        """By database, keys whose records differ: some of them, cut to a length, printable."""
        found: dict[int, set[str]] = {}
        for place, balance in self._balance.items():
            if balance:
                found.setdefault(place[0], set()).add(self._keys[place])
        return {database: sorted(names) for database, names in sorted(found.items())}


def _nothing(_size: int) -> bytes:
    return b""


def _over(data: bytes) -> Cursor:
    """A cursor over bytes that are there."""
    cursor = Cursor(_nothing, len(data), None)
    cursor.buf = data
    return cursor


def _name(head: bytes) -> str:
    """The key of the record that begins so, for people."""
    key = key_of(head)
    with suppress(RdbError):  # of a very long one a part is there, with its length before it
        key = _over(key).string("a key")
    name = printable(text(key))
    return name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}..."
