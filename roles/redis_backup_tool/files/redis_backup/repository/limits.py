"""How much of one host is looked at and accepted within a day, and of which day its ids may be."""

from __future__ import annotations

from collections.abc import Callable

from ..base.errors import ToolError
from ..base.fields import is_backup_id
from ..base.files import total_bytes
from ..base.output import human_bytes
from ..base.times import parse_timestamp, timestamp
from ..config.model import ServerConfig
from ..config.reader import DAY
from ..formats import manifest as manifest_module
from . import catalogue as catalogue_module
from .inbox import RejectedError


class Limits:
    """Of each host, by our clock (unix time in seconds)."""

    def __init__(self, config: ServerConfig, clock: Callable[[], float]) -> None:
        self.config = config
        self.clock = clock

    def recent(self, host: str, set_name: str) -> int:
        """How many uploads of a host were accepted or rejected within a day, by our clock."""
        known = catalogue_module.read(self.config.store / set_name).accepted()
        count = sum(
            entry.host == host and self.clock() - parse_timestamp(entry.at) < DAY
            for entry in known.values()
        )
        for path in (self.config.receipts / set_name).glob(f"*-{host}.json"):
            upload_id = path.name[: -len(".json")]
            if (
                upload_id not in known
                and manifest_module.id_host(upload_id) == host
                and self.clock() - path.stat().st_mtime < DAY
            ):
                count += 1
        return count

    def check_share(self, host: str, set_name: str, size: int, digest: str) -> None:
        """That a host's backups of one day leave room for those of others. Its first of a day may
        be of any size that there is room for. Raises RejectedError.
        """
        taken = 0
        for entry in catalogue_module.read(self.config.store / set_name).present().values():
            age = self.clock() - parse_timestamp(entry.at)
            if entry.host == host and age < DAY:
                taken += entry.stored_size or 0
        total = total_bytes(self.config.store)
        if taken and (taken + size) * 100 > total * self.config.share_per_day:
            raise RejectedError(
                f"{host} had {human_bytes(taken)} accepted within a day; with"
                f" {human_bytes(size)} more it would be over {self.config.share_per_day} % of the"
                f" store's {human_bytes(total)}",
                digest,
            )


def is_id_of(name: str, host: str) -> bool:
    """Whether the name of an upload is an id of this host."""
    return is_backup_id(name) and manifest_module.id_host(name) == host


def check_day(upload_id: str, arrived: float) -> None:
    """An id names a moment of the day before or after its arrival (unix seconds by our clock):
    nothing can be slipped into the past or the future. Raises RejectedError.
    """
    try:
        moment = manifest_module.id_time(upload_id)
    except ToolError as problem:
        raise RejectedError(str(problem)) from None
    if abs(moment - arrived) > DAY:
        raise RejectedError(
            "the time of its id is more than a day off the time of its arrival by the backup"
            f" server's clock ({timestamp(arrived)}): set the clocks right"
        )
