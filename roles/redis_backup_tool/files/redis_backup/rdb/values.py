"""Reading the values in an RDB: one method per type and encoding of rdb.h."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from math import isnan
from struct import unpack
from typing import Any, NamedTuple, Optional, TypeVar

from . import packed
from .cursor import Cursor, RdbError, text
from .versions import VALKEY

# Redis's limit for the time of expiry of a hash's field (ebuckets.h): 48 bits.
_FIELD_EXPIRY_MAX = (1 << 48) - 1

_MODULE_SIGNED = 1
MODULE_UNSIGNED = 2
_MODULE_FLOAT = 3
_MODULE_DOUBLE = 4
_MODULE_STRING = 5
_MODULE_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

#: Redis's own module since 8.0, whose fields' order is not part of the value.
VECTOR_SET = "vectorset"

_NOT_KNOWN = (1 << 64) - 1

_ARRAY_STRING = 0
_ARRAY_INTEGER = 1
_ARRAY_FLOAT = 2
_ARRAY_SHORT = 3

_QUICKLIST_PLAIN = 1
_QUICKLIST_PACKED = 2

_ASCII_DOUBLE = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

# What strtod() of C takes from the beginning of a text, and what Python's own reading of a number
# does not: digits of base 16.
_C_DOUBLE = re.compile(
    rb"[ \t\n\v\f\r]*[+-]?(?:0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?"
    rb"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)",
    re.IGNORECASE,
)
# So many bytes of a score are given to it.
_SCORE_READ = 127
_NOT_LOADED = "no release loads that: damaged"

# What Redis writes of most scores, and reads like everybody else.
_PLAIN_SCORE = re.compile(rb"-?[0-9]{1,15}(?:\.[0-9]{1,17})?")
_DECIMAL = re.compile(rb"-?[0-9]{1,20}")

StreamId = tuple[int, int]
_Scanned = TypeVar("_Scanned")


class _Form(NamedTuple):
    """A packed encoding: what counts its elements, and what reads them."""

    scan: Callable[[bytes, packed.Tick], int]
    elements: Callable[[bytes, bool, packed.Tick], Iterator[Any]]


_LISTPACK = _Form(packed.scan_listpack, packed.listpack_elements)
_ZIPLIST = _Form(packed.scan_ziplist, packed.ziplist_elements)


def _damaged(at: int, what: str, error: packed.PackedError) -> RdbError:
    return RdbError(
        at, f"a {what}, in its byte {error.at} {error.seen}", f"{error.meaning}: damaged"
    )


def _c_double(number: bytes) -> float:
    """The number that `_C_DOUBLE` has found."""
    digits = number.decode("ascii")
    try:
        return float.fromhex(digits) if "x" in digits.lower() else float(digits)
    except OverflowError:  # a base of 16, and an exponent that is too large
        return float("-inf" if digits.lstrip().startswith("-") else "inf")


def _once(names: set[bytes], name: bytes, at: int, what: str) -> None:
    """Refuse a name that has been there."""
    if name in names:
        raise RdbError(at, f"{what} twice", _NOT_LOADED)
    names.add(name)


class Producer(NamedTuple):
    """Who sends messages to a stream with ids of its own, and those that are remembered."""

    name: bytes
    ids: list[tuple[bytes, StreamId]]


class Idempotence(NamedTuple):
    """How a stream tells messages that it has had (Redis 8.6): for how many seconds and how many of
    each producer, and how many messages were added or refused so far.
    """

    seconds: int
    maximum: int
    producers: list[Producer]
    added: int
    duplicates: int


class Consumer(NamedTuple):
    """A consumer of a stream's group. `active` is None before Redis 7.2."""

    name: bytes
    seen: int
    active: int | None
    pending: Any


