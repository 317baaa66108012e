"""The report of a drill: the words in it, and reading one that another host sent."""

from __future__ import annotations

import re
from typing import Any

from ..base.errors import ToolError
from ..base.fields import is_backup_id, is_name, parse_json

REPORT_NAME = "report.json"
MAX_REPORT_BYTES = 4 * 1024 * 1024
#: What a drill proves, in rising order.
LEVELS = ("none", "bytes", "form", "counts", "load", "values")
PASSED = "passed"
FAILED = "failed"

_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")


def decode(raw: bytes, where: str, error: type[ToolError] = ToolError) -> dict[str, Any]:
    """The report of a drill, as far as the catalogue and `list` rely on it. Raises `error`, which
    names `where`.
    """
    report = parse_json(raw, where, error)
    if not isinstance(report, dict):
        raise error(f"{where}: a JSON object is expected")
    set_name, backup_id = report.get("set"), report.get("backup_id")
    if not isinstance(set_name, str) or not is_name(set_name):
        raise error(f'{where}: "set" is not the name of a set')
    if backup_id is not None and not (isinstance(backup_id, str) and is_backup_id(backup_id)):
        raise error(f'{where}: "backup_id" is not an id')
    for key in ("level", "verdict"):
        value = report.get(key)
        if not isinstance(value, str) or _WORD.fullmatch(value) is None:
            raise error(f'{where}: "{key}" is not a word')
    return report
