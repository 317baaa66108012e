"""Users of a Redis server as data: render, read, compare and plan. Pure functions, no I/O.

The format is that of an aclfile, which is that of ACL LIST: one `user NAME rule rule ...` per line,
words separated by blanks, without quotes (src/acl.c of Redis 6.0 to 8.0). Passwords are in it as
`#` and their SHA-256 only, so any character may be in one.

Redis 6.0 and 7.0 do not keep the rules that they were given: ACL LIST tells what they amount to, in
another spelling. So lines are compared with those of a server that was started on the wanted ones.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# What each kind of user needs, and nothing else.
ADMINISTRATOR = "administrator"
REPLICATION = "replication"
BACKUP = "backup"
APPLICATION = "application"
PRESETS: Mapping[str, str] = {
    ADMINISTRATOR: "~* &* +@all",
    # Everything with keys, channels and scripts. Client libraries ask for INFO and name themselves.
    APPLICATION: "~* &* +@all -@admin -@dangerous +info +client|id +client|getname +client|setname",
    # What `redis-backup create` asks: whose turn it is, where the RDB is, the time, a snapshot.
    BACKUP: "+ping +info +time +bgsave +config|get",
    REPLICATION: "+psync +replconf +ping",
}
DEFAULT = "default"
SHORTEST = 12  # characters of a password
CHANNELS_SINCE = (6, 2)

CREATE = "create"
CHANGE = "change"
DELETE = "delete"


class AclError(ValueError):
    """Users that cannot be, or a change that must not happen. No secret is shown."""


class User(NamedTuple):
    """One user. `rules` are the words about keys, channels and commands, in their order."""

    name: str
    enabled: bool
    open: bool  # needs no password
    passwords: frozenset[str]  # SHA-256, in hexadecimal digits
    rules: tuple[str, ...]


class Step(NamedTuple):
    """One change of a running server, and what it is in words."""

    kind: str  # CREATE, CHANGE or DELETE
    name: str
    says: str


def sha256(password: str) -> str:
    """A password as an aclfile has it; bytes that are no UTF-8 are surrogate escapes."""
    return hashlib.sha256(password.encode("utf-8", "surrogateescape")).hexdigest()


# --- render ----------------------------------------------------------------------------------


def render(
    users: Sequence[Mapping[str, Any]],
    admin_user: str,
    passwords: Sequence[str],
) -> str:
    """The lines of an aclfile, with a newline behind each.

    `users` have `name`, `password`, `previous_password` (both are valid then), and `preset` or
    `rules` (a list of words; it wins). `admin_user` may do everything with any of `passwords`; with
    another name than `default`, the user `default` is off. There is always a line for `default`: an
    aclfile without one lets everybody in.

    Raises AclError; the text shows no secret.
    """
    _check_name(admin_user)
    given = [word for word in passwords if word]
    lines = [_line(admin_user, given, PRESETS[ADMINISTRATOR].split())]
    if admin_user != DEFAULT:
        # With its rules: connections that were made as this user stay useful until they end.
        lines.append(f"user {DEFAULT} off {PRESETS[ADMINISTRATOR]}")
    for user in users:
        name = _check_name(user.get("name"))
        if name in (admin_user, DEFAULT):
            raise AclError(
                f"the user {name} may not be in redis_acl_users: redis_admin_user and"
                " redis_requirepass say what it is"
            )
        words = [user.get("password"), user.get("previous_password")]
        lines.append(_line(name, _checked_passwords(name, words), _rules(name, user)))
    names = [line.split()[1] for line in lines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AclError(f"redis_acl_users names {', '.join(twice)} more than once")
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, passwords: Iterable[str], rules: Sequence[str]) -> str:
    hashes = [f"#{sha256(word)}" for word in dict.fromkeys(passwords)]
    # What is not said would depend on acl-pubsub-default and on the version.
    channels = [] if any(_is_channel(word) for word in rules) else ["resetchannels"]
    return " ".join(["user", name, "on", *(hashes or ["nopass"]), *channels, *rules])


def _check_name(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[^\s\0]+", name):
        raise AclError(f"{name!r} is no name of a user: one word is")
    return name


def _checked_passwords(name: str, words: Sequence[object]) -> list[str]:
    texts = [str(word) for word in words if word not in (None, "")]
    if not words[0]:
        raise AclError(f"the user {name} of redis_acl_users has no password")
    for text in texts:
        if "\n" in text or "\0" in text:
            raise AclError(f"a password of the user {name} has a newline or NUL character in it")
        if len(text) < SHORTEST:
            raise AclError(f"a password of the user {name} is shorter than {SHORTEST} characters")
    return texts


def _rules(name: str, user: Mapping[str, Any]) -> list[str]:
    preset, own = user.get("preset"), user.get("rules")
    if own is None:
        if not isinstance(preset, str) or preset not in PRESETS:
            raise AclError(
                f"the user {name} of redis_acl_users needs rules, or a preset:"
                f" {', '.join(sorted(PRESETS))}"
            )
        return PRESETS[preset].split()
    if isinstance(own, str) or not all(isinstance(rule, str) for rule in own):
        raise AclError(f"the rules of the user {name} are a list of words, such as [~app:*, +@all]")
    words = [word for rule in own for word in rule.split()]
    if " ".join(words).count("(") != " ".join(words).count(")"):
        raise AclError(f"the rules of the user {name} have a bracket without its other one")
    for word in words:
        # Passwords have variables of their own; the rest would undo what is said elsewhere.
        if word[0] in "><#!" or word.lower() in ("on", "off", "nopass", "resetpass", "reset"):
            raise AclError(
                f"the rules of the user {name} are about keys, channels and commands; passwords and"
                " `on`, `off`, `reset`, `nopass` and `resetpass` are not among them"
            )
    return words


# --- versions --------------------------------------------------------------------------------


def _is_channel(word: str) -> bool:
    return word[0] == "&" or word.lower() in ("allchannels", "resetchannels")


def version_in(output: str) -> str:
    """Major and minor version in what `redis-server --version` says."""
    found = re.search(r"\bv=(\d+\.\d+)", output)
    if not found:
        raise AclError(f"`--version` of the server tells no version: {output!r}")
    return found[1]


def for_version(text: str, version: str) -> str:
    """The lines as this version takes them: Redis 6.0 knows no rules about channels."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise AclError(f"{version!r} is not a version of Redis, such as 7.0.15")
    if (int(found[1]), int(found[2])) >= CHANNELS_SINCE:
        return text
    return "".join(
        " ".join(word for word in line.split() if not _is_channel(word)) + "\n"
        for line in text.splitlines()
    )


