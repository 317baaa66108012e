"""The marker of an operation that must not be disturbed: a switchover or a restore at work.

A file per instance, `/var/lib/proven-redis/<unit>.marker.json`, for root alone. It is replaced
whole and survives a reboot. Whoever puts it there takes it away again; every other run that finds
it leaves the instance as it is. A restore leaves a lease on every host of its set too,
`<set>.lease.json`, which `redis-backup create` reads as the account of the server.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.whole_file import read_bytes, write_bytes

DIRECTORY = "/var/lib/proven-redis"
SCHEMA = 1
# Of the documents that `redis-backup` writes.
LEASE_SCHEMA = 2
KINDS = ("switchover", "restore")


class MarkerError(Exception):
    """The file is there and cannot be understood; the text says why."""


class Marker(NamedTuple):
    """An operation at work on an instance.

    Attributes:
        kind: one of KINDS.
        run: id of the run that began it.
        phase: what it was about to do.
        began: when it began, UTC.
        deadline: when it should have ended, UTC.
        settings: settings of the server that it has changed for a while, with their values before.
    """

    kind: str
    run: str
    phase: str
    began: str
    deadline: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return (
            f"a {self.kind} is at work since {self.began} (run {self.run}, phase {self.phase}, to"
            f" end by {self.deadline})"
        )


def path_of(unit: str) -> str:
    """Path of the marker of an instance."""
    return os.path.join(DIRECTORY, f"{unit}.marker.json")


def parse(text: str) -> Marker:
    """A marker from its text. Unknown keys are ignored.

    Raises:
        MarkerError: it is none, or of a newer schema.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        schema = found["schema"]
        if schema != SCHEMA:
            raise MarkerError(f"its schema is {schema}, this version knows {SCHEMA}")
        words = [found[name] for name in Marker._fields[:-1]]
        settings = found["settings"]
    except (ValueError, TypeError, KeyError) as error:
        raise MarkerError(f"it is no marker ({error})") from None
    if not all(isinstance(word, str) for word in words) or not isinstance(settings, dict):
        raise MarkerError("it is no marker (a value is of another type)")
    kind, run, phase, began, deadline = words
    kept = {str(name): str(value) for name, value in settings.items()}
    return Marker(kind, run, phase, began, deadline, kept)


def read(unit: str) -> Marker | None:
    """The marker of an instance, None where there is none.

    Raises:
        MarkerError: there is one that cannot be understood.
        OSError: it cannot be read.
    """
    content = read_bytes(path_of(unit))
    if content is None:
        return None
    try:
        return parse(content.decode())
    except UnicodeDecodeError:
        raise MarkerError("it is no text") from None


def write(unit: str, marker: Marker) -> bool:
    """Put the marker there, or another in its place; tell whether that changed anything.

    Raises:
        OSError: it cannot be written.
    """
    text = json.dumps({"schema": SCHEMA, **marker._asdict()}, indent=2, sort_keys=True) + "\n"
    if read_bytes(path_of(unit)) == text.encode():
        return False
    # The markers are for root alone, the leases beside them are not.
    os.makedirs(DIRECTORY, 0o755, exist_ok=True)
    write_bytes(path_of(unit), text.encode(), 0o600, 0, 0)
    return True


def remove(unit: str) -> bool:
    """Take the marker away; tell whether there was one."""
    try:
        os.unlink(path_of(unit))
    except FileNotFoundError:
        return False
    return True


def lease(set_name: str) -> str:
    """Whose lease of a set there is, in words; empty for none. One that has run out is there until
    the restore is finished or aborted.

    Raises:
        MarkerError: there is one that cannot be understood.
        OSError: it cannot be read.
    """
    content = read_bytes(os.path.join(DIRECTORY, f"{set_name}.lease.json"))
    if content is None:
        return ""
    try:
        found = json.loads(content.decode())
        if found["schema"] != LEASE_SCHEMA:
            raise MarkerError(f"its schema is {found['schema']}, this version knows {LEASE_SCHEMA}")
        host, plan, until = (str(found[name]) for name in ("host", "plan", "until"))
    except (ValueError, TypeError, KeyError) as error:
        raise MarkerError(f"it is no lease ({error})") from None
    return f"a restore onto {host} (plan {plan}, until {until}) is at work"