class Group(NamedTuple):
    """A consumer group. `pending`: id, time of delivery in ms, number of deliveries."""

    name: bytes
    last_id: StreamId
    entries_read: int | None
    pending: Any
    consumers: list[Consumer]
    #: Ids of pending entries that consumers gave back (Redis 8.8), in order.
    released: list[StreamId]


class Stream(NamedTuple):
    """A stream. What Redis does not write before 7.0 is None."""

    entries: Any
    last_id: StreamId
    first_id: StreamId | None
    max_deleted_id: StreamId | None
    entries_added: int | None
    groups: list[Group]
    idempotence: Idempotence | None


class Array(NamedTuple):
    """An array of Redis 8.8. `cursor` is where ARINSERT put the last one, None where it put none;
    an element is an index with bytes or a float.
    """

    cursor: int | None
    elements: Any


class Module(NamedTuple):
    """A module's value as it was serialised: only the module knows what its fields mean."""

    name: str
    encoding_version: int
    fields: Any


def module_name(module_id: int) -> str:
    """Nine characters of six bits, then ten bits of encoding version."""
    return "".join(_MODULE_CHARACTERS[module_id >> shift & 63] for shift in range(58, 9, -6))


def _pairs(flat: Iterable[Any]) -> Iterator[tuple[bytes, bytes, None]]:
    """Fields with values and without expiries."""
    parts = iter(flat)
    return zip(parts, parts, repeat(None))


def _ids(data: bytes) -> StreamId:
    return int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")


#: What becomes of the parts of a value: which part it is, how many there are (None: that is known
#: only at the end), and the parts, to be taken before the next byte of the file is.
Gather = Callable[[str, Optional[int], Iterable[Any]], Any]


def no_warning(_fault: str) -> None:
    """What becomes of a warning that nobody asked for."""


def as_list(_part: str, _count: int | None, items: Iterable[Any]) -> Any:
    """Keep every part, in the order of the file."""
    return list(items)


