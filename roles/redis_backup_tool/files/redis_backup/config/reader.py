"""Configuration: one JSON file per instance, written by the roles, read strictly."""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path

from ..base.errors import UsageError
from ..base.fields import NAME, Fields, parse_json
from .model import (
    Config,
    DrillConfig,
    DrillSet,
    Host,
    HostConfig,
    Policy,
    RedisAccess,
    ServerConfig,
    Transport,
    Uploader,
)

CONFIG_DIR = Path("/etc/redis-backup")
MAX_CONFIG_BYTES = 1024 * 1024
DAY = 86400
# A backup a day, and two hours for it to be made and sent.
MAX_AGE = 26 * 3600


def find(explicit: str | None, kind: str, directory: Path = CONFIG_DIR) -> Path:
    """The configuration file to use: the one that was named, else the only one of that kind in the
    directory, else the only one there is.

    Raises UsageError when there is none, or more than one.
    """
    if explicit is not None:
        return Path(explicit)
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.name.endswith(".json"))
    except FileNotFoundError:
        names = []
    except OSError as problem:
        raise UsageError(
            f"{directory}: cannot be read ({problem.strerror});"
            " run as the user that owns the configuration"
        ) from None
    if not names:
        raise UsageError(
            f"no configuration in {directory}; give one with --config, or deploy this host first"
        )
    suiting = [name for name in names if _kind_of(directory / name) == kind] or names
    if len(suiting) > 1:
        raise UsageError(
            f"{directory} holds several configurations ({', '.join(suiting)});"
            " choose one with --config"
        )
    return directory / suiting[0]


def _kind_of(path: Path) -> object:
    """What a file says that it is, None for one that this user cannot read or that is broken."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return data.get("kind") if isinstance(data, dict) else None


def load(path: Path) -> Config:
    """Read and validate a configuration. Raises UsageError, which names the file and the key."""
    try:
        # Mode and content are taken through one descriptor: what is checked is what is read.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path}: not a file; give the path of a configuration file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                raw = file.read(MAX_CONFIG_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such configuration file") from None
    except OSError as problem:
        raise UsageError(
            f"{path}: cannot be read ({problem.strerror}); run as the user that owns it"
        ) from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise UsageError(
            f"{path}: larger than {MAX_CONFIG_BYTES} bytes, this is no configuration file"
        )
    config = parse(parse_json(raw, str(path), UsageError), path)
    if not isinstance(config, ServerConfig) and status.st_mode & 0o077:
        raise UsageError(
            f"{path}: mode {stat.S_IMODE(status.st_mode):04o} lets others read the"
            " secrets in it; make it 0600"
        )
    return config


def parse(data: object, path: Path) -> Config:
    """Validate parsed JSON. `path` is for messages. Raises UsageError."""
    fields = Fields(data, str(path), UsageError)
    kind = fields.choice("kind", ("host", "server", "drill"))
    config: Config
    if kind == "host":
        config = _host(fields, path)
    elif kind == "server":
        config = _server(fields, path)
    else:
        config = _drill(fields, path)
    fields.done()
    return config


def load_uploaders(directory: Path) -> list[Uploader]:
    """The hosts that may upload, one file each. Raises UsageError, which names the file, when
    one cannot be used.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.name.endswith(".json"))
    except OSError as problem:
        raise UsageError(
            f"{directory}: cannot be read ({problem.strerror}); it holds one file per upload source"
        ) from None
    return [_uploader(directory / name) for name in names]


def _uploader(path: Path) -> Uploader:
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise UsageError(f"{path}: cannot be read ({problem.strerror})") from None
    fields = Fields(parse_json(raw, str(path), UsageError), str(path), UsageError)
    host = fields.text("host", NAME)
    kind = fields.choice("kind", ("host", "drill"))
    set_name = fields.text("set", NAME) if kind == "host" else None
    fields.done()
    if path.name != f"{host}.json":
        raise UsageError(f"{path}: is about host {host}, so its name must be {host}.json")
    return Uploader(host=host, kind=kind, set=set_name)


