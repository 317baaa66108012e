"""redis.conf as data: parse, render, normalise, compare and plan. Pure functions, no I/O.

The format is Redis's own: lines split as by `sdssplitargs()` (src/sds.c), directives and their
kinds as in the tables of src/config.c of Redis 6.0, 6.2, 7.0, 7.2 and 8.0. Text is `str`; bytes
that are no UTF-8 travel as surrogate escapes (`decode`, `encode`): a password may hold any byte.

Redis rewrites this file itself (CONFIG REWRITE): it respells old names, resolves `dir`, changes
units and quotes, appends lines. So files are compared by what they mean, never by their bytes.

Runs on managed hosts: Python 3.9, standard library only, no import of a sibling.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

LIVE = "live"
RESTART = "restart"
PROTECTED = "protected"

MASK = "********"

# Old name -> (today's name, first version that knows it). Redis takes the old names still, and its
# CONFIG REWRITE turns them into the new ones.
ALIASES: Mapping[str, tuple[str, str]] = {
    "slaveof": ("replicaof", "5.0"),
    "slave-announce-ip": ("replica-announce-ip", "5.0"),
    "slave-announce-port": ("replica-announce-port", "5.0"),
    "slave-ignore-maxmemory": ("replica-ignore-maxmemory", "5.0"),
    "slave-lazy-flush": ("replica-lazy-flush", "5.0"),
    "slave-priority": ("replica-priority", "5.0"),
    "slave-read-only": ("replica-read-only", "5.0"),
    "slave-serve-stale-data": ("replica-serve-stale-data", "5.0"),
    "min-slaves-to-write": ("min-replicas-to-write", "5.0"),
    "min-slaves-max-lag": ("min-replicas-max-lag", "5.0"),
    "repl-ping-slave-period": ("repl-ping-replica-period", "5.0"),
    "cluster-slave-no-failover": ("cluster-replica-no-failover", "5.0"),
    "cluster-slave-validity-factor": ("cluster-replica-validity-factor", "5.0"),
    "hash-max-ziplist-entries": ("hash-max-listpack-entries", "7.0"),
    "hash-max-ziplist-value": ("hash-max-listpack-value", "7.0"),
    "list-max-ziplist-size": ("list-max-listpack-size", "7.0"),
    "zset-max-ziplist-entries": ("zset-max-listpack-entries", "7.0"),
    "zset-max-ziplist-value": ("zset-max-listpack-value", "7.0"),
    "lua-time-limit": ("busy-reply-threshold", "7.0"),
    "server_cpulist": ("server-cpulist", "7.4"),
    "bio_cpulist": ("bio-cpulist", "7.4"),
    "aof_rewrite_cpulist": ("aof-rewrite-cpulist", "7.4"),
    "bgsave_cpulist": ("bgsave-cpulist", "7.4"),
    # Valkey's own newer names; it takes Redis's as well.
    "commandlog-execution-slower-than": ("slowlog-log-slower-than", "0.0"),
    "commandlog-slow-execution-max-len": ("slowlog-max-len", "0.0"),
    "primaryauth": ("masterauth", "0.0"),
    "primaryuser": ("masteruser", "0.0"),
}
_OLD_NAMES = {new: (old, since) for old, (new, since) in ALIASES.items()}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BOOLEANS = _names(
    """
    activedefrag activerehashing always-show-logo aof-disable-auto-gc aof-load-truncated
    aof-rewrite-incremental-fsync aof-timestamp-enabled aof-use-rdb-preamble appendonly
    cluster-allow-pubsubshard-when-down cluster-allow-reads-when-down
    cluster-allow-replica-migration cluster-enabled cluster-replica-no-failover
    cluster-require-full-coverage crash-log-enabled crash-memcheck-enabled daemonize disable-thp
    dynamic-hz gopher-enabled hide-user-data-from-log io-threads-do-reads jemalloc-bg-thread
    latency-tracking lazyfree-lazy-eviction lazyfree-lazy-expire lazyfree-lazy-server-del
    lazyfree-lazy-user-del lazyfree-lazy-user-flush no-appendfsync-on-rewrite protected-mode
    rdb-del-sync-files rdb-save-incremental-fsync rdbchecksum rdbcompression
    repl-disable-tcp-nodelay repl-diskless-sync replica-announced
    replica-ignore-disk-write-errors replica-ignore-maxmemory replica-lazy-flush
    replica-read-only replica-serve-stale-data set-proc-title stop-writes-on-bgsave-error
    syslog-enabled tls-cluster tls-prefer-server-ciphers tls-replication tls-session-caching
    """
)

ENUMS = _names(
    """
    acl-pubsub-default appendfsync cluster-preferred-endpoint-type enable-debug-command
    enable-module-command enable-protected-configs loglevel maxmemory-policy oom-score-adj
    propagation-error-behavior repl-diskless-load sanitize-dump-payload supervised
    syslog-facility tls-auth-clients
    """
)

# Take units (`64mb`); CONFIG GET answers in bytes.
MEMORY = _names(
    """
    active-defrag-ignore-bytes auto-aof-rewrite-min-size client-query-buffer-limit
    cluster-link-sendbuf-limit hash-max-listpack-value hll-sparse-max-bytes maxmemory
    maxmemory-clients proto-max-bulk-len repl-backlog-size replica-full-sync-buffer-limit
    stream-node-max-bytes zset-max-listpack-value
    """
)

OCTAL = frozenset({"unixsocketperm"})

# Strings whose empty value is the same as no line at all; CONFIG REWRITE drops such a line.
EMPTY_IS_ABSENT = _names(
    """
    aof-rewrite-cpulist bgsave-cpulist bind-source-addr bio-cpulist cluster-announce-hostname
    cluster-announce-human-nodename cluster-announce-ip masterauth masteruser pidfile
    replica-announce-ip replicaof requirepass server-cpulist tls-ca-cert-dir tls-ca-cert-file
    tls-cert-file tls-ciphers tls-ciphersuites tls-client-cert-file tls-client-key-file
    tls-client-key-file-pass tls-dh-params-file tls-key-file tls-key-file-pass tls-protocols
    unixsocket
    """
)

# Still read, but without effect since 7.0; CONFIG REWRITE turns such a line into a comment.
WITHOUT_EFFECT = frozenset(
    {"list-max-ziplist-entries", "list-max-ziplist-value", "lua-replicate-commands"}
)

# Take several arguments on one line; of several lines the last wins.
ONE_LINE = _names(
    """
    bind replicaof oom-score-adj-values shutdown-on-sigint shutdown-on-sigterm
    latency-tracking-info-percentiles
    """
)
# Lines add up.
REPEATED = _names("save client-output-buffer-limit rename-command user loadmodule include")
# Of these, every first argument is a setting of its own (a user, a command, a file); CONFIG GET and
# CONFIG SET know none of them.
KEYED = frozenset({"rename-command", "user", "loadmodule", "include"})

# What CONFIG SET refuses with "can't set immutable config" (7.0; newer ones have the same).
IMMUTABLE = _names(
    """
    aclfile always-show-logo aof-rewrite-cpulist appenddirname appendfilename bgsave-cpulist
    bio-cpulist client-default-resp cluster-config-file cluster-enabled cluster-port daemonize
    databases disable-thp enable-debug-command enable-module-command enable-protected-configs
    io-threads io-threads-do-reads logfile pidfile rdbchecksum replicaof req-res-logfile
    server-cpulist set-proc-title socket-mark-id supervised syslog-enabled syslog-facility
    syslog-ident tcp-backlog unixsocket unixsocketperm
    """
)
IMMUTABLE_BEFORE: Mapping[str, frozenset[str]] = {"6.2": frozenset({"port", "tls-port", "bind"})}

# Where the data is. Redis 7 refuses to set the first two ("protected config"); the other two are
# only immutable for Redis, but a restart with another name of the AOF comes up without the data.
PROTECTED_NAMES = frozenset({"dir", "dbfilename", "appendfilename", "appenddirname"})

# What a scratch server is not started with as the file says, so that its CONFIG GET tells nothing
# about the file. `maxclients` is not overridden, but lowered to what the caller's ulimit allows.
SCRATCH_OVERRIDES = _names(
    """
    aclfile bind daemonize dir logfile maxclients pidfile port replicaof save supervised tls-port
    unixsocket unixsocketperm
    """
)

SECRET_NAMES = _names(
    """
    masterauth requirepass tls-key-file-pass tls-client-key-file-pass user rename-command
    """
)

_BUFFER_CLASSES: Mapping[str, tuple[int, int, int]] = {
    "normal": (0, 0, 0),
    "replica": (256 * 1024**2, 64 * 1024**2, 60),
    "pubsub": (32 * 1024**2, 8 * 1024**2, 60),
}
# What CONFIG REWRITE does not quote: of Redis 6.0 the first, of Valkey 8.1 all.
_REWRITTEN_RAW = _names("requirepass masterauth masteruser primaryauth primaryuser")

_DEFAULT_BIND = "* -::*"
# Before, "-::1" is no address; any that the host does not have is passed over all the same.
_OPTIONAL_BIND_SINCE = (6, 2)
_DEFAULT_PERCENTILES = "50 99 99.9"
# What `A` stands for in notify-keyspace-events, in Redis's own order.
_ALL_EVENTS = "g$lshzxetd"
_EVENT_ORDER = _ALL_EVENTS + "KEmn"

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1024,
    "m": 1000**2,
    "mb": 1024**2,
    "g": 1000**3,
    "gb": 1024**3,
}


class ConfError(ValueError):
    """A text or value that cannot be a redis.conf. No value is shown: it may be secret."""


class Directive(NamedTuple):
    """One line: the name in lower case as it is spelled there, its arguments unquoted."""

    name: str
    args: tuple[str, ...]
    line: int


class Change(NamedTuple):
    """A setting that differs between two files; None where a file does not have it."""

    name: str
    current: str | None
    desired: str | None


class Planned(NamedTuple):
    """A setting of the running server that has to change, and how (LIVE, RESTART, PROTECTED)."""

    kind: str
    name: str
    current: str | None
    desired: str | None


AnyChange = TypeVar("AnyChange", Change, Planned)


# --- text ------------------------------------------------------------------------------------


def decode(data: bytes) -> str:
    """The text of a file as the functions here want it (not by a text-mode `open`: that would
    turn a lone CR into a line's end, which Redis does not)."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The bytes of such a text."""
    return text.encode("utf-8", "surrogateescape")


_BLANK = b" \t\n\v\f\r"  # isspace() in the C locale
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_HEX = re.compile(rb"\\x([0-9a-fA-F]{2})")


def split_args(line: str) -> list[str]:
    """Split one line as Redis does.

    Inside double quotes `\\xHH`, `\\n \\r \\t \\b \\a` and a backslash before any other character
    are escapes; inside single quotes only `\\'` is. A closing quote must be followed by a blank.

    Raises ConfError for unbalanced quotes and for a NUL, where C would end the text.
    """
    data = encode(line)
    if b"\0" in data:
        raise ConfError("there is a NUL character in it; Redis would read no further")
    args: list[str] = []
    at = 0
    while True:
        while at < len(data) and data[at : at + 1] in _BLANK:
            at += 1
        if at == len(data):
            return args
        word, at = _word(data, at)
        args.append(decode(word))


def _word(data: bytes, at: int) -> tuple[bytes, int]:
    word = bytearray()
    while at < len(data) and data[at : at + 1] not in b" \n\r\t":
        char = data[at : at + 1]
        at += 1
        if char not in (b'"', b"'"):
            word += char
            continue
        quoted, at = _quoted(data, at, char)
        word += quoted
        if at < len(data) and data[at : at + 1] not in _BLANK:
            raise ConfError("something follows a closing quote without a blank between")
        break
    return bytes(word), at


def _quoted(data: bytes, at: int, quote_char: bytes) -> tuple[bytes, int]:
    """What stands between quotes; `at` is behind the opening one, the result behind the closing."""
    word = bytearray()
    while at < len(data):
        char = data[at : at + 1]
        after = data[at + 1 : at + 2]
        if char == quote_char:
            return bytes(word), at + 1
        if char == b"\\" and quote_char == b"'" and after == b"'":
            word += b"'"
            at += 2
        elif char == b"\\" and quote_char == b'"' and after:
            escape = _HEX.match(data, at)
            word += bytes.fromhex(escape[1].decode()) if escape else _ESCAPES.get(after, after)
            at += 4 if escape else 2
        else:
            word += char
            at += 1
    raise ConfError("a quote is not closed")


def parse(text: str) -> list[Directive]:
    """The directives of a redis.conf in their order. Comments count only at the start of a line.

    Raises ConfError that names the line, but does not show it.
    """
    directives = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r\n")
        if not line or line.startswith("#"):
            continue
        try:
            words = split_args(line)
        except ConfError as error:
            name, _, value = line.partition(" ")
            if name.lower() in _REWRITTEN_RAW:
                # Redis would not start with it either, but compare() sees that, so it is mended.
                directives.append(Directive(name.lower(), (value,), number))
                continue
            raise ConfError(
                f"line {number} of the configuration is not valid: {error}; Redis would not start"
            ) from None
        if words:
            directives.append(Directive(words[0].lower(), tuple(words[1:]), number))
    return directives


def _mangled(text: str) -> set[str]:
    """Today's names of the secrets that CONFIG REWRITE wrote so that the server would not start."""
    found = set()
    for raw in text.split("\n"):
        name = raw.strip().partition(" ")[0].lower()
        if name in _REWRITTEN_RAW:
            try:
                fine = len(split_args(raw.strip(" \t\r\n"))) == 2
            except ConfError:
                fine = False
            if not fine:
                found.add(fold(name))
    return found


_PLAIN = re.compile(rb"[!#-&(-\[\]-~]+")  # printable, no blank, no quote, no backslash
_ESCAPED = {
    0x5C: "\\\\",
    0x22: '\\"',
    0x0A: "\\n",
    0x0D: "\\r",
    0x09: "\\t",
    0x07: "\\a",
    0x08: "\\b",
}


def quote(value: str) -> str:
    """A value as one argument of a line: plain where it can be, else quoted as by Redis."""
    data = encode(value)
    if _PLAIN.fullmatch(data):
        return value
    return '"' + "".join(_quote_byte(byte) for byte in data) + '"'


def _quote_byte(byte: int) -> str:
    if byte in _ESCAPED:
        return _ESCAPED[byte]
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


# --- names -----------------------------------------------------------------------------------


def fold(name: str) -> str:
    """Today's name of a directive, in lower case: `slaveof` and `ReplicaOf` are `replicaof`."""
    lower = name.lower()
    return ALIASES[lower][0] if lower in ALIASES else lower


def spell(name: str, version: str) -> str:
    """The name of a directive as this version of Redis prefers it."""
    today = fold(name)
    old, since = _OLD_NAMES.get(today, (today, "0.0"))
    return today if _release(version) >= _release(since) else old


def _release(version: str) -> tuple[int, int]:
    found = re.match(r"(?:\d+:)?(\d+)\.(\d+)", version)
    if not found:
        raise ConfError(f"{version!r} is not a version of Redis, such as 7.0 or 7.0.15")
    return int(found[1]), int(found[2])


# --- render ----------------------------------------------------------------------------------


def render(mapping: Mapping[str, Any], version: str = "7.0") -> str:
    """The lines of a redis.conf for this mapping, in its order, each ended by a newline.

    - true and false become `yes` and `no`, None leaves the directive out;
    - a list gives the lines of a directive that repeats (`save`, `client-output-buffer-limit`,
      `user`, `rename-command`, `loadmodule`, `include`), each item a string or a list of
      arguments, and the arguments of one that takes several on its line (`bind`, `replicaof`);
    - a string is one argument, except for these: there it is split as Redis would split it;
    - an empty `save`, given as a list or as a string, is `save ""` (no line at all would mean
      Redis's defaults);
    - `slaveof`/`replicaof`, ziplist/listpack and the like are spelled for the version.

    Raises ConfError for what cannot be written: a newline or a NUL, a directive given twice (under
    its old and its new name, say), a mapping as a value, a list where Redis takes one value.
    """
    _release(version)
    lines = []
    seen: dict[str, str] = {}
    for name, value in mapping.items():
        today = _checked_name(name)
        if today in seen:
            raise ConfError(
                f"{name} is given twice (the other time as {seen[today]}); keep one of them"
            )
        seen[today] = name
        if value is None:
            continue
        spelled = spell(today, version)
        lines += [
            " ".join([spelled, *(quote(arg) for arg in args)])
            for args in _argument_lists(name, today, value, version)
        ]
    return "".join(f"{line}\n" for line in lines)


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise ConfError(f"{name!r} is not the name of a directive")
    return fold(name)


def _argument_lists(name: str, today: str, value: Any, version: str) -> list[list[str]]:
    if today == "save":
        return _groups_of(2, name, _flat(_lines_of(name, value))) or [[""]]
    if today == "client-output-buffer-limit":
        groups = _groups_of(4, name, _flat(_lines_of(name, value)))
        old = _release(version) < (5, 0)
        classes = {"slave": "slave" if old else "replica", "replica": "slave" if old else "replica"}
        return [[classes.get(group[0].lower(), group[0]), *group[1:]] for group in groups]
    if today in REPEATED:
        return _lines_of(name, value)
    if today in ONE_LINE:
        if isinstance(value, (list, tuple)):
            if not value:
                raise ConfError(f"{name} has an empty list; leave it out or give it a value")
            args = [_scalar(name, item) for item in value]
        else:
            args = _split_value(name, value)
        if today == "bind" and _release(version) < _OPTIONAL_BIND_SINCE:
            args = [arg[1:] if arg.startswith("-") else arg for arg in args]
        return [args]
    if isinstance(value, (list, tuple)):
        if len(value) != 1:
            raise ConfError(f"{name} takes one value, not a list of {len(value)}")
        return [[_scalar(name, value[0])]]
    return [[_scalar(name, value)]]


def _lines_of(name: str, value: Any) -> list[list[str]]:
    """A value of a repeating directive as lists of arguments, empty ones left out."""
    items = value if isinstance(value, (list, tuple)) else [value]
    lines = []
    for item in items:
        if isinstance(item, (list, tuple)):
            lines.append([_scalar(name, part) for part in item])
        else:
            lines.append(_split_value(name, item))
    return [line for line in lines if line and line != [""]]


def _split_value(name: str, value: Any) -> list[str]:
    text = _scalar(name, value)
    try:
        return split_args(text) or [""]
    except ConfError as error:
        raise ConfError(f"{name} cannot be split into arguments: {error}") from None


def _flat(lines: Iterable[Sequence[str]]) -> list[str]:
    return [arg for line in lines for arg in line]


def _groups_of(size: int, name: str, args: Sequence[str]) -> list[list[str]]:
    if len(args) % size:
        raise ConfError(f"{name} takes groups of {size} values, but {len(args)} are given")
    return [list(args[at : at + size]) for at in range(0, len(args), size)]


def _scalar(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return str(value)
    if not isinstance(value, str):
        raise ConfError(
            f"{name} has a value of type {type(value).__name__};"
            " it must be text, a number, a boolean or a list of these"
        )
    if "\n" in value or "\0" in value:
        raise ConfError(f"{name} has a newline or NUL character in its value; take it out")
    return str(value)


# --- meaning ---------------------------------------------------------------------------------


def normalise(name: str, args: Sequence[str]) -> str:
    """A value in the one form that equal meanings share.

    `args` are the arguments of a directive (of a repeating one: of all its lines, one after the
    other) or the one string of CONFIG GET; both give the same. Memory is in bytes, booleans and
    enums in lower case, save points in descending order, buffer limits of all three classes,
    octal without leading zeros. What is not valid comes back as it is: Redis will say so itself.
    CONFIG SET takes the result.
    """
    today = fold(name)
    if today in (ONE_LINE | REPEATED) - KEYED and len(args) == 1:
        args = _split_again(args[0])
    special = _NORMALISERS.get(today)
    if special is None:
        return " ".join(args) if today not in KEYED else " ".join(quote(arg) for arg in args)
    try:
        return special(list(args))
    except (ValueError, IndexError):
        return " ".join(args)


def _split_again(value: str) -> list[str]:
    # Redis 7 splits a lone argument of these once more, and CONFIG GET joins what it was given.
    try:
        return split_args(value) or [""]
    except ConfError:
        return [value]


def _one(args: list[str]) -> str:
    (value,) = args
    return value


def _lower(args: list[str]) -> str:
    return _one(args).lower()


def _bytes(value: str) -> int:
    found = re.fullmatch(r"([0-9]+)([a-z]*)", value.lower(), re.ASCII)
    if not found or found[2] not in _UNITS:
        raise ValueError(value)
    return int(found[1]) * _UNITS[found[2]]


def _memory(args: list[str]) -> str:
    value = _one(args)
    return value if value.endswith("%") else str(_bytes(value))


def _save(args: list[str]) -> str:
    points: set[tuple[int, int]] = set()
    seconds: int | None = None
    for arg in args:
        if arg == "":
            points.clear()
        elif seconds is None:
            seconds = int(arg)
        else:
            points.add((seconds, int(arg)))
            seconds = None
    if seconds is not None:
        raise ValueError("odd")
    return " ".join(f"{after} {changes}" for after, changes in sorted(points, reverse=True))


def _buffer_limits(args: list[str]) -> str:
    limits = dict(_BUFFER_CLASSES)
    for kind, hard, soft, seconds in _groups_of(4, "", args):
        kind = "replica" if kind.lower() == "slave" else kind.lower()
        if kind not in limits:
            raise ValueError(kind)
        limits[kind] = (_bytes(hard), _bytes(soft), int(seconds))
    return " ".join(f"{kind} {limit[0]} {limit[1]} {limit[2]}" for kind, limit in limits.items())


def _events(args: list[str]) -> str:
    given = set(_one(args).replace("A", _ALL_EVENTS))
    if not given <= set(_EVENT_ORDER):
        raise ValueError("events")
    return "".join(char for char in _EVENT_ORDER if char in given)


def _replicaof(args: list[str]) -> str:
    if args == [""] or [arg.lower() for arg in args] == ["no", "one"]:
        return ""
    host, port = args
    return f"{host} {int(port)}"


def _oom_score_adj(args: list[str]) -> str:
    value = _lower(args)
    return "yes" if value == "relative" else value


def _octal(args: list[str]) -> str:
    return f"{int(_one(args), 8):o}"


def _directory(args: list[str]) -> str:
    value = _one(args)
    return posixpath.normpath(value) if value else value


def _percentiles(args: list[str]) -> str:
    return " ".join(f"{float(arg):.15g}" for arg in args if arg)


def _integers(args: list[str]) -> str:
    return " ".join(str(int(arg)) for arg in args)


def _flags(args: list[str]) -> str:
    return " ".join(sorted({arg.lower() for arg in args}))


def _user(args: list[str]) -> str:
    return _canonical_user(args[1:])


_NORMALISERS: Mapping[str, Callable[[list[str]], str]] = {
    **dict.fromkeys(BOOLEANS | ENUMS, _lower),
    **dict.fromkeys(MEMORY, _memory),
    **dict.fromkeys(OCTAL, _octal),
    "save": _save,
    "client-output-buffer-limit": _buffer_limits,
    "notify-keyspace-events": _events,
    "replicaof": _replicaof,
    "oom-score-adj": _oom_score_adj,
    "oom-score-adj-values": _integers,
    "shutdown-on-sigint": _flags,
    "shutdown-on-sigterm": _flags,
    "latency-tracking-info-percentiles": _percentiles,
    "dir": _directory,
    "user": _user,
}


def settings(text: str) -> dict[str, str]:
    """What a file sets: today's name -> normalised value, in order of first appearance.

    A user, a renamed command, a module and an include are settings of their own, named
    `user NAME`, `rename-command NAME`, `loadmodule PATH`, `include PATH`.
    """
    grouped: dict[str, list[str]] = {}
    for directive in parse(text):
        name, args = fold(directive.name), list(directive.args)
        if name in KEYED and args:
            first = args[0].lower() if name == "rename-command" else args[0]
            grouped[f"{name} {first}"] = args if name == "user" else args[1:]
        elif name in REPEATED:
            words = _split_again(args[0]) if len(args) == 1 else args
            grouped[name] = [*grouped.get(name, []), *words]
        else:
            grouped[name] = args
    return {name: normalise(name.split(" ", 1)[0], args) for name, args in grouped.items()}


# --- ACL users -------------------------------------------------------------------------------


def _canonical_user(rules: Sequence[str]) -> str:
    """One form for rules that mean the same: passwords hashed, sets sorted, commands in order."""
    enabled, nopass, sanitize = False, False, True
    passwords: set[str] = set()
    root: list[str] = []
    selectors: list[str] = []
    for rule in _selectors_joined(rules):
        word = rule.lower()
        if word in ("on", "off"):
            enabled = word == "on"
        elif word in ("nopass", "resetpass"):
            nopass = word == "nopass"
            passwords.clear()
        elif rule[:1] in (">", "#"):
            passwords.add(_sha256(rule[1:]) if rule[0] == ">" else rule[1:].lower())
            nopass = False
        elif rule[:1] in ("<", "!"):
            passwords.discard(_sha256(rule[1:]) if rule[0] == "<" else rule[1:].lower())
        elif word in ("sanitize-payload", "skip-sanitize-payload"):
            sanitize = word == "sanitize-payload"
        elif word == "clearselectors":
            selectors.clear()
        elif rule.startswith("(") and rule.endswith(")"):
            selectors.append(f"({' '.join(_canonical_selector(rule[1:-1].split()))})")
        else:
            root.append(rule)
    return " ".join(
        [
            "on" if enabled else "off",
            *([] if sanitize else ["skip-sanitize-payload"]),
            *(["nopass"] if nopass else []),
            *(f"#{password}" for password in sorted(passwords)),
            *_canonical_selector(root),
            *selectors,
        ]
    )


def _canonical_selector(rules: Sequence[str]) -> list[str]:
    """The rules about keys, channels and commands, sets sorted and commands in order."""
    keys: set[str] = set()
    channels: set[str] = set()
    commands = ["-@all"]
    others: list[str] = []
    for rule in rules:
        word = rule.lower()
        if word in ("allkeys", "~*"):
            keys = {"~*"}
        elif word == "resetkeys":
            keys.clear()
        elif rule[:1] in ("~", "%"):
            keys.add(rule)
        elif word in ("allchannels", "&*"):
            channels = {"&*"}
        elif word == "resetchannels":
            channels.clear()
        elif rule[:1] == "&":
            channels.add(rule)
        elif word in ("+@all", "allcommands", "-@all", "nocommands"):
            commands = ["+@all" if word in ("+@all", "allcommands") else "-@all"]
        elif rule[:1] in ("+", "-"):
            commands = [one for one in commands if one[1:] != word[1:]] + [word]
        else:
            others.append(rule)
    return [*sorted(keys), *(sorted(channels) or ["resetchannels"]), *commands, *others]


def _selectors_joined(rules: Sequence[str]) -> list[str]:
    joined: list[str] = []
    for rule in rules:
        if joined and joined[-1].startswith("(") and not joined[-1].endswith(")"):
            joined[-1] += " " + rule
        else:
            joined.append(rule)
    return joined


def _sha256(password: str) -> str:
    return hashlib.sha256(encode(password)).hexdigest()


def _is_plain_default_user(user: str, requirepass: str) -> bool:
    """Is this `user default` what Redis derives from requirepass alone?"""
    secret = f"#{_sha256(requirepass)}" if requirepass else "nopass"
    # Channels: all of them since 6.2, unknown to 6.0.
    return user in (
        f"on {secret} ~* &* +@all",
        f"on {secret} ~* resetchannels +@all",
    )


# --- comparison ------------------------------------------------------------------------------


def compare(
    desired_text: str,
    current_text: str,
    effective: Mapping[str, str] | None = None,
    overridden: Collection[str] = SCRATCH_OVERRIDES,
) -> list[Change]:
    """The settings in which two files differ in meaning: those of the desired file in its order,
    then what only the current one has. Empty after Redis has rewritten an unchanged file.

    `effective` is the CONFIG GET of a server booted on the desired file; what a rewrite adds to
    the file and it agrees with is no change. The names in `overridden` are not taken from there,
    because that server was started with other values for them. (`dir` and `save` are always
    written by a rewrite, so a desired file should have them.)

    Of Redis's own additions these need no `effective`: a `user default` that only repeats
    requirepass, and the default latency-tracking-info-percentiles.
    """
    desired, current = settings(desired_text), settings(current_text)
    known = {
        fold(name): normalise(name, [value])
        for name, value in (effective or {}).items()
        if fold(name) not in overridden
    }
    changes = []
    mangled = _mangled(current_text)
    for name in [*desired, *(name for name in current if name not in desired)]:
        want, have = desired.get(name), current.get(name)
        if name in mangled and want is not None:
            changes.append(Change(name, have, want))
            continue
        if want == have or (have is not None and known.get(name) == have):
            continue
        if want is None and have is not None and _is_own_addition(name, have, desired):
            continue
        if want is None or have is None:
            there = have if want is None else want
            if there is not None and _is_as_absent(name, there):
                continue
        changes.append(Change(name, have, want))
    return changes


def _is_own_addition(name: str, value: str, desired: Mapping[str, str]) -> bool:
    if name == "user default":
        return _is_plain_default_user(value, desired.get("requirepass", ""))
    return name == "latency-tracking-info-percentiles" and value == _DEFAULT_PERCENTILES


def _is_as_absent(name: str, value: str) -> bool:
    return (
        (value == "" and name in EMPTY_IS_ABSENT)
        or (name == "bind" and value == _DEFAULT_BIND)
        or name in WITHOUT_EFFECT
    )


def hold_back(wanted: str, current: str, names: Collection[str]) -> str:
    """The wanted file, but with some directives as the current file has them, or has them not.

    What only a restart changes belongs into the file when the restart comes, and no sooner: until
    then a server that crashes, or is never restarted, must find the file that it runs with.

    Raises:
        ConfError: one of the files cannot be understood.
    """
    held = {fold(name) for name in names}

    def chosen(text: str, from_held: bool) -> list[str]:
        numbers = {item.line for item in parse(text) if fold(item.name) in held}
        return [
            line
            for number, line in enumerate(text.split("\n"), 1)
            if line and (number in numbers) is from_held
        ]

    return "\n".join([*chosen(wanted, False), *chosen(current, True)]) + "\n"


def kind_of(name: str, version: str = "7.0") -> str:
    """How a setting is changed on this version: LIVE by CONFIG SET, RESTART, or PROTECTED."""
    today = fold(name.split(" ", 1)[0])
    if today in PROTECTED_NAMES:
        return PROTECTED
    if today in IMMUTABLE or today in KEYED:
        return RESTART
    release = _release(version)
    old = (names for before, names in IMMUTABLE_BEFORE.items() if release < _release(before))
    return RESTART if any(today in names for names in old) else LIVE


def settle(
    desired_text: str,
    effective: Mapping[str, str],
    overridden: Collection[str] = SCRATCH_OVERRIDES,
) -> dict[str, str]:
    """What a server started on the desired file will answer to CONFIG GET: the scratch server's
    answers, and the file's own values for what that one was not started with. Overridden names
    that the file does not set are left out (nothing is known about them)."""
    from_file = settings(desired_text)
    settled = {name: value for name, value in effective.items() if fold(name) not in overridden}
    settled.update(
        (name, from_file[name]) for name in map(fold, sorted(overridden)) if name in from_file
    )
    return settled


def plan(
    desired: Mapping[str, str],
    live: Mapping[str, str],
    overridden: Collection[str] = frozenset(),
    version: str = "7.0",
) -> list[Planned]:
    """What has to change on a running server, sorted by name.

    `desired` is what CONFIG GET should say (see `settle`), `live` what it says; names in
    `overridden` are left alone, and replicaof always: who is master is not a matter of the file.
    `Planned.name` is spelled as the running server knows it. A name that it does not know at all
    comes with a newer program: RESTART. Names that only `live` has are left alone.
    """
    skipped = {fold(name) for name in overridden} | {"replicaof"}
    wanted, running = _by_today(desired), _by_today(live)
    planned = []
    for name in sorted(wanted):
        value = wanted[name][1]
        if name in skipped:
            continue
        if name not in running:
            planned.append(Planned(RESTART, wanted[name][0], None, value))
            continue
        spelled, current = running[name]
        if normalise(name, [value]) != normalise(name, [current]):
            planned.append(Planned(kind_of(name, version), spelled, current, value))
    return planned


def _by_today(values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """CONFIG GET lists old and new names both: one entry each, under today's name if it has it."""
    result: dict[str, tuple[str, str]] = {}
    for name, value in values.items():
        today = fold(name)
        if today not in result or name.lower() == today:
            result[today] = (name, value)
    return result


def mask(change: AnyChange) -> AnyChange:
    """The same change without secrets, to be shown."""
    if fold(change.name.split(" ", 1)[0]) not in SECRET_NAMES:
        return change
    return change._replace(
        current=None if change.current is None else MASK,
        desired=None if change.desired is None else MASK,
    )
