"""What every document that hosts exchange has in common: manifest, receipt, line of the catalogue,
report, lease.

`schema` is the generation of all formats. A reader refuses another generation and, within its own,
ignores the keys that it does not know; a writer that adds one which must not be ignored names it in
`requires`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..base.errors import ToolError
from ..base.fields import Fields, parse_json

SCHEMA = 2
#: The keys of later tools that this one heeds although `requires` names them.
_HEEDED: frozenset[str] = frozenset()


def opened(raw: bytes, where: str, error: type[ToolError] = ToolError) -> Fields:
    """The fields of a document. Raises `error`, which names `where`, when the bytes are not JSON,
    are of another schema, or require what this tool does not know.
    """
    return checked(parse_json(raw, where, error), where, error)


def checked(data: object, where: str, error: type[ToolError] = ToolError) -> Fields:
    """As `opened`, of JSON data."""
    fields = Fields(data, where, error)
    schema = fields.integer("schema")
    if schema != SCHEMA:
        raise fields.fail(
            f"schema {schema} is not known, only {SCHEMA}; a tool of another release wrote it:"
            " deploy all hosts with one release"
        )
    required = fields.array("requires") if fields.has("requires") else []
    if not all(isinstance(item, str) for item in required):
        raise fields.fail('"requires" must be a list of keys')
    unknown = sorted(set(required) - _HEEDED)
    if unknown:
        raise fields.fail(
            f"it requires what this tool does not know ({', '.join(unknown)[:200]}); a newer tool"
            " wrote it: update this host"
        )
    return fields


def encode(data: Mapping[str, Any]) -> bytes:
    """The bytes of a document: keys without a value are left out."""
    kept = {key: value for key, value in data.items() if value is not None}
    return (json.dumps({"schema": SCHEMA, **kept}, indent=2) + "\n").encode("utf-8")
