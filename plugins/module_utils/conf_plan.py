"""How two configurations differ, and how a running server is brought to one. No I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import (
    EMPTY_IS_ABSENT,
    IMMUTABLE,
    IMMUTABLE_BEFORE,
    KEYED,
    PROTECTED_NAMES,
    SECRET_NAMES,
    TRIAL_OVERRIDES,
    WITHOUT_EFFECT,
    fold,
    release_of,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import (
    is_plain_default_user,
    normalise,
    settings,
)
from ansible_collections.proven.redis.plugins.module_utils.conf_text import mangled, parse

LIVE = "live"
RESTART = "restart"
PROTECTED = "protected"

MASK = "********"

_DEFAULT_BIND = "* -::*"
_DEFAULT_PERCENTILES = "50 99 99.9"


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


def compare(
    desired_text: str,
    current_text: str,
    effective: Mapping[str, str] | None = None,
    overridden: Collection[str] = TRIAL_OVERRIDES,
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
    unreadable = {fold(name) for name in mangled(current_text)}
    for name in [*desired, *(name for name in current if name not in desired)]:
        want, have = desired.get(name), current.get(name)
        if name in unreadable and want is not None:
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
        return is_plain_default_user(value, desired.get("requirepass", ""))
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
    release = release_of(version)
    old = (names for before, names in IMMUTABLE_BEFORE.items() if release < release_of(before))
    return RESTART if any(today in names for names in old) else LIVE


def settle(
    desired_text: str,
    effective: Mapping[str, str],
    overridden: Collection[str] = TRIAL_OVERRIDES,
) -> dict[str, str]:
    """What a server started on the desired file will answer to CONFIG GET: the answers of the trial
    boot, and the file's own values for what that was not started with. Overridden names that the
    file does not set are left out (nothing is known about them)."""
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
