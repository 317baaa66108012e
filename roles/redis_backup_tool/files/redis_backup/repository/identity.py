"""Which repository this is: read, compared with the configuration, begun and adopted."""

from __future__ import annotations

from pathlib import Path

from ..base.errors import ToolError
from ..base.files import read_if_there, write_durably
from ..config.model import ServerConfig
from ..formats import identity
from ..formats.identity import REPOSITORY_NAME, Repository
from . import store


def read(path: Path) -> Repository | None:
    """An identity from its file, None where there is no file. Raises ToolError."""
    raw = read_if_there(path)
    return None if raw is None else identity.decode(raw, str(path))


def require(config: ServerConfig) -> str:
    """The id of the repository, when it is the one that this backup server is configured with.
    Raises ToolError otherwise, before anything is written.
    """
    found = read(config.store / REPOSITORY_NAME)
    problem = problem_of(config, found)
    if problem is not None or found is None:
        raise ToolError(str(problem))
    return found.id


def problem_of(config: ServerConfig, found: Repository | None) -> str | None:
    """Why the store is not the repository of this backup server, None when it is."""
    configured = read(config.identity)
    return identity.differs(
        None if configured is None else configured.id,
        None if found is None else found.id,
        str(config.store),
    )


def begin(config: ServerConfig, now: float) -> bool:
    """Make an identity where neither the store nor the configuration has one, and finish what a
    killed run began. Returns whether it did. `now` is unix seconds. Raises ToolError when there are
    backups and no identity.
    """
    if read(config.identity) is not None:
        return False
    found, sets = read(config.store / REPOSITORY_NAME), store.set_names(config.store)
    if found is None and sets:
        raise ToolError(
            f"{config.store}: there are backups of {', '.join(sets)[:200]}, and neither there nor"
            f" in {config.identity} is the id of a repository: both files are lost; `redis-backup"
            " adopt-repository` gives these backups a new one"
        )
    if sets:
        return False  # Another server's, or moved here: a person says whether it is this one's.
    _write(config, found or identity.new(now))
    return True


def adopt(config: ServerConfig, now: float) -> Repository:
    """Take the store as it is for the repository of this backup server; one without an identity
    begins one.
    """
    found = read(config.store / REPOSITORY_NAME) or identity.new(now)
    _write(config, found)
    return found


def _write(config: ServerConfig, repository: Repository) -> None:
    """The store first: a configuration that names a repository which was never begun would be
    refused for ever, and a store without backups is taken by the next run.
    """
    raw = identity.encode(repository)
    for path, mode in ((config.store / REPOSITORY_NAME, 0o600), (config.identity, 0o644)):
        try:
            write_durably(path, raw, mode)
        except OSError as problem:
            raise ToolError(f"{path}: cannot be written ({problem.strerror})") from None
