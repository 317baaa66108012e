"""A Redis set, a backup server and its rsync daemon on this machine, for the tests of the backup
tool.

Everything is real but small: redis-server on a unix socket (replicas on loopback), rsync's daemon
on loopback with the module options that the roles render, zstd.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis_backup.base.times import timestamp
from redis_backup.commands import cli
from redis_backup.config import reader
from redis_backup.config.model import ServerConfig
from redis_backup.formats import agreement, catalogue, document, manifest, receipts
from redis_backup.rdb import walker
from redis_backup.repository import identity
from redis_backup.repository.ledger import Ledger
from redis_backup.transport import zstd

from tests.support import processes

SET = "redis"
PASSWORD = "lab-password-of-redis"
SECRET = "lab-secret-of-rsync"
PACKAGE = Path(cli.__file__).parents[2]
START_TIMEOUT = 60.0  # seconds


def wait_until(condition: Callable[[], object], what: str, timeout: float = START_TIMEOUT) -> None:
    """Poll until a condition holds; fail the test when it does not in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RedisProcess:
    """A running redis-server. `port` 0 listens on the unix socket alone."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        """The unix socket."""
        return self.directory / "redis.sock"

    @property
    def data(self) -> Path:
        """Redis's `dir`."""
        return self.directory / "data"

    def client(self) -> redis.Redis:
        """A new client, which hears the server's first answer instead of trying again."""
        # Redis-py's, for its conversions: tests write values of all types and read INFO.
        return redis.Redis(
            unix_socket_path=str(self.socket),
            password=PASSWORD,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=600,  # SAVE of a large dataset on a busy machine
        )

    def signal_child(self, number: signal.Signals) -> None:
        """Send a signal to the child that saves, if there is one. Redis does not count a save that
        SIGUSR1 ends as a failed one.
        """
        for child in processes.below(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)

    def stop(self) -> None:
        """End it, whatever it does, and what it saves."""
        self.signal_child(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


def start_redis(
    directory: Path,
    *,
    port: int = 0,
    dump: bytes | None = None,
    ready: bool = True,
    **settings: str,
) -> RedisProcess:
    """Start a redis-server over a dump, if one is given, and wait until it answers (`ready`) or is
    loading.
    """
    binary = shutil.which("redis-server")
    assert binary is not None, "redis-server is needed: apt-get install redis-server"
    (directory / "data").mkdir(parents=True)
    if dump is not None:
        (directory / "data" / "dump.rdb").write_bytes(dump)
    options = {
        "bind": "127.0.0.1",
        "unixsocket": str(directory / "redis.sock"),
        "dir": str(directory / "data"),
        "port": str(port),
        "save": "",
        "appendonly": "no",
        "requirepass": PASSWORD,
        "masterauth": PASSWORD,
        "repl-diskless-sync-delay": "0",
        "logfile": str(directory / "redis.log"),
        "daemonize": "no",
        **{key.replace("_", "-"): value for key, value in settings.items()},
    }
    config = directory / "redis.conf"
    empty = '""'
    config.write_text("".join(f"{key} {value or empty}\n" for key, value in options.items()))
    process = subprocess.Popen([binary, str(config)], stdout=subprocess.DEVNULL)
    server = RedisProcess(directory, port, process)
    with server.client() as client:

        def answers() -> bool:
            assert process.poll() is None, (directory / "redis.log").read_text()
            try:
                return bool(client.ping())
            except redis.exceptions.BusyLoadingError:
                return not ready
            except redis.exceptions.RedisError:
                return False

        wait_until(answers, f"redis-server in {directory}")
    return server


@dataclass(frozen=True)
class Result:
    """One run of the command line."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.out)

    @property
    def text(self) -> str:
        """Everything that was said."""
        return self.out + self.err


def refusal(result: Result, *words: str, code: int = 1) -> str:
    """The last line of a command that failed with this code, with all of these words in it."""
    assert result.code == code, result.text
    assert "Traceback" not in result.text
    last = result.err.strip().splitlines()[-1]
    for word in words:
        assert word in last
    return last


def run(*arguments: str | Path) -> Result:
    """Run the command line within this process."""
    out, err = io.StringIO(), io.StringIO()
    umask = os.umask(0)
    os.umask(umask)
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = cli.main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = int(stop.code or 0)
    finally:
        os.umask(umask)
        with contextlib.suppress(PermissionError):  # without privileges, what follows is slower
            os.setpriority(os.PRIO_PROCESS, 0, priority)
    return Result(code, out.getvalue(), err.getvalue())


def run_process(
    *arguments: str | Path,
    python: str = sys.executable,
    prefix: Sequence[str] = (),
    **environment: str,
) -> Result:
    """Run the command line as a process of its own, under another command."""
    done = subprocess.run(
        [*prefix, python, "-m", "redis_backup", *(str(argument) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@dataclass
class BackupServer:
    """The directories of a backup server and its rsync daemon. `kick`: a finished transfer starts
    a run of `accept`.
    """

    root: Path
    uploaders: dict[str, str | None]
    kick: bool = True
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        """The store."""
        return self.root / "store"

    @property
    def inbox(self) -> Path:
        """All inboxes."""
        return self.root / "inbox"

    @property
    def receipts(self) -> Path:
        """All receipts."""
        return self.root / "receipts"

    @property
    def config(self) -> Path:
        """The configuration of the tool."""
        return self.root / "server.json"

    def make(self) -> None:
        """Directories and configuration, as the role makes them."""
        for directory in (
            self.store,
            self.inbox,
            self.receipts,
            self.root / "uploaders.d",
            self.root / "identity",
        ):
            directory.mkdir(parents=True)
        (self.receipts / SET).mkdir()
        for host, set_name in self.uploaders.items():
            (self.inbox / host).mkdir()
            data = (
                {"host": host, "kind": "drill"}
                if set_name is None
                else {"host": host, "kind": "host", "set": set_name}
            )
            (self.root / "uploaders.d" / f"{host}.json").write_text(json.dumps(data))
        self.write_config()
        identity.begin(self.loaded(), time.time())

    def loaded(self) -> ServerConfig:
        """The configuration as the tool reads it."""
        config = reader.load(self.config)
        assert isinstance(config, ServerConfig)
        return config

    def write_config(self, **changes: Any) -> None:
        """Write the tool's configuration, with changes."""
        data = {
            "kind": "server",
            "store": str(self.store),
            "inbox": str(self.inbox),
            "receipts": str(self.receipts),
            "uploaders_dir": str(self.root / "uploaders.d"),
            "inbox_max_age_seconds": 86400,
            "receipts_min_age_seconds": 14 * 86400,
            "disk_reserve_bytes": 1024,
            "identity": str(self.root / "identity" / "repository.json"),
            **changes,
        }
        self.config.write_text(json.dumps(data))

    def start_rsync(self) -> None:
        """Start the daemon with the module options that the roles render."""
        binary = shutil.which("rsync")
        assert binary is not None, "rsync is needed: apt-get install rsync"
        self.port = free_port()
        secrets = self.root / "rsync-secrets"
        secrets.write_text("".join(f"{host}:{SECRET}\n" for host in self.uploaders))
        secrets.chmod(0o600)
        lines = [
            f"uid = {os.getuid()}",
            f"gid = {os.getgid()}",
            f"use chroot = {'yes' if os.getuid() == 0 else 'no'}",
            "reverse lookup = no",
            "list = no",
            "strict modes = yes",
            f"secrets file = {secrets}",
            "max connections = 20",
            "timeout = 60",
            f"lock file = {self.root}/rsync.lock",
            f"log file = {self.root}/rsync.log",
            "hosts allow = 127.0.0.1",
        ]
        for host in self.uploaders:
            lines += [
                f"[inbox-{host}]",
                f"path = {self.inbox / host}",
                "read only = no",
                "write only = yes",
                "refuse options = * !recursive !dirs !relative !implied-dirs !times !omit-dir-times"
                " !whole-file !fsync !timeout !verbose",
                "incoming chmod = Du=rwx,Dgo=,Fu=rw,Fgo=",
                f"auth users = {host}",
            ]
            if self.kick:
                lines.append(f"post-xfer exec = {self._kick_script()}")
        readers = " ".join(host for host, set_name in self.uploaders.items() if set_name)
        lines += [
            f"[receipts-{SET}]",
            f"path = {self.receipts / SET}",
            "read only = yes",
            f"auth users = {readers}",
            "[store]",
            f"path = {self.store}",
            "read only = yes",
            "auth users ="
            f" {' '.join(host for host, set_name in self.uploaders.items() if not set_name)}",
        ]
        config = self.root / "rsyncd.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = subprocess.Popen(
            [
                binary,
                "--daemon",
                "--no-detach",
                "--address=127.0.0.1",
                f"--port={self.port}",
                f"--config={config}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return True
            return False

        wait_until(listens, "the rsync daemon")

    def _kick_script(self) -> Path:
        script = self.root / "kick"
        script.write_text(
            "#!/bin/sh\n"
            f"PYTHONPATH={PACKAGE} exec {sys.executable} -m redis_backup --config {self.config}"
            " accept"
            f" >>{self.root}/accept.log 2>&1\n"
        )
        script.chmod(0o755)
        return script

    def accept(self) -> Result:
        """Run `accept` once."""
        return run("--config", self.config, "--json", "accept")

    def accept_process(self) -> Result:
        """Run `accept` once beside this process."""
        return run_process("--config", self.config, "--json", "accept")

    def started(self) -> list[processes.Process]:
        """What transfers have started and is not over: the daemon's children and theirs."""
        return [] if self.process is None else processes.below(self.process.pid)

    def receipt(self, backup_id: str) -> Any:
        """One receipt."""
        return json.loads((self.receipts / SET / f"{backup_id}.json").read_text())

    def report_receipt(self, drill_id: str) -> Any:
        """The receipt of one report."""
        return json.loads((self.store / ".receipts" / f"{drill_id}.json").read_text())

    def stop(self) -> None:
        """End the daemon and wait for runs of `accept` that it started."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@dataclass
class Lab:
    """A backup server and Redis hosts with their configurations."""

    root: Path
    server: BackupServer
    redises: list[RedisProcess] = field(default_factory=list)

    def redis(
        self,
        name: str,
        *,
        port: int = 0,
        dump: bytes | None = None,
        ready: bool = True,
        **settings: str,
    ) -> RedisProcess:
        """Start a Redis host."""
        process = start_redis(self.root / name, port=port, dump=dump, ready=ready, **settings)
        self.redises.append(process)
        return process

    def host_config(self, name: str, server: RedisProcess, **changes: Any) -> Path:
        """Write the configuration of a Redis host; keys of `redis` and `transport` are merged."""
        data: dict[str, Any] = {
            "kind": "host",
            "set": SET,
            "host": name,
            "redis": {"unixsocket": str(server.socket), "username": None, "password": PASSWORD},
            "hosts": [{"name": name, "address": "127.0.0.1", "port": server.port or 6379}],
            "turn_delay_seconds": 1,
            "transport": {
                "server": "127.0.0.1",
                "port": self.server.port or 1,
                "user": name,
                "secret": SECRET,
                "inbox_module": f"inbox-{name}",
                "receipts_module": f"receipts-{SET}",
                "retry_delays_seconds": [0.1],
            },
            # A net: tests that want the time-out set their own.
            "receipt_timeout_seconds": 120,
            "bgsave_timeout_seconds": 30,
            "disk_reserve_bytes": 1024,
            "zstd_level": 3,
        }
        for key in ("redis", "transport"):
            data[key].update(changes.pop(key, {}))
        data.update(changes)
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(data))
        path.chmod(0o600)
        return path

    def stop(self) -> None:
        """End everything."""
        self.server.stop()
        for process in self.redises:
            process.stop()


@contextlib.contextmanager
def lab(root: Path, *hosts: str, kick: bool = True, rsync: bool = True) -> Iterator[Lab]:
    """A lab whose backup server knows these Redis hosts and the drill host `drill-1`."""
    uploaders: dict[str, str | None] = {}
    uploaders.update(dict.fromkeys(hosts, SET))
    uploaders["drill-1"] = None
    server = BackupServer(root / "server", uploaders, kick=kick)
    server.make()
    made = Lab(root, server)
    try:
        if rsync:
            server.start_rsync()
        yield made
    finally:
        made.stop()


def fill(client: redis.Redis) -> dict[str, dict[str, int]]:
    """Write a little of everything into two databases; returns the counts that a backup must
    have.
    """
    with client.pipeline() as pipe:
        for number in range(300):
            pipe.set(f"session:{number}", "x" * 50, ex=86400 if number % 3 == 0 else None)
        pipe.hset("user:1", mapping={"name": "A", "mail": "a@example.org"})
        pipe.rpush("queue", *range(50))
        pipe.zadd("board", {"a": 1, "b": 2})
        pipe.xadd("stream", {"k": "v"})
        pipe.select(5)
        pipe.set("five", "5")
        pipe.select(0)
        pipe.execute()
    return {"0": {"keys": 304, "expires": 100}, "5": {"keys": 1, "expires": 0}}


def dump_of_server(directory: Path, write: Callable[[Any], object] | None = None) -> bytes:
    """The dump of a real server with the above and what `write` adds by a pipeline."""
    server = start_redis(directory)
    try:
        with server.client() as client:
            fill(client)
            with client.pipeline(transaction=False) as pipe:
                if write is not None:
                    write(pipe)
                pipe.save()  # at once: keys may have seconds to live
                pipe.execute()
        return (server.data / "dump.rdb").read_bytes()
    finally:
        server.stop()


def drill_config(made: Lab, **changes: Any) -> Path:
    """Write the configuration of a drill host beside the server, and make its directory; keys of
    `transport` are merged.
    """
    (made.root / "work").mkdir(mode=0o700, exist_ok=True)
    data: dict[str, Any] = {
        "kind": "drill",
        "host": "drill-1",
        "sets": {SET: {"assertions": []}},
        "transport": {
            "server": "127.0.0.1",
            "port": made.server.port,
            "user": "drill-1",
            "secret": SECRET,
            "store_module": "store",
            "inbox_module": "inbox-drill-1",
            "retry_delays_seconds": [],
            **changes.pop("transport", {}),
        },
        "work": str(made.root / "work"),
        "unit": None,
        "require_sandbox": False,
        "max_age_seconds": None,
        "load_timeout_seconds": 60,
        "servers": {"redis": shutil.which("redis-server")},
        **changes,
    }
    path = made.root / "drill.json"
    path.write_text(json.dumps(data))
    path.chmod(0o600)
    return path


def make_upload(
    directory: Path, dump: bytes, backup_id: str, set_name: str = SET, **changes: Any
) -> Path:
    """Make what a Redis host uploads of a dump: `<directory>/<id>/`, with changes to the
    manifest's JSON.
    """
    upload = directory / backup_id
    upload.mkdir(parents=True)
    plain = directory / f"{backup_id}.rdb"
    plain.write_bytes(dump)
    walked = walker.inspect(plain)
    packed = zstd.compress(plain, upload / manifest.STORED_NAME, 3)
    plain.unlink()
    made = manifest.Manifest(
        id=backup_id,
        set=set_name,
        host=manifest.id_host(backup_id),
        engine="redis",
        server_version=walked.aux.get("redis-ver", "0.0.0"),
        rdb_magic=walked.magic,
        rdb_version=walked.rdb_version,
        repl_id=None,
        repl_offset=None,
        master=None,
        fork_time=int(walked.aux["ctime"]),
        databases=agreement.counts_of(walked),
        settings={},
        seconds={},
        files=(
            manifest.StoredFile(
                name=manifest.PAYLOAD_NAME,
                stored_name=manifest.STORED_NAME,
                codec=manifest.CODEC,
                size=packed.plain.size,
                sha256=packed.plain.sha256,
                stored_size=packed.stored.size,
                stored_sha256=packed.stored.sha256,
            ),
        ),
        tool_version="0",
    )
    data = {"schema": document.SCHEMA, **manifest.to_json(made), **changes}
    (upload / manifest.MANIFEST_NAME).write_text(json.dumps(data))
    return upload


def store_backup(
    server: BackupServer,
    dump: bytes,
    backup_id: str,
    set_name: str = SET,
    at: float | None = None,
    **changes: Any,
) -> Path:
    """Put a backup into the store as `accept` does (at this unix time), with changes to its
    manifest's JSON, and without a look at what is in it. Returns its directory.
    """
    config = server.loaded()
    moment = time.time() if at is None else at
    upload = make_upload(server.root / "uploads", dump, backup_id, set_name, **changes)
    raw = (upload / manifest.MANIFEST_NAME).read_bytes()
    data = json.loads(raw)
    event = catalogue.Entry(
        event="accepted",
        id=backup_id,
        set=set_name,
        at=timestamp(moment),
        manifest_sha256=manifest.sha256(raw),
        host=manifest.id_host(backup_id),
        kind=data["kind"],
        level="form",
        fork_time=max(1, int(data["fork_time"])) if at is None else int(moment),
        keys=sum(counts["keys"] for counts in data["databases"].values()),
        size=data["files"][0]["size"],
        stored_size=data["files"][0]["stored_size"],
    )
    repository = identity.require(config)
    receipt = receipts.Receipt(
        id=backup_id,
        set=set_name,
        host=event.host,
        status=receipts.ACCEPTED,
        repository=repository,
        manifest_sha256=event.manifest_sha256,
        event=event,
    )
    Ledger(config, set_name).accept(upload, receipt)
    return server.store / set_name / backup_id


def id_now(host: str, seconds: float = 0) -> str:
    """An id of this moment, or some seconds from it."""
    return manifest.make_id(time.time() + seconds, host)
