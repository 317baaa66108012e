"""What a redis.conf means: each setting in the one form that equal meanings share. No I/O.

Redis rewrites this file itself (CONFIG REWRITE): it respells old names, resolves `dir`, changes
units and quotes, appends lines. So files are compared by what they mean, never by their bytes.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    BOOLEANS,
    ENUMS,
    KEYED,
    MEMORY,
    OCTAL,
    ONE_LINE,
    REPEATED,
    fold,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_text import (
    groups_of,
    parse,
    quote,
    split_again,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import sha256

_BUFFER_CLASSES: Mapping[str, tuple[int, int, int]] = {
    "normal": (0, 0, 0),
    "replica": (256 * 1024**2, 64 * 1024**2, 60),
    "pubsub": (32 * 1024**2, 8 * 1024**2, 60),
}
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
        args = split_again(args[0])
    special = _NORMALISERS.get(today)
    if special is None:
        return " ".join(args) if today not in KEYED else " ".join(quote(arg) for arg in args)
    try:
        return special(list(args))
    except (ValueError, IndexError):
        return " ".join(args)


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
    for kind, hard, soft, seconds in groups_of(4, "", args):
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
            words = split_again(args[0]) if len(args) == 1 else args
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
            passwords.add(sha256(rule[1:]) if rule[0] == ">" else rule[1:].lower())
            nopass = False
        elif rule[:1] in ("<", "!"):
            passwords.discard(sha256(rule[1:]) if rule[0] == "<" else rule[1:].lower())
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


def is_plain_default_user(user: str, requirepass: str) -> bool:
    """Is this `user default` what Redis derives from requirepass alone?"""
    secret = f"#{sha256(requirepass)}" if requirepass else "nopass"
    # Channels: all of them since 6.2, unknown to 6.0.
    return user in (
        f"on {secret} ~* &* +@all",
        f"on {secret} ~* resetchannels +@all",
    )
