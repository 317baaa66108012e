"""Whether two RDBs hold the same data, without holding either: sums of hashes of records.

The hashes of the records of the one side are added and those of the other are subtracted: zero is
left when both sides have the same. The order of records does not count in a sum, and equal records
do not cancel out as they would in an exclusive or. Nearly always one stage is enough; each goes
over both sides:

1. `Total` sums records as they are in the file (`borders`). A server of the same release with the
   same settings writes them as they were, byte for byte.
2. `Raw` sums them in many buckets by key, to find the buckets that are not zero.
3. `Canonical` decodes the records of those buckets into the form that does not depend on how a
   value is encoded (`records`), and sums them in buckets.
4. `Names` finds the keys in some of the buckets that are not zero even then.

A hash is the BLAKE2b of 128 bits of a record, personalised with the number of its database, and
with a salt that is drawn for each stage: nobody can make a backup whose sums come out equal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

from ..base.output import printable
from ..rdb.cursor import Cursor, RdbError, text
from .borders import key_of, split
from .records import Records, function, module_data

# Records per bucket, about; and the least and the largest number of buckets. Bytes: 56 for each.
_PER_BUCKET = 8
_FEWEST = 1 << 16
_MOST = 1 << 20
# Stands for the database of functions and of data of modules.
_BESIDE = -1
# What no file has at the start of a record: a canonical one is no other record's raw form.
_CANONICAL = b"\xff"
# Databases whose keys are named, and buckets of each of them.
_NAMED_DATABASES = 16
_NAMED_BUCKETS = 16
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


def compare(total: Total, keys: int, backup: Feed, saved: Feed) -> Difference | None:
    """Compare the side that `total` was fed with (`backup`) with the other one; None when they are
    equal. `keys` is about how many keys there are. Raises what the feeds do.
    """
    total.turn()
    saved(total)
    if not total.differs:
        return None

    def both(stage: Stage) -> None:
        backup(stage)
        stage.turn()
        saved(stage)

    raw = Raw(keys)
    both(raw)
    canonical = Canonical(raw)
    both(canonical)
    if not canonical.differs:
        return None
    names = Names(raw, canonical)
    both(names)
    return Difference(names.names(), canonical.beside)


def buckets_for(keys: int) -> int:
    """How many buckets, a power of two, serve so many keys. Pure."""
    size = _FEWEST
    while size < _MOST and size * _PER_BUCKET < keys:
        size *= 2
    return size


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
        self._counts: Counter[int] = Counter()
        self._key = b""

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

    def _take_canonical(self, database: int, key: bytes, record: bytes) -> None:
        """A record in the canonical form, with its key as it is in the file."""
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

    def begin(self, version: int) -> None:
        """The version of the RDB whose records follow."""
        self._version = version
        self._counts.clear()

    def skim(self, database: int, data: bytes, at: int) -> tuple[int, int, int]:
        """Take the whole records that stand in `data` from `at` on. Returns where that ended, how
        many there were, and how many of them expire.
        """
        records: list[bytes] = []
        at, expires = split(data, at, records)
        self._counts[database] += len(records)
        self._take(database, records)
        return at, len(records), expires

    def block(self, database: int, data: bytes) -> None:
        """Whole records of a database, one behind the other. Raises RdbError."""
        at = 0
        while at < len(data):
            at, _, _ = self.skim(database, data, at)
            if at < len(data):
                cursor = _over(data)
                cursor.pos = at
                self.record(database, self.records(cursor).next())
                at = cursor.pos

    def records(self, cursor: Cursor) -> Records:
        """A reader of what no `skim` takes, where the cursor stands."""
        self._key = key_of(cursor.buf, cursor.pos)
        return Records(cursor, self._version)

    def record(self, database: int, record: bytes) -> None:
        """The record that `records` was asked for last, in the canonical form."""
        self._counts[database] += 1
        self._take_canonical(database, self._key, record)

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


class Total(Stage):
    """Records as they are in the file, all in one bucket."""

    def __init__(self) -> None:
        super().__init__(1)

    def _take(self, database: int, records: list[bytes]) -> None:
        hasher, number = self._hasher(database), int.from_bytes
        self._sums[0] += sum([number(hasher(record).digest(), "little") for record in records])

    def _take_canonical(self, database: int, _key: bytes, record: bytes) -> None:
        self._sums[0] += self._hash(database, _CANONICAL + record)


class Raw(Stage):
    """Records as they are in the file, in buckets by their keys."""

    def __init__(self, keys: int) -> None:
        super().__init__(buckets_for(keys))

    def spread(self, database: int) -> int:
        """What moves equal keys of other databases into other buckets."""
        return self._hash(database, b"")

    def bucket(self, spread: int, key: bytes) -> int:
        """The bucket of a key."""
        return (hash(key) ^ spread) & self._mask

    def _take(self, database: int, records: list[bytes]) -> None:
        spread = self.spread(database)
        for record in records:
            self._sums[self.bucket(spread, key_of(record))] += self._hash(database, record)

    def _take_canonical(self, database: int, key: bytes, record: bytes) -> None:
        self._sums[self.bucket(self.spread(database), key)] += self._hash(
            database, _CANONICAL + record
        )


class Canonical(Stage):
    """The records of the buckets that `raw` found unequal, decoded, in buckets by their hash."""

    def __init__(self, raw: Raw) -> None:
        super().__init__(raw.size)
        self._raw = raw
        self._chosen = raw.unequal

    def _take(self, database: int, records: list[bytes]) -> None:
        bucket, spread, chosen = self._raw.bucket, self._raw.spread(database), self._chosen
        taken = [record for record in records if bucket(spread, key_of(record)) in chosen]
        if taken:
            reader = Records(_over(b"".join(taken)), self._version)
            for record in taken:
                self._found(database, key_of(record), self._hash(database, reader.next()))

    def _take_canonical(self, database: int, key: bytes, record: bytes) -> None:
        if self._raw.bucket(self._raw.spread(database), key) in self._chosen:
            self._found(database, key, self._hash(database, record))

    def _found(self, _database: int, _key: bytes, digest: int) -> None:
        """A record, by its hash."""
        self._sums[digest & self._mask] += digest


class Names(Canonical):
    """The keys of records that the one side has and the other has not."""

    def __init__(self, raw: Raw, canonical: Canonical) -> None:
        super().__init__(raw)
        # The hashes of this stage are those of the one before, and so its buckets.
        self.salt = canonical.salt
        self._unequal = canonical.unequal
        self._buckets: dict[int, set[int]] = {}
        self._keys: dict[tuple[int, int], bytes] = {}
        self._balance: Counter[tuple[int, int]] = Counter()
        self._side = 1

    def turn(self) -> None:
        """The other side follows."""
        self._side = -1

    def _found(self, database: int, key: bytes, digest: int) -> None:
        bucket = digest & self._mask
        if bucket not in self._unequal:
            return
        # Memory stays bounded however much differs. A bucket is taken from its first record on
        # either side, or not at all, so what is taken of it is complete.
        if database not in self._buckets and len(self._buckets) == _NAMED_DATABASES:
            return
        named = self._buckets.setdefault(database, set())
        if bucket not in named:
            if len(named) == _NAMED_BUCKETS:
                return
            named.add(bucket)
        self._keys[database, digest] = key
        self._balance[database, digest] += self._side

    def names(self) -> dict[int, list[str]]:
        """By database, keys whose records differ: some of them, cut to a length, printable."""
        found: dict[int, set[str]] = {}
        for place, balance in self._balance.items():
            if balance:
                found.setdefault(place[0], set()).add(_name(self._keys[place]))
        return {database: sorted(names) for database, names in sorted(found.items())}


def _nothing(_size: int) -> bytes:
    return b""


def _over(data: bytes) -> Cursor:
    """A cursor over bytes that are there."""
    cursor = Cursor(_nothing, len(data), None)
    cursor.buf = data
    return cursor


def _name(key: bytes) -> str:
    """A key as it is in a file, for people."""
    try:
        key = _over(key).string("a key")
    except RdbError:
        # The first bytes of a very long one.
        key = key[5:]
    name = printable(text(key))
    return name if len(name) <= _NAME_LENGTH else f"{name[:_NAME_LENGTH]}..."
