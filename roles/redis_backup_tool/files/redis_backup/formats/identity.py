"""The identity of a repository: `repository.json` at the top of the store, and the same id in the
backup server's configuration. So a store whose file system is not mounted is not taken for a new
one.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from ..base.times import timestamp
from . import document

REPOSITORY_NAME = "repository.json"
REPOSITORY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Repository:
    """`id` is a random UUID, `created` ISO 8601 UTC by the backup server's clock."""

    id: str
    created: str


def new(now: float) -> Repository:
    """An identity that no repository has. `now` is unix seconds."""
    return Repository(str(uuid.uuid4()), timestamp(now))


def encode(repository: Repository) -> bytes:
    """The bytes of the file."""
    return document.encode(vars(repository))


def decode(raw: bytes, where: str) -> Repository:
    """Parse the file. Raises ToolError, which names `where`."""
    fields = document.opened(raw, where)
    return Repository(fields.text("id", REPOSITORY_ID), fields.text("created"))


def differs(configured: str | None, found: str | None, store: str) -> str | None:
    """Why a store is not the repository of this backup server, None when it is: both ids are the
    same. Pure.
    """
    if configured is not None and configured == found:
        return None
    if found is None:
        return (
            f"{store}: there is no repository, and this backup server has had"
            f" {configured or 'none'}: is its file system mounted? Nothing is accepted or deleted"
            " until it is there; if it is lost for good, `redis-backup adopt-repository` begins a"
            " new one"
        )
    return (
        f"{store}: this is repository {found}, the one of this backup server is"
        f" {configured or 'not known'}: is the right file system mounted? Nothing is accepted or"
        " deleted; if this is the one that it is to work with, run `redis-backup adopt-repository`"
    )
