"""The text of a redis.conf: its bytes, lines, words and quotes. Pure functions, no I/O.

The format is Redis's own: lines split as by `sdssplitargs()` (src/sds.c). Text is `str`; bytes that
are no UTF-8 travel as surrogate escapes (`decode`, `encode`): a password may hold any byte.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# What CONFIG REWRITE does not quote: of Redis 6.0 the first, of Valkey 8.1 all.
REWRITTEN_RAW = frozenset(["requirepass", "masterauth", "masteruser", "primaryauth", "primaryuser"])


class ConfError(ValueError):
    """A text or value that cannot be a redis.conf. No value is shown: it may be secret."""


class Directive(NamedTuple):
    """One line: the name in lower case as it is spelled there, its arguments unquoted."""

    name: str
    args: tuple[str, ...]
    line: int


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
            if name.lower() in REWRITTEN_RAW:
                # Redis would not start with it either, but compare() sees that, so it is mended.
                directives.append(Directive(name.lower(), (value,), number))
                continue
            raise ConfError(
                f"line {number} of the configuration is not valid: {error}; Redis would not start"
            ) from None
        if words:
            directives.append(Directive(words[0].lower(), tuple(words[1:]), number))
    return directives


def mangled(text: str) -> set[str]:
    """Names of the secrets that CONFIG REWRITE wrote so that the server would not start."""
    found = set()
    for raw in text.split("\n"):
        name = raw.strip().partition(" ")[0].lower()
        if name in REWRITTEN_RAW:
            try:
                fine = len(split_args(raw.strip(" \t\r\n"))) == 2
            except ConfError:
                fine = False
            if not fine:
                found.add(name)
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


def groups_of(size: int, name: str, args: Sequence[str]) -> list[list[str]]:
    if len(args) % size:
        raise ConfError(f"{name} takes groups of {size} values, but {len(args)} are given")
    return [list(args[at : at + size]) for at in range(0, len(args), size)]


def split_again(value: str) -> list[str]:
    # Redis 7 splits a lone argument of these once more, and CONFIG GET joins what it was given.
    try:
        return split_args(value) or [""]
    except ConfError:
        return [value]