class Values:
    """Readers of values, one per type. Each checks all of a value; with `wanted` it returns it as
    `Entry` promises, else None, as fast as can be.

    Every list in a value is what `gather` made of its elements. They come to it one by one, so that
    the memory that a large value takes is up to `gather`. Methods that are alike stay apart on
    purpose: what they share would be one call more per element.
    """

    def __init__(
        self,
        cursor: Cursor,
        version: int,
        wanted: bool,
        gather: Gather = as_list,
        warn: Callable[[str], None] = no_warning,
    ) -> None:
        self._cursor = cursor
        self._tick = cursor.tick
        self._wanted = wanted
        self._gather = gather
        self._warn = warn
        self._version = version

    # -- parts

    def _elements(self, what: str) -> int:
        at = self._cursor.at()
        number = self._cursor.count(f"the number of {what}")
        if not number:
            self._empty(at, what)
        return number

    def _empty(self, at: int, what: str) -> None:
        """A key without elements: RESTORE brings such a one into Redis up to 6.0, which loads and
        saves it like any other. Redis 7.0 drops it when it loads, so no later release writes one.
        """
        if self._version >= 10:
            raise RdbError(at, f"no {what}", "Redis keeps no empty key, and drops this one at load")
        self._warn(f"no {what}: an empty key, which Redis 7.0 and later drop when they load it")

    def _fault(self, at: int, seen: str) -> None:
        """Something that Redis and Valkey before 9.0 load and save as it is, because they do not
        look; Valkey 9.0 refuses it.
        """
        if self._version >= VALKEY:
            raise RdbError(at, seen, "Valkey refuses to load that: damaged")
        self._warn(f"{seen}: loaded as it is, but no command of Redis makes such a one")

    def _parts(self, part: str, count: int | None, items: Iterator[Any]) -> Any:
        """What `gather` makes of parts; where nobody wants them they are only gone through."""
        if self._wanted:
            return self._gather(part, count, items)
        for _ in items:
            pass
        return None

    def _packed(
        self, what: str, scan: Callable[[bytes, packed.Tick], _Scanned]
    ) -> tuple[bytes, _Scanned]:
        """A string of packed elements, and what `scan` says of it."""
        at = self._cursor.at()
        data = self._cursor.string(f"a {what}")
        try:
            return data, scan(data, self._tick)
        except packed.PackedError as error:
            raise _damaged(at, what, error) from None

    def _tuples(
        self, what: str, size: int, form: _Form, in_text: bool = True
    ) -> tuple[int, Iterator[Any]]:
        """How many tuples of `size` elements a string of packed elements has, and the elements: in
        text also where the file has an integer, or not.
        """
        at = self._cursor.at()
        data, number = self._packed(what, form.scan)
        if not number:
            self._empty(at, f"elements in a {what}")
        if number % size:
            raise RdbError(at, f"a {what} of {number} elements", f"they come in {size}s: damaged")
        return number // size, form.elements(data, in_text, self._tick)

    def _packed_set(self, part: str, what: str, form: _Form) -> Any:
        count, elements = self._tuples(what, 1, form)
        return self._gather(part, count, elements) if self._wanted else None

    def _packed_hash(self, what: str, form: _Form) -> Any:
        count, elements = self._tuples(what, 2, form)
        return self._gather("hash", count, _pairs(elements)) if self._wanted else None

    # -- strings, lists, sets

    def string(self) -> Any:
        if self._wanted:
            return self._cursor.string("a value")
        return self._cursor.skip_string("a value")

    def list_strings(self) -> Any:
        return self._strings("list")

    def set_strings(self) -> Any:
        return self._strings("set")

    def _strings(self, part: str) -> Any:
        """One string per element."""
        count = self._elements("elements")
        if self._wanted:
            strings = (self._cursor.string("an element") for _ in range(count))
            return self._gather(part, count, strings)
        return self._cursor.skip_strings(count, "an element")

    def list_ziplist(self) -> Any:
        return self._packed_set("list", "list ziplist", _ZIPLIST)

    def set_listpack(self) -> Any:
        return self._packed_set("set", "set listpack", _LISTPACK)

    def set_intset(self) -> Any:
        at = self._cursor.at()
        _, values = self._packed("set intset", lambda data, _: packed.scan_intset(data))
        if not values:
            self._empty(at, "integers in an intset")
        elif not packed.ascending(values, self._tick):
            self._fault(at, "an intset whose integers do not ascend")
        if not self._wanted:
            return None
        return self._gather("set", len(values), map(b"%d".__mod__, values))

    def quicklist(self) -> Any:
        return self._quicklist("list ziplist", _ZIPLIST)

    def quicklist2(self) -> Any:
        return self._quicklist("list listpack", _LISTPACK)

    def _quicklist(self, what: str, form: _Form) -> Any:
        return self._parts("list", None, chain.from_iterable(self._nodes(what, form)))

    def _nodes(self, what: str, form: _Form) -> Iterator[Iterable[Any]]:
        """The elements of a list, node by node; none where nobody wants them."""
        cursor = self._cursor
        start = cursor.at()
        total = 0
        for _ in range(cursor.count("the number of nodes of a list")):
            container = _QUICKLIST_PACKED
            if form is _LISTPACK:
                at = cursor.at()
                container = cursor.length("the container of a list's node")
                if container not in (_QUICKLIST_PLAIN, _QUICKLIST_PACKED):
                    raise RdbError(at, f"container {container}", "a list's node has 1 or 2")
            if container == _QUICKLIST_PLAIN:
                total += 1
                element = self._plain_node(at)
                if self._wanted:
                    yield [element]
                continue
            data, number = self._packed(what, form.scan)
            total += number
            if self._wanted:
                yield form.elements(data, True, self._tick)
        if not total:
            self._empty(start, "elements in a list")

    def _plain_node(self, at: int) -> bytes:
        """An element that is a list's node by itself; b"" where nobody wants it."""
        cursor = self._cursor
        size = cursor.plain_size("an element")
        if size is not None and size and not self._wanted:
            cursor.skip(size, "an element")
            return b""
        element = cursor.string("an element") if size is None else cursor.take(size, "an element")
        if not element:
            raise RdbError(at, "an element of 0 bytes as a node of its own", _NOT_LOADED)
        return element

    # -- sorted sets

    def zset(self) -> Any:
        """Scores as text; 253 to 255 stand for what has none."""
        count = self._elements("members")
        pairs = ((self._text_or_skip("a member"), self._text_score()) for _ in range(count))
        return self._parts("zset", count, pairs)

    def _text_score(self) -> float:
        cursor = self._cursor
        at = cursor.at()
        size = cursor.byte("a score")
        if size < 253:
            number = cursor.take(size, "a score")
            if not _ASCII_DOUBLE.fullmatch(number):
                raise RdbError(at, f"score {text(number)!r}", "it is no number: damaged")
            return float(number)
        if size == 253:
            raise RdbError(at, "a score that is not a number", "no sorted set has such a one")
        return float("inf" if size == 254 else "-inf")

    def zset2(self) -> Any:
        cursor = self._cursor
        count = self._elements("members")
        if self._wanted:
            pairs = ((cursor.string("a member"), cursor.score()) for _ in range(count))
            return self._gather("zset", count, pairs)
        return cursor.skip_members(count)

    def zset_ziplist(self) -> Any:
        return self._zset_packed("sorted set ziplist", _ZIPLIST)

    def zset_listpack(self) -> Any:
        return self._zset_packed("sorted set listpack", _LISTPACK)

    def _zset_packed(self, what: str, form: _Form) -> Any:
        at = self._cursor.at()
        count, elements = self._tuples(what, 2, form, in_text=False)
        members = self._packed_members(at, elements)
        return self._parts("zset", count, members)

    def _packed_members(
        self, at: int, elements: Iterator[packed.Element]
    ) -> Iterator[tuple[bytes, float]]:
        before = float("-inf")
        ordered = True
        for member, element in zip(elements, elements):
            score = self._packed_score(at, element) if isinstance(element, bytes) else element
            if score < before:
                ordered = False
            before = score
            yield member if isinstance(member, bytes) else b"%d" % member, float(score)
        if not ordered:
            self._warn("a sorted set whose scores are out of order")

    def _packed_score(self, at: int, element: bytes) -> float:
        """A score as the servers read it: zzlStrtod() and zzlGetScore() of t_zset.c give text to
        strtod() of C, which takes what it can of the beginning, or 0.
        """
        if _PLAIN_SCORE.fullmatch(element):
            return float(element)
        number = _C_DOUBLE.match(element[:_SCORE_READ])
        whole = number is not None and number.end() == len(element)
        score = _c_double(number[0]) if number else 0.0
        if isnan(score):
            self._fault(at, "a score that is not a number")
        elif not whole:
            self._warn(f"a score {text(element[:40])!r}, which counts as {score:g}")
        return score

    # -- hashes

    def hash(self) -> Any:
        count = self._elements("fields")
        if not self._wanted:
            return self._cursor.skip_strings(2 * count, "a field or its value")
        triples = (
            (self._cursor.string("a field"), self._cursor.string("a field's value"), None)
            for _ in range(count)
        )
        return self._gather("hash", count, triples)

    def hash_zipmap(self) -> Any:
        at = self._cursor.at()
        data, spans = self._packed("hash zipmap", packed.scan_zipmap)
        if not spans:
            self._empty(at, "fields in a zipmap")
        if not self._wanted:
            return None
        flat = (data[start:end] for start, end in spans)
        return self._gather("hash", len(spans) // 2, _pairs(flat))

    def hash_ziplist(self) -> Any:
        return self._packed_hash("hash ziplist", _ZIPLIST)

    def hash_listpack(self) -> Any:
        return self._packed_hash("hash listpack", _LISTPACK)

    def hash_ttl_pre_ga(self) -> Any:
        return self._hash_ttl(None)

    def hash_ttl(self) -> Any:
        return self._hash_ttl(self._first_expiry())

    def _first_expiry(self) -> int:
        at = self._cursor.at()
        value = int.from_bytes(self._cursor.take(8, "the first expiry of a field"), "little")
        if value > _FIELD_EXPIRY_MAX + 1:
            raise RdbError(at, f"first expiry {value} ms", "no field of a hash expires so late")
        return value

    def _hash_ttl(self, first: int | None) -> Any:
        """Per field an expiry (0: none), relative to the first one of them less 1, field, value."""
        count = self._elements("fields")
        triples = (self._field_with_expiry(first) for _ in range(count))
        return self._parts("hash", count, triples)

    def _field_with_expiry(self, first: int | None) -> tuple[bytes, bytes, int | None]:
        at = self._cursor.at()
        expiry = self._cursor.length("a field's expiry")
        if expiry and first is not None:
            expiry += first - 1
        if expiry > _FIELD_EXPIRY_MAX:
            raise RdbError(at, f"field expiry {expiry} ms", "no field of a hash expires so late")
        return (
            self._text_or_skip("a field"),
            self._text_or_skip("a field's value"),
            expiry or None,
        )

    def hash_listpack_ttl_pre_ga(self) -> Any:
        return self._hash_listpack_ttl()

    def hash_listpack_ttl(self) -> Any:
        self._first_expiry()
        return self._hash_listpack_ttl()

    def _hash_listpack_ttl(self) -> Any:
        """Triples of field, value and expiry (0: none), those that expire first in front."""
        at = self._cursor.at()
        what = "hash listpack with expiries"
        count, elements = self._tuples(what, 3, _LISTPACK)
        return self._parts("hash", count, self._packed_fields(at, what, elements))

    def _packed_fields(
        self, at: int, what: str, elements: Iterator[bytes]
    ) -> Iterator[tuple[bytes, bytes, int | None]]:
        before = -1
        for field, value, digits in zip(elements, elements, elements):
            expiry = int(digits) if _DECIMAL.fullmatch(digits) else -1
            if not 0 <= expiry <= _FIELD_EXPIRY_MAX:
                raise RdbError(
                    at, f"a {what}, expiry {text(digits[:40])!r}", "not a field's expiry: damaged"
                )
            if expiry and (not before or expiry < before):
                raise RdbError(
                    at, f"a {what}, expiry {expiry} ms", "expiries out of order: damaged"
                )
            before = expiry
            yield field, value, expiry or None

    def _text_or_skip(self, what: str) -> bytes:
        if self._wanted:
            return self._cursor.string(what)
        self._cursor.skip_string(what)
        return b""

    def hash_valkey(self) -> Any:
        """Per field its value and its expiry (-1: none), in ms: Valkey's RDB_TYPE_HASH_2."""
        count = self._elements("fields")
        return self._parts("hash", count, (self._field_of_valkey() for _ in range(count)))

    def _field_of_valkey(self) -> tuple[bytes, bytes, int | None]:
        field, value = self._text_or_skip("a field"), self._text_or_skip("a field's value")
        at = self._cursor.at()
        raw = self._cursor.take(8, "a field's expiry")
        expiry = int.from_bytes(raw, "little", signed=True)
        if expiry < -1:
            raise RdbError(at, f"field expiry {expiry} ms", "no field of a hash has such a one")
        return field, value, None if expiry == -1 else expiry

    # -- arrays

    def array(self) -> Any:
        """Number of elements, whether there is a place for the next one, that place; then index,
        kind and content of each, in ascending order of the index: RDB_TYPE_ARRAY of Redis 8.8.
        """
        cursor = self._cursor
        count = self._elements("elements")
        at = cursor.at()
        has_cursor = cursor.length("whether an array has a cursor")
        if has_cursor > 1:
            raise RdbError(at, f"cursor flag {has_cursor}", "an array has 0 or 1: damaged")
        place = cursor.length("an array's cursor") if has_cursor else None
        elements = self._parts("array", count, self._array_elements(count))
        return Array(place, elements) if self._wanted else None

    def _array_elements(self, count: int) -> Iterator[tuple[int, bytes | float]]:
        cursor = self._cursor
        before = -1
        for _ in range(count):
            at = cursor.at()
            index = cursor.length("an array's index")
            if not before < index < _NOT_KNOWN:
                raise RdbError(at, f"index {index} behind {before}", "they ascend: damaged")
            before = index
            kind = cursor.length("the kind of an array's element")
            if kind in (_ARRAY_STRING, _ARRAY_SHORT):
                yield index, self._text_or_skip("an element")
            elif kind == _ARRAY_INTEGER:
                raw = cursor.take(8, "an element")
                yield index, b"%d" % int.from_bytes(raw, "little", signed=True)
            elif kind == _ARRAY_FLOAT:
                yield index, unpack("<d", cursor.take(8, "an element"))[0]
            else:
                raise RdbError(at, f"an element of kind {kind}", "there are 0 to 3: damaged")

    # -- streams

    def stream(self) -> Any:
        return self._stream(1)

    def stream2(self) -> Any:
        return self._stream(2)

    def stream3(self) -> Any:
        return self._stream(3)

    def stream4(self) -> Any:
        return self._stream(4)

    def stream5(self) -> Any:
        return self._stream(5)

    def _id(self, what: str) -> StreamId:
        return self._cursor.length(what), self._cursor.length(what)

    def _stream(self, version: int) -> Any:
        cursor = self._cursor
        # entries, listpacks
        live = [0, 0]
        listpacks = self._stream_listpacks(live)
        entries = self._parts("entries", None, chain.from_iterable(listpacks))
        at = cursor.at()
        declared = cursor.length("the length of a stream")
        if declared != live[0]:
            seen = f"a stream that declares {declared} entries, where {live[0]} are"
            if not live[1] and self._version >= 10:
                raise RdbError(at, seen, _NOT_LOADED)
            self._fault(at, seen)
        last_id = self._id("the last id of a stream")
        first_id = deleted_id = added = None
        if version >= 2:
            first_id = self._id("the first id of a stream")
            deleted_id = self._id("the greatest deleted id of a stream")
            added = cursor.length("the number of entries ever added to a stream")
        groups = []
        names: set[bytes] = set()
        for _ in range(cursor.count("the number of a stream's consumer groups")):
            at = cursor.at()
            group = self._group(version)
            _once(names, group.name, at, "a consumer group")
            if self._wanted:
                groups.append(group)
        idempotence = self._idempotence() if version >= 4 else None
        if not self._wanted:
            return None
        return Stream(entries, last_id, first_id, deleted_id, added, groups, idempotence)

    def _idempotence(self) -> Idempotence:
        cursor = self._cursor
        seconds = cursor.length("how long a stream remembers messages")
        maximum = cursor.length("how many messages a stream remembers")
        producers = []
        names: set[bytes] = set()
        for _ in range(cursor.count("the number of a stream's producers")):
            at = cursor.at()
            name = cursor.string("a producer's name")
            _once(names, name, at, "a producer of a stream")
            ids = []
            for _ in range(cursor.count("the number of a producer's messages")):
                message = self._text_or_skip("a producer's id of a message")
                number = self._id("the id of a producer's message")
                if self._wanted:
                    ids.append((message, number))
            if self._wanted:
                producers.append(Producer(name, ids))
        added = cursor.length("the number of messages with an id")
        return Idempotence(
            seconds, maximum, producers, added, cursor.length("the number of messages again")
        )

    def _stream_listpacks(self, live: list[int]) -> Iterator[Iterator[Any]]:
        """The entries of a stream, listpack by listpack, none where nobody wants them; adds how
        many are alive to `live[0]`, and the listpacks to `live[1]`.
        """
        cursor = self._cursor
        before = b""
        for _ in range(cursor.count("the number of a stream's listpacks")):
            at = cursor.at()
            master = cursor.string("the id of a stream's listpack")
            if len(master) != 16:
                raise RdbError(at, f"a stream id of {len(master)} bytes", "it has 16: damaged")
            if master <= before:
                raise RdbError(at, "a stream id not above the one before", "they ascend: damaged")
            before = master
            at = cursor.at()
            _, listpack = self._packed("stream listpack", packed.StreamListpack)
            yield self._stream_entries(at, _ids(master), listpack)
            for fault in listpack.faults:
                if fault == packed.STREAM_ORDER:
                    self._warn(fault)
                else:
                    self._fault(at, fault)
            live[0] += listpack.live
            live[1] += 1

    def _stream_entries(
        self, at: int, master: StreamId, listpack: packed.StreamListpack
    ) -> Iterator[tuple[StreamId, list[tuple[bytes, bytes]]]]:
        try:
            for time, sequence, pairs in listpack.entries(self._wanted):
                yield ((master[0] + time) % 2**64, (master[1] + sequence) % 2**64), pairs
        except packed.PackedError as error:
            raise _damaged(at, "stream listpack", error) from None

    def _group(self, version: int) -> Group:
        cursor = self._cursor
        name = cursor.string("a consumer group's name")
        last_id = self._id("a consumer group's last id")
        read = cursor.length("a consumer group's entries read") if version >= 2 else None
        at = cursor.at()
        # Every pending entry is some consumer's, once. Sums of hashes compare the two without
        # holding either.
        balance = [0]
        number = cursor.count("the number of a group's pending entries")
        pending = self._parts("pending", number, self._pending(number, balance))
        consumers = []
        names: set[bytes] = set()
        for _ in range(cursor.count("the number of a group's consumers")):
            start = cursor.at()
            consumer = cursor.string("a consumer's name")
            _once(names, consumer, start, "a consumer of a group")
            seen = int.from_bytes(cursor.take(8, "a consumer's time"), "little", signed=True)
            active = None
            if version >= 3:
                active = int.from_bytes(cursor.take(8, "a consumer's time"), "little", signed=True)
            owned = cursor.count("the number of a consumer's pending entries")
            number -= owned
            ids = self._parts("owned", owned, self._owned(owned, balance))
            if self._wanted:
                consumers.append(Consumer(consumer, seen, active, ids))
        released = []
        if version >= 5:
            count = cursor.count("the number of a group's entries that were given back")
            number -= count
            ids = set()
            for _ in range(count):
                raw = cursor.take(16, "the id of an entry that was given back")
                balance[0] -= hash(raw)
                ids.add(raw)
            released = [_ids(raw) for raw in sorted(ids)]
        if number or balance[0]:
            raise RdbError(
                at, "a group's pending entries", "they are not those of its consumers: damaged"
            )
        if read is not None and read >= 1 << 63:  # written as it is in memory: -1 is "not known"
            read = None if read == _NOT_KNOWN else read - (1 << 64)
        return Group(name, last_id, read, pending, consumers, released)

    def _pending(self, number: int, balance: list[int]) -> Iterator[tuple[StreamId, int, int]]:
        cursor = self._cursor
        before = b""
        for _ in range(number):
            raw = self._pending_id(before)
            before = raw
            balance[0] += hash(raw)
            time = cursor.take(8, "a pending entry's time")
            deliveries = cursor.length("a pending entry's deliveries")
            yield _ids(raw), int.from_bytes(time, "little", signed=True), deliveries

    def _owned(self, number: int, balance: list[int]) -> Iterator[StreamId]:
        before = b""
        for _ in range(number):
            raw = self._pending_id(before)
            before = raw
            balance[0] -= hash(raw)
            yield _ids(raw)

    def _pending_id(self, before: bytes) -> bytes:
        at = self._cursor.at()
        raw = self._cursor.take(16, "a pending entry's id")
        if raw <= before:
            raise RdbError(at, "a pending id not above the one before", "they ascend: damaged")
        return raw

    # -- modules

    def module(self) -> Any:
        module_id = self._cursor.length("a module's id")
        fields = self.module_fields(module_name(module_id))
        if not self._wanted:
            return None
        return Module(module_name(module_id), module_id & 1023, fields)

    def module_fields(self, name: str) -> Any:
        """Typed fields up to the end mark, 0; None where nobody wants them."""
        at = self._cursor.at()
        fields = self._module_fields(f"a field of module {name}")
        try:
            return self._parts(VECTOR_SET if name == VECTOR_SET else "fields", None, fields)
        except packed.PackedError as error:
            raise RdbError(at, error.seen, error.meaning) from None

    def _module_fields(self, what: str) -> Iterator[tuple[int, int | bytes]]:
        cursor = self._cursor
        while True:
            at = cursor.at()
            code = cursor.length(what)
            if not code:
                return
            if code in (_MODULE_SIGNED, MODULE_UNSIGNED):
                yield code, cursor.length(what)
            elif code == _MODULE_FLOAT:
                yield code, cursor.take(4, what)
            elif code == _MODULE_DOUBLE:
                yield code, cursor.take(8, what)
            elif code == _MODULE_STRING:
                yield code, self._text_or_skip(what)
            else:
                raise RdbError(at, f"{what} of type {code}", "there are 1 to 5: damaged")


class Type(NamedTuple):
    kind: str
    since: int
    method: str


# By the byte in the file: what it holds, the first RDB version that has it, how to read it.
_TYPES = {
    0: Type("string", 1, "string"),
    1: Type("list", 1, "list_strings"),
    2: Type("set", 1, "set_strings"),
    3: Type("zset", 1, "zset"),
    4: Type("hash", 1, "hash"),
    5: Type("zset", 8, "zset2"),
    7: Type("module", 8, "module"),
    9: Type("hash", 1, "hash_zipmap"),
    10: Type("list", 1, "list_ziplist"),
    11: Type("set", 1, "set_intset"),
    12: Type("zset", 1, "zset_ziplist"),
    13: Type("hash", 1, "hash_ziplist"),
    14: Type("list", 7, "quicklist"),
    15: Type("stream", 9, "stream"),
    16: Type("hash", 10, "hash_listpack"),
    17: Type("zset", 10, "zset_listpack"),
    18: Type("list", 10, "quicklist2"),
    19: Type("stream", 10, "stream2"),
    20: Type("set", 11, "set_listpack"),
    21: Type("stream", 11, "stream3"),
    22: Type("hash", 12, "hash_ttl_pre_ga"),
    23: Type("hash", 12, "hash_listpack_ttl_pre_ga"),
    24: Type("hash", 12, "hash_ttl"),
    25: Type("hash", 12, "hash_listpack_ttl"),
    26: Type("stream", 13, "stream4"),
    27: Type("stream", 14, "stream5"),
    28: Type("array", 14, "array"),
}
# Valkey left at version 11, and numbers what came since by itself.
_TYPES_OF_VALKEY = {
    **{number: kind for number, kind in _TYPES.items() if kind.since <= 11},
    22: Type("hash", VALKEY, "hash_valkey"),
}


def types(version: int) -> dict[int, Type]:
    """The types of values in files of an RDB version."""
    table = _TYPES if version < VALKEY else _TYPES_OF_VALKEY
    return {number: kind for number, kind in table.items() if kind.since <= version}