def _absolute(fields: Fields, key: str) -> Path:
    path = Path(fields.text(key))
    if not path.is_absolute():
        raise fields.fail(f'"{key}" must be an absolute path, it is {str(path)!r}')
    return path


def _notify(fields: Fields) -> tuple[str, ...]:
    """A command as a list of words, or as one line with the quotes of a shell; no shell runs it."""
    key = "notify_command"
    value = fields.raw(key) if fields.has(key) else ""
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as problem:
            raise fields.fail(f'"{key}" cannot be split into words ({problem})') from None
    elif isinstance(value, list) and all(isinstance(word, str) for word in value):
        words = value
    else:
        raise fields.fail(
            f'"{key}" must be a command line such as "/usr/local/bin/tell --urgent", or a list of'
            " its words"
        )
    if words and not words[0].startswith("/"):
        raise fields.fail(
            f'"{key}" must begin with the absolute path of a program, it begins with'
            f" {words[0][:80]!r}; a shell is run only where it is named: /bin/sh -c '...'"
        )
    if any("\x00" in word for word in words):
        raise fields.fail(f'"{key}" has a NUL character in it')
    return tuple(words)


def _port(fields: Fields, key: str) -> int:
    return fields.integer(key, 1, 65535)


def _transport(fields: Fields) -> Transport:
    transport = Transport(
        server=fields.text("server"),
        port=_port(fields, "port"),
        user=fields.text("user", NAME),
        secret=fields.text("secret"),
        inbox_module=fields.text("inbox_module", NAME),
        receipts_module=fields.optional_text("receipts_module", NAME),
        store_module=fields.optional_text("store_module", NAME),
        timeout=fields.integer("timeout_seconds", 1) if fields.has("timeout_seconds") else 60,
        connect_timeout=(
            fields.integer("connect_timeout_seconds", 1)
            if fields.has("connect_timeout_seconds")
            else 10
        ),
        retry_delays=_retry_delays(fields),
    )
    fields.done()
    return transport


def _retry_delays(fields: Fields) -> tuple[float, ...]:
    if not fields.has("retry_delays_seconds"):
        return Transport.retry_delays
    delays = fields.array("retry_delays_seconds")
    if not all(
        isinstance(item, (int, float)) and not isinstance(item, bool) and item >= 0
        for item in delays
    ):
        raise fields.fail('"retry_delays_seconds" must be a list of seconds')
    return tuple(float(item) for item in delays)


def _redis(fields: Fields) -> RedisAccess:
    socket = fields.optional_text("unixsocket")
    access = RedisAccess(
        address=fields.text("address") if socket is None else fields.optional_text("address") or "",
        port=_port(fields, "port") if socket is None or fields.has("port") else 0,
        username=fields.optional_text("username"),
        password=fields.optional_text("password"),
        unixsocket=socket,
    )
    fields.done()
    return access


def _hosts(fields: Fields) -> tuple[Host, ...]:
    hosts = []
    for item in fields.each("hosts"):
        hosts.append(Host(item.text("name", NAME), item.text("address"), _port(item, "port")))
        item.done()
    names = [host.name for host in hosts]
    if len(set(names)) != len(names):
        raise fields.fail('"hosts" names a host twice')
    return tuple(hosts)


def _host(fields: Fields, path: Path) -> HostConfig:
    config = HostConfig(
        path=path,
        set=fields.text("set", NAME),
        host=fields.text("host", NAME),
        redis=_redis(fields.fields("redis")),
        hosts=_hosts(fields),
        turn_delay=fields.number("turn_delay_seconds"),
        transport=_transport(fields.fields("transport")),
        receipt_timeout=fields.number("receipt_timeout_seconds"),
        bgsave_timeout=fields.number("bgsave_timeout_seconds", 1),
        disk_reserve=fields.integer("disk_reserve_bytes"),
        zstd_level=fields.integer("zstd_level", 1, 19),
        shrink_limit=_percent(fields, "shrink_limit_percent", HostConfig.shrink_limit),
        repository=fields.optional_text("repository"),
        lease=_absolute(fields, "lease") if fields.has("lease") else None,
        notify=_notify(fields),
    )
    if config.transport.receipts_module is None:
        raise fields.fail('transport: key "receipts_module" is missing')
    if config.host not in {host.name for host in config.hosts}:
        raise fields.fail(f'"hosts" does not name this host, {config.host}')
    return config


