"""Two RDBs compared as a drill compares them, for tests."""

from __future__ import annotations

import io

from redis_backup.digest.comparison import Difference, Feed, Raw, Stage, compare
from redis_backup.rdb import walker


class Pieces(io.BytesIO):
    """A stream that gives so many bytes at a time, as a connection may."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        """The next piece, whatever was asked for."""
        return super().read(self._size if size else 0)


def feed(data: bytes, *, deep: bool = False, piece: int = 1 << 20) -> Feed:
    """What feeds a stage an RDB in memory; `deep` with a walk that looks into values, `piece`
    bytes at a time.
    """

    def walked(stage: Stage) -> None:
        walker.inspect_stream(
            Pieces(data, piece),
            digester=stage if deep else None,
            skimmer=None if deep else stage,
            checksum=False,
        )

    return walked


def difference_of(backup: Feed, saved: Feed) -> Difference | None:
    """What differs between what two feeds give, None when nothing does."""
    raw = Raw()
    backup(raw)
    return compare(raw, backup, saved)


def difference(first: bytes, second: bytes) -> Difference | None:
    """What differs between two RDBs, None when nothing does."""
    return difference_of(feed(first), feed(second))


def same_records(backup: Feed, saved: Feed) -> bool:
    """Whether two feeds give the same records, byte for byte."""
    raw = Raw()
    backup(raw)
    raw.turn()
    saved(raw)
    return not raw.differs
