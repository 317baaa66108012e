"""How much CPU verifying an upload may take, and which ones are tried again: kept between runs of
`accept` in one small file.

A host's own history says what its uploads cost. One that costs more is never rejected for it: it is
deferred, and tried again alone with a larger budget.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..base.errors import ToolError
from ..base.fields import BACKUP_ID, NAME, Fields, parse_json
from ..base.files import write_durably

PATIENCE_NAME = ".patience.json"
# Seconds of CPU. The first upload of a host may be of many GiB, on a slow machine.
_FIRST = 600.0
_LEAST = 30.0
_TIMES = 5.0
# Each further try of a deferred upload has so many times the budget, up to a day.
_AGAIN = 4.0
_MOST = 86400.0


@dataclass(frozen=True)
class Deferred:
    """An upload that is to be tried again: since when (unix seconds), and with which budget
    (seconds of CPU).
    """

    host: str
    id: str
    since: int
    budget: float


class Patience:
    """The state of one repository. What cannot be read counts as not there: budgets are generous
    without it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / PATIENCE_NAME
        self._cost: dict[str, float] = {}
        self._deferred: dict[tuple[str, str], Deferred] = {}
        with suppress(OSError, ToolError):
            self._read(self._path.read_bytes())

    def _read(self, raw: bytes) -> None:
        fields = Fields(parse_json(raw, PATIENCE_NAME), PATIENCE_NAME)
        costs = fields.fields("cost")
        items = [
            Deferred(
                host=item.text("host", NAME),
                id=item.text("id", BACKUP_ID),
                since=item.integer("since"),
                budget=min(max(item.number("budget"), _LEAST), _MOST),
            )
            for item in fields.each("deferred")
        ]
        self._cost = {host: costs.number(host) for host in costs.everything()}
        self._deferred = {(item.host, item.id): item for item in items}

    def deferred(self) -> list[Deferred]:
        """What waits for another try, the longest waiting first."""
        return sorted(self._deferred.values(), key=lambda item: (item.since, item.host, item.id))

    def is_deferred(self, host: str, upload_id: str) -> bool:
        """Whether an upload is to be tried alone."""
        return (host, upload_id) in self._deferred

    def budget(self, host: str, upload_id: str) -> float:
        """Seconds of CPU for the next try of an upload."""
        item = self._deferred.get((host, upload_id))
        return budget(self._cost.get(host)) if item is None else item.budget

    def accepted(self, host: str, upload_id: str, cpu: float) -> None:
        """A good upload took so many seconds of CPU."""
        before = self._cost.get(host, 0.0)
        if self._deferred.pop((host, upload_id), None) is not None or cpu > before:
            self._cost[host] = max(before, cpu)
            self._write()

    def defer(self, host: str, upload_id: str, now: float) -> None:
        """An upload took more than its budget."""
        item = self._deferred.get((host, upload_id))
        since = int(now) if item is None else item.since
        more = min(_AGAIN * self.budget(host, upload_id), _MOST)
        self._deferred[host, upload_id] = Deferred(host, upload_id, since, more)
        self._write()

    def forget(self, host: str, upload_id: str) -> None:
        """An upload is not there any more, or was rejected for what it is."""
        if self._deferred.pop((host, upload_id), None) is not None:
            self._write()

    def _write(self) -> None:
        data = {
            "cost": self._cost,
            "deferred": [asdict(item) for item in self.deferred()],
        }
        write_durably(self._path, json.dumps(data, indent=2).encode("utf-8"))


def budget(cost: float | None) -> float:
    """Seconds of CPU for an upload of a host whose good ones took `cost` at most, None for a host
    without any. Pure.
    """
    return _FIRST if cost is None else min(max(_LEAST, _TIMES * cost), _MOST)