# --- meaning ---------------------------------------------------------------------------------


def read(lines: Iterable[str]) -> dict[str, User]:
    """The users of an aclfile or of ACL LIST, by name. Raises AclError for any other line."""
    users = {}
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] != "user" or len(words) < 2:
            raise AclError("a line of it does not begin with `user NAME`")
        users[words[1]] = _user(words[1], words[2:])
    return users


def _user(name: str, words: Sequence[str]) -> User:
    enabled, needs_none = False, False
    passwords: set[str] = set()
    rules = []
    for word in words:
        low = word.lower()
        if low in ("on", "off"):
            enabled = low == "on"
        elif low == "nopass":
            needs_none = True
        elif word[0] == "#":
            passwords.add(word[1:].lower())
        elif low != "sanitize-payload":  # the default, which only some versions say
            rules.append(word)
    return User(name, enabled, needs_none, frozenset(passwords), tuple(_in_order(rules)))


def _in_order(rules: Sequence[str]) -> list[str]:
    """The rules with single commands sorted between categories, as far as that means the same.

    Up to 7.0 a server tells them in the order of a hash table, another one after every start. What
    is said of one command and its subcommands keeps its order where a `-` follows a `+`.
    """
    ordered: list[str] = []
    run: dict[str, list[list[str]]] = {}  # by command: words of one sign, then of the other, ...

    def end_run() -> None:
        for command in sorted(run):
            for words in run[command]:
                ordered.extend(sorted(words))
        run.clear()

    for word in rules:
        if word[0] not in "+-" or word[1:2] == "@":
            end_run()
            ordered.append(word)
            continue
        groups = run.setdefault(word[1:].lower().partition("|")[0], [])
        if groups and groups[-1][0][0] == word[0]:
            groups[-1].append(word)
        else:
            groups.append([word])
    end_run()
    return ordered


def setuser(text: str, name: str) -> list[str]:
    """The words of ACL SETUSER that make a user what its line in the text says, at one stroke."""
    for line in text.splitlines():
        words = line.split()
        if words[:2] == ["user", name]:
            return [name, "reset", *words[2:]]
    raise AclError(f"no line for the user {name}")


# --- plan ------------------------------------------------------------------------------------


def plan(desired: Mapping[str, User], current: Mapping[str, User]) -> list[Step]:
    """How the users have to change: new ones first, then changes, then what goes away.

    Raises AclError where a user would lose every password that works now.
    """
    new = [name for name in desired if name not in current]
    other = [name for name, user in desired.items() if name in current and current[name] != user]
    gone = [name for name in current if name not in desired]
    locked_out = [name for name in other if _loses_all(current[name], desired[name])]
    if locked_out:
        raise AclError(
            f"the password of {' and '.join(locked_out)} is another one in the inventory: whoever"
            " connects with the one that works now would be refused from one moment to the next"
        )
    return [
        *(Step(CREATE, name, "new") for name in new),
        *(Step(CHANGE, name, _difference(current[name], desired[name])) for name in other),
        *(Step(DELETE, name, "not in the inventory") for name in gone),
    ]


def _loses_all(current: User, desired: User) -> bool:
    return bool(
        current.enabled
        and desired.enabled
        and current.passwords
        and desired.passwords
        and not current.passwords & desired.passwords
    )


def _difference(current: User, desired: User) -> str:
    """What changes, in words that show no secret."""
    said = []
    if current.enabled != desired.enabled:
        said.append("on" if desired.enabled else "off")
    if current.open != desired.open:
        said.append("needs no password" if desired.open else "needs a password")
    added = len(desired.passwords - current.passwords)
    removed = len(current.passwords - desired.passwords)
    if added:
        said.append(f"{added} more password{'s' if added > 1 else ''}")
    if removed:
        said.append(f"{removed} password{'s' if removed > 1 else ''} less")
    if current.rules != desired.rules:
        said.append(f"{' '.join(current.rules)} -> {' '.join(desired.rules)}")
    return ", ".join(said)
