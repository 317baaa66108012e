"""The text of Redis's INFO as data. Pure, no I/O.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import re
from typing import Any

# Values that look like numbers at times, but are names.
_TEXT = re.compile(r"run_id|.*_replid2?|.*_git_(?:sha1|dirty)|.*_build_id|.*_version|.*_host|.*_ip")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"-?[0-9]+\.[0-9]+", re.ASCII)

# Fields whose value is itself a list of `name=value`.
_NESTED = re.compile(
    r"slave\d+|db\d+|master\d+|module|io_thread_\d+"
    r"|(?:cmdstat|errorstat|latency_percentiles_usec)_.*"
)


class InfoError(ValueError):
    """The text is not what INFO answers."""


def parse_info(text: str) -> dict[str, Any]:
    """INFO as a dictionary per section, the section's name in lower case.

    - integers and floats are numbers (`used_memory_human`, ids and versions stay text);
    - `slave0:ip=...,port=...` and so on become `replicas` of their section, a list in that order;
    - `db0:keys=...` and so on become `{"0": {"keys": ...}}` of the section `keyspace`;
    - `module:name=...` become `modules`, a list;
    - `cmdstat_*`, `errorstat_*` and their like become dictionaries under their own names.

    Raises InfoError for an empty text, an error reply, and anything else that is not INFO.
    """
    if not isinstance(text, str):
        raise InfoError(f"INFO has to be text, not {type(text).__name__}")
    sections: dict[str, Any] = {}
    section: dict[str, Any] | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip("\r ")
        if not line:
            continue
        if line.startswith("#"):
            section = sections.setdefault(line.lstrip("# ").lower(), {})
            continue
        name, colon, value = _field(line)
        if not colon or section is None:
            raise InfoError(
                f"line {number} is not from INFO: {line[:60]!r};"
                " give the unchanged answer of the server, with its section headers"
            )
        _add(section, name, value)
    if not sections:
        raise InfoError("the text is empty, so this is no answer of INFO")
    return sections


def _field(line: str) -> tuple[str, str, str]:
    if line.startswith(("errorstat_", "cmdstat_", "latency_percentiles_usec_")):
        # The name of an error is chosen by scripts and modules, and may have a colon in it.
        return line.rpartition(":")
    return line.partition(":")


def _add(section: dict[str, Any], name: str, value: str) -> None:
    if not _NESTED.fullmatch(name) or "=" not in value:
        section[name] = _convert(name, value)
        return
    parts = _parts(value)
    if re.fullmatch(r"slave\d+", name):
        section.setdefault("replicas", []).append(parts)
    elif name == "module":
        section.setdefault("modules", []).append(parts)
    elif re.fullmatch(r"db\d+", name):
        section[name[2:]] = parts
    else:
        section[name] = parts


def _parts(value: str) -> dict[str, Any]:
    pairs = (part.partition("=") for part in value.split(","))
    return {name: _convert(name, text) for name, _equals, text in pairs}


def _convert(name: str, value: str) -> int | float | str:
    if _TEXT.fullmatch(name) or name in ("ip", "name"):
        return value
    if _INTEGER.fullmatch(value):
        return int(value)
    if _FLOAT.fullmatch(value):
        return float(value)
    return value
