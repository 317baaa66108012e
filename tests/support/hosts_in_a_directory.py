"""One Redis host without Ansible and systemd: a directory, a real server, and a `systemctl` on PATH
that starts and stops it. What the modules do is what they do on a host.
"""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection
from ansible_collections.proven.redis.plugins.modules import redis_config, redis_service

from tests.support.ansible_runs import answer
from tests.support.servers import Binary
from tests.tool.backup_lab import free_port

# A unit that is started again when it ended by itself would only hide that.
SYSTEMCTL = """#!/bin/sh
cd {state}
alive() {{ test -s pid && kill -0 "$(cat pid)" 2>/dev/null; }}
start() {{ alive || {{ setsid {server} {config} --daemonize no >>output 2>&1 & echo $! >pid; }}; }}
stop() {{ if alive; then kill "$(cat pid)"; while alive; do sleep 0.02; done; fi; rm -f pid; }}
for word; do
    case $word in
    start) start ;;
    restart) stop; start ;;
    stop) stop ;;
    ActiveState)
        if alive; then echo active; elif test -e pid; then echo failed; else echo inactive; fi ;;
    NRestarts) echo 0 ;;
    is-active) alive || exit 3 ;;
    *LoadState*)
        if test -e unmounted; then echo LoadState=loaded; else echo LoadState=not-found; fi
        echo ActiveState=inactive ;;
    esac
done
"""


class Host:
    """A host with one instance, which does not run yet."""

    def __init__(self, directory: Path, binary: Binary) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.data.mkdir()
        self.port = free_port()
        self.config = directory / "redis.conf"
        self.log = directory / "log"
        programs = directory / "bin"
        programs.mkdir()
        self.server = programs / Path(binary.command[-1]).name
        for program in ("server", "check-rdb", "check-aof"):
            name = self.server.name.replace("server", program)
            words = [*binary.command[:-1], str(Path(binary.command[-1]).with_name(name))]
            _script(programs / name, f'exec {shlex.join(words)} "$@"\n')
        self.systemctl = programs / "systemctl"
        _script(
            self.systemctl,
            SYSTEMCTL.removeprefix("#!/bin/sh\n").format(
                state=directory, server=self.server, config=self.config
            ),
        )
        _script(programs / "journalctl", "exit 0\n")
        _script(programs / "systemd-escape", 'shift 2; echo "$@"\n')

    @property
    def instance(self) -> dict[str, Any]:
        return {
            "unit": "redis-server.service",
            "unit_dropin": str(self.directory / "50-managed.conf"),
            "server": str(self.server),
            "account": "root",
            "config_file": str(self.config),
            "log_file": str(self.log),
            "addresses": ["127.0.0.1"],
            "port": self.port,
        }

    def content(self, appendonly: bool, save: str = "3600 1", more: str = "") -> str:
        """A configuration file as the role writes it."""
        return (
            f"bind 127.0.0.1\nport {self.port}\ndir {self.data}\ndbfilename dump.rdb\n"
            f"logfile {self.log}\nsave {save}\nappendonly {'yes' if appendonly else 'no'}\n{more}"
        )

    def configure(self, appendonly: bool, *, running: bool = False, **more: Any) -> dict[str, Any]:
        """Run `redis_config`, as the role does."""
        content = more.pop("content", None) or self.content(appendonly)
        given = {"instance": self.instance, "content": content, "running": running, "timeout": 20}
        check = more.pop("check", False)
        return answer(redis_config, {"has_data": True, **given, **more}, check=check)

    def service(self, state: str, **more: Any) -> dict[str, Any]:
        """Run `redis_service`, as the role does."""
        save = {"save_first": True} if state == "restarted" else {}
        given = {"instance": self.instance, "state": state, "ready_timeout": 20}
        return answer(redis_service, {**given, **save, **more}, check=False)

    def deploy(self, appendonly: bool) -> dict[str, Any]:
        """What a run of the role does to a stopped instance; the first answer that is a failure,
        else that of the start."""
        configured = self.configure(appendonly)
        if configured.get("failed"):
            return configured
        started = self.service("started")
        if started.get("failed") or not configured["pending"]:
            return started
        finished = self.configure(appendonly, running=True)
        return finished if finished.get("failed") else started

    @property
    def pid(self) -> int | None:
        """The process of the server, None where it does not run."""
        try:
            pid = int((self.directory / "pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def begin(self, appendonly: bool, **more: Any) -> None:
        """Start the server with a file of its own, without the modules."""
        self.config.write_text(self.content(appendonly, **more))
        self.config.chmod(0o640)
        self.systemctl_do("start")
        self.wait()

    def wait(self) -> None:
        """Until the server answers, and has loaded its data."""
        deadline = time.monotonic() + 30
        while True:
            with suppress(Exception):
                if self("PING") == "PONG":
                    return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def systemctl_do(self, verb: str) -> None:
        """As a person would type it."""
        assert os.system(f"{self.systemctl} {verb} redis-server") == 0  # noqa: S605

    def __call__(self, *words: str) -> Any:
        """One command to the server."""
        with Connection("127.0.0.1", self.port) as connection:
            return connection.command(*words)

    def fill(self, name: str, count: int) -> None:
        """So many keys with values of that name."""
        script = f"for i = 1, {count} do redis.call('SET', '{name}:' .. i, '{name}') end"
        self("EVAL", script, "0")

    def keys(self) -> dict[str, int]:
        """How many keys it has of each name."""
        counted: dict[str, int] = {}
        for key in self("KEYS", "*"):
            name = key.partition(":")[0]
            counted[name] = counted.get(name, 0) + 1
        return counted

    def kill(self) -> None:
        """A crash."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            while self.pid and not _is_zombie(pid):
                time.sleep(0.01)
        (self.directory / "pid").unlink(missing_ok=True)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _script(path: Path, text: str) -> None:
    # As the unit has it: what the server writes is for its group at most.
    path.write_text(f"#!/bin/sh\numask 007\n{text}")
    path.chmod(0o755)


@contextmanager
def host(directory: Path, binary: Binary) -> Iterator[Host]:
    """A host whose server ends with the test; its `systemctl` is that of PATH meanwhile."""
    made = Host(directory, binary)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{made.server.parent}{os.pathsep}{path}"
    try:
        yield made
    finally:
        made.kill()
        os.environ["PATH"] = path
