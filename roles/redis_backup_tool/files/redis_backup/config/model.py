"""What a configuration holds, one class per kind of host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Union


@dataclass(frozen=True)
class RedisAccess:
    """How to reach the Redis server of this host. `unixsocket`, when given, is used in place of
    address and port.
    """

    address: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    unixsocket: str | None = None


@dataclass(frozen=True)
class Host:
    """A Redis host of the set, by the address that it announces to replicas and master."""

    name: str
    address: str
    port: int


@dataclass(frozen=True)
class Transport:
    """The rsync daemon of the backup server, as this host sees it. Delays and time limits are
    seconds.
    """

    server: str
    port: int
    user: str
    secret: str = field(repr=False)
    inbox_module: str
    receipts_module: str | None = None
    store_module: str | None = None
    timeout: int = 60
    connect_timeout: int = 10
    retry_delays: tuple[float, ...] = (2.0, 5.0, 15.0)


@dataclass(frozen=True)
class HostConfig:
    """A Redis host: where `create` runs. Delays and time limits are seconds, reserves are bytes.
    `shrink_limit` is that of ServerConfig, `repository` the id of the one that this host was
    deployed with, `lease` where a restore of this set leaves its lease. `notify` is the command
    that tells a person of a failure, empty for none, as in the others.
    """

    KIND: ClassVar[str] = "host"

    path: Path
    set: str
    host: str
    redis: RedisAccess
    hosts: tuple[Host, ...]
    turn_delay: float
    transport: Transport
    receipt_timeout: float
    bgsave_timeout: float
    disk_reserve: int
    zstd_level: int
    shrink_limit: int = 50
    repository: str | None = None
    lease: Path | None = None
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class Policy:
    """How many to keep of each host: the newest `last` of the newest `last` days, and one for each
    of the newest `daily` days, `weekly` ISO weeks and `monthly` months (all in UTC) that have a
    backup of any host. `minimum` good ones stay whatever the others say.
    """

    last: int
    daily: int
    weekly: int
    monthly: int
    minimum: int


@dataclass(frozen=True)
class ServerConfig:
    """The backup server: where `accept`, `prune` and `check` run. Ages are seconds, reserves are
    bytes. `retention` is None where nothing is to be deleted, `max_drill_age` where no drill is
    expected, `max_scrub_age` where backups are not read again. `identity` is the file that names
    the repository of this server. A backup that has less than `shrink_limit` per cent of the keys
    or bytes of the newest before is marked.
    """

    KIND: ClassVar[str] = "server"

    path: Path
    store: Path
    inbox: Path
    receipts: Path
    uploaders_dir: Path
    inbox_max_age: int
    receipts_min_age: int
    disk_reserve: int
    uploads_per_day: int
    share_per_day: int
    retention: Policy | None
    max_backup_age: int
    max_drill_age: int | None
    identity: Path
    shrink_limit: int = 50
    max_scrub_age: int | None = None
    notify: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrillSet:
    """What the drill knows of one set: the user's assertions, as they were written."""

    assertions: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class DrillConfig:
    """The drill host: where `drill` runs. `max_age` (seconds, None for no limit) bounds the age of
    the drilled backup, `receipt_timeout` (seconds) the wait for the backup server's receipt of a
    report.
    """

    KIND: ClassVar[str] = "drill"

    path: Path
    host: str
    sets: dict[str, DrillSet]
    transport: Transport
    work: Path
    unit: str | None
    require_sandbox: bool
    max_age: int | None
    load_timeout: float
    servers: dict[str, str]
    receipt_timeout: float = 120.0
    repository: str | None = None
    notify: tuple[str, ...] = ()


Config = Union[HostConfig, ServerConfig, DrillConfig]


@dataclass(frozen=True)
class Uploader:
    """Who may upload into `<inbox>/<host>/`: a Redis host of a set, or a drill host (`set` is
    None).
    """

    host: str
    kind: str
    set: str | None