def _server(fields: Fields, path: Path) -> ServerConfig:
    return ServerConfig(
        path=path,
        store=_absolute(fields, "store"),
        inbox=_absolute(fields, "inbox"),
        receipts=_absolute(fields, "receipts"),
        uploaders_dir=_absolute(fields, "uploaders_dir"),
        inbox_max_age=fields.integer("inbox_max_age_seconds", 60),
        receipts_min_age=fields.integer("receipts_min_age_seconds", 14 * DAY),
        disk_reserve=fields.integer("disk_reserve_bytes"),
        uploads_per_day=fields.integer("uploads_per_day", 1)
        if fields.has("uploads_per_day")
        else 100,
        share_per_day=fields.integer("share_per_day", 1, 100)
        if fields.has("share_per_day")
        else 50,
        retention=_retention(fields.fields("retention")) if fields.has("retention") else None,
        max_backup_age=(
            fields.integer("max_backup_age_seconds", 60)
            if fields.has("max_backup_age_seconds")
            else MAX_AGE
        ),
        max_drill_age=(
            fields.optional_integer("max_drill_age_seconds", minimum=60)
            if fields.has("max_drill_age_seconds")
            else None
        ),
        identity=_absolute(fields, "identity"),
        shrink_limit=_percent(fields, "shrink_limit_percent", ServerConfig.shrink_limit),
        max_scrub_age=fields.optional_integer("max_scrub_age_seconds", minimum=3600),
        notify=_notify(fields),
    )


def _percent(fields: Fields, key: str, default: int) -> int:
    return fields.integer(key, 0, 100) if fields.has(key) else default


def _retention(fields: Fields) -> Policy:
    policy = Policy(
        last=fields.integer("keep_last"),
        daily=fields.integer("keep_daily"),
        weekly=fields.integer("keep_weekly"),
        monthly=fields.integer("keep_monthly"),
        minimum=fields.integer("keep_minimum"),
    )
    fields.done()
    return policy


def _drill(fields: Fields, path: Path) -> DrillConfig:
    sets = {}
    for name in fields.mapping("sets"):
        if NAME.fullmatch(name) is None:
            raise fields.fail(f'"sets" has a name that is not allowed: {name[:80]!r}')
        item = fields.fields("sets").fields(name)
        assertions = item.array("assertions")
        if not all(isinstance(entry, dict) for entry in assertions):
            raise item.fail('"assertions" must be a list of objects')
        item.done()
        sets[name] = DrillSet(assertions=tuple(assertions))
    servers = fields.mapping("servers")
    for engine, binary in servers.items():
        if not isinstance(binary, str) or not binary.startswith("/"):
            raise fields.fail(
                f'"servers": {engine[:80]!r} must be the absolute path of a server binary'
            )
    config = DrillConfig(
        path=path,
        host=fields.text("host", NAME),
        sets=sets,
        transport=_transport(fields.fields("transport")),
        work=_absolute(fields, "work"),
        unit=fields.optional_text("unit"),
        require_sandbox=fields.boolean("require_sandbox"),
        max_age=fields.optional_integer("max_age_seconds"),
        load_timeout=fields.number("load_timeout_seconds", 1),
        servers=dict(servers),
        receipt_timeout=(
            fields.number("receipt_timeout_seconds")
            if fields.has("receipt_timeout_seconds")
            else DrillConfig.receipt_timeout
        ),
        repository=fields.optional_text("repository"),
        notify=_notify(fields),
    )
    if config.transport.store_module is None:
        raise fields.fail('transport: key "store_module" is missing')
    return config
