"""The user's own questions to a restored data set: parsing and judging, without any server.

An assertion is ``{"db": 0, "command": ["HLEN", "users"], "expect": {"at_least": 1000}}``.
``expect`` has exactly one of

* ``equals``: the reply is that value. Numbers and text compare as text (``5`` equals the reply
  ``"5"``), lists element by element, ``null`` is Redis's nil.
* ``at_least``: the reply is a number (or text that reads as one) and not smaller.
* ``matches``: a Python regular expression is found in the reply's text (anchors: ``^``, ``$``).

Which commands may run is decided by what the server says of them (COMMAND INFO): `is_read_only`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Union

from ..base.errors import UsageError

Reply = Union[None, int, str, "list[Any]"]

KINDS = ("equals", "at_least", "matches")

# Commands that only look, but do not have the flag `readonly`.
HARMLESS = frozenset({"info", "ping", "time", "lastsave", "function|list", "function|stats"})

_SHOWN = 200
# Where COMMAND INFO has the flags of a command: after its name and arity.
_FLAGS = 2


@dataclass(frozen=True)
class Assertion:
    """One question: `command` runs in database `db`; its reply must satisfy `kind` with `value`."""

    db: int
    command: tuple[str, ...]
    kind: str
    value: Any

    def __str__(self) -> str:
        return f"db{self.db} {' '.join(self.command)} {self.kind} {self.value!r}"

    def result(self, reply: Reply, problem: str | None) -> dict[str, Any]:
        """What a report says of it; `problem` is None when it holds."""
        return {
            "db": self.db,
            "command": list(self.command),
            "expect": {self.kind: self.value},
            "actual": shown(reply),
            "passed": problem is None,
            "reason": problem,
        }


def parse(raw: object, where: str) -> tuple[Assertion, ...]:
    """Assertions from configuration; raises UsageError naming `where` and the place in the list."""
    if not isinstance(raw, list):
        raise UsageError(f"{where}: assertions must be a list, not {type(raw).__name__}")
    return tuple(_parse_one(item, f"{where}: assertion {at}") for at, item in enumerate(raw, 1))


def _parse_one(raw: object, where: str) -> Assertion:
    if not isinstance(raw, Mapping):
        raise UsageError(f"{where} must be a mapping with command and expect, not {raw!r}")
    unknown = sorted(set(raw) - {"db", "command", "expect"})
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}; it may have db, command and expect")
    db = raw.get("db", 0)
    if not isinstance(db, int) or isinstance(db, bool) or db < 0:
        raise UsageError(f"{where}: db must be a number from 0, not {db!r}")
    command = raw.get("command")
    if (
        not isinstance(command, list)
        or not command
        or not all(isinstance(word, (str, int)) and not isinstance(word, bool) for word in command)
    ):
        raise UsageError(
            f"{where}: command must be a list of words such as [HLEN, users], not {command!r}"
        )
    expect = raw.get("expect")
    if not isinstance(expect, Mapping) or len(expect) != 1 or next(iter(expect)) not in KINDS:
        raise UsageError(
            f"{where}: expect must have exactly one of {', '.join(KINDS)}, not {expect!r}"
        )
    kind, value = next(iter(expect.items()))
    _check_value(kind, value, where)
    return Assertion(
        db=db, command=tuple(str(word) for word in command), kind=str(kind), value=value
    )


def _check_value(kind: str, value: object, where: str) -> None:
    if isinstance(value, bool):
        raise UsageError(
            f"{where}: {kind} is {value!r}, but Redis replies with numbers, text and lists"
        )
    if kind == "at_least" and _number(value) is None:
        raise UsageError(f"{where}: at_least must be a number, not {value!r}")
    if kind == "matches":
        if not isinstance(value, str):
            raise UsageError(f"{where}: matches must be a regular expression, not {value!r}")
        try:
            re.compile(value)
        except re.error as error:
            raise UsageError(f"{where}: matches is no regular expression: {error}") from None


def evaluate(assertion: Assertion, reply: Reply) -> str | None:
    """None when `reply` is what was expected, else a sentence that says what was seen."""
    seen = shown(reply)
    if assertion.kind == "equals":
        return (
            None
            if _canonical(reply) == _canonical(assertion.value)
            else f"{assertion}: got {seen!r}"
        )
    if assertion.kind == "at_least":
        number, least = _number(reply), _number(assertion.value)
        if number is None or least is None:
            return f"{assertion}: got {seen!r}, which is not a number"
        return None if number >= least else f"{assertion}: got {seen!r}"
    if not isinstance(reply, (str, int)):
        return f"{assertion}: got {seen!r}, which is not text"
    return None if re.search(assertion.value, str(reply)) else f"{assertion}: got {seen!r}"


def from_wire(reply: object) -> Reply:
    """A raw RESP reply as text, numbers, lists and None; bytes that are no UTF-8 become escapes."""
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "backslashreplace")
    if isinstance(reply, bool):
        return int(reply)
    if reply is None or isinstance(reply, (int, str)):
        return reply
    if isinstance(reply, (list, tuple, set)):
        return [from_wire(item) for item in reply]
    if isinstance(reply, dict):
        return [from_wire(part) for pair in reply.items() for part in pair]
    return str(reply)


def shown(reply: Reply) -> Reply:
    """The reply as a report shows it: long ones are cut."""
    if isinstance(reply, str) and len(reply) > _SHOWN:
        return reply[:_SHOWN] + "…"
    if isinstance(reply, list):
        text = repr(reply)
        return reply if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return reply


def is_read_only(names: Sequence[str], replies: Sequence[object]) -> bool:
    """Whether the server calls a command one that only reads.

    `names` are lower-case names, of the command and of `command|subcommand`; `replies` are the
    server's to COMMAND INFO with each of them: a list of one description, nil where it knows none.
    """
    for name, reply in zip(names, replies):
        if name in HARMLESS:
            return True
        for info in reply if isinstance(reply, list) else []:
            if isinstance(info, (list, tuple)) and len(info) > _FLAGS:
                flags = {from_wire(flag) for flag in info[_FLAGS] if isinstance(flag, (bytes, str))}
                if "readonly" in flags and "write" not in flags:
                    return True
    return False


def _canonical(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return None if value is None else str(value)


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
