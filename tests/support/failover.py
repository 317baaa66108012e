"""What goes on beside a run of Ansible: a client that writes, and a person who moves the master."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import yaml

from tests.support.live import PROJECT, Play, environment, read_play, wait_for

LOCK = "/run/proven-redis/redis-server.service.lock"


class Servers:
    """The servers of a lab's set, asked from here."""

    def __init__(self, inventory: Path, hosts: Mapping[str, Any]) -> None:
        described = yaml.safe_load((inventory / "generated.yml").read_text("utf-8"))["all"]
        self.password = described["vars"]["redis_requirepass"]
        self.addresses = {
            name: described["hosts"][name]["redis_address"]
            for name in hosts
            if name.startswith("redis-")
        }
        self.hosts = hosts

    def client(self, name: str, timeout: float = 2.0) -> redis.Redis:
        """A client of one server."""
        return redis.Redis(
            self.addresses[name],
            password=self.password,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            decode_responses=True,
        )

    def replication(self, name: str) -> dict[str, Any]:
        """INFO replication; empty where the server does not answer."""
        try:
            with self.client(name) as client:
                return dict(client.info("replication"))
        except redis.RedisError:
            return {}

    def follow(self, name: str, master: str | None) -> None:
        """REPLICAOF, as a person types it."""
        with self.client(name) as client:
            if master is None:
                client.replicaof("NO", "ONE")
            else:
                client.replicaof(self.addresses[master], "6379")

    def masters(self) -> list[str]:
        """The names of all that call themselves master."""
        return [name for name in self.addresses if self.replication(name).get("role") == "master"]

    def end_state(self, names: list[str]) -> str:
        """Who follows whom, in one line."""
        said = {name: self.replication(name) for name in names}
        by_address = {address: name for name, address in self.addresses.items()}
        words = []
        for name, state in said.items():
            if not state:
                words.append(f"{name} is down")
            elif state["role"] == "slave":
                up = "" if state["master_link_status"] == "up" else " (link down)"
                words.append(f"{name} follows {by_address.get(state['master_host'])}{up}")
        masters = [name for name, state in said.items() if state.get("role") == "master"]
        first = f"master {', '.join(masters) or 'nobody'}"
        settled = len(masters) == 1 and all(word.endswith(masters[0]) for word in words)
        return first if settled else "; ".join([first, *words])

    def settle(self, names: list[str], timeout: float = 90) -> None:
        """Wait until one is the master and the others are in sync with it."""

        def one_master_and_the_others_in_sync() -> bool:
            return ";" not in self.end_state(names) and self.masters_of(names) != []

        wait_for(one_master_and_the_others_in_sync, timeout)

    def masters_of(self, names: list[str]) -> list[str]:
        return [name for name in names if self.replication(name).get("role") == "master"]

    def move_by_hand(self, writer: Writer, names: list[str], new: str) -> None:
        """A planned failover as a careful person does it: stop the writes, wait for equal offsets
        where the old master answers, promote, move the others and the clients.
        """
        with writer.stopped():
            old = self.masters_of(names)
            others = [name for name in names if name != new]

            def all_have_everything() -> bool:
                offset = self.replication(old[0]).get("master_repl_offset", 0)
                return all(
                    self.replication(name).get("slave_repl_offset", offset) >= offset
                    for name in names
                )

            if old:
                wait_for(all_have_everything, 20)
            self.follow(new, None)
            for name in others:
                if self.replication(name):
                    self.follow(name, new)
            writer.target = new

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of an instance, so that a module has to wait right before its change."""
        host = self.hosts[name]
        host.check_output(
            f"systemd-run --quiet --collect --unit=test-lock flock -x {LOCK} sleep 300"
        )
        try:
            yield
        finally:
            host.run("systemctl stop test-lock.service")


class Writer:
    """A client that writes all along with WAIT 1, and remembers what was acknowledged."""

    def __init__(self, servers: Servers, target: str, prefix: str) -> None:
        self.servers = servers
        self.target = target
        self.prefix = prefix
        self.acknowledged: list[int] = []
        self._run = threading.Event()
        self._idle = threading.Event()
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._run.set()
        self._thread.join(30)

    def _work(self) -> None:
        number, name, client = 0, "", None
        while not self._run.is_set():
            if self._pause.is_set():
                self._idle.set()
                time.sleep(0.02)
                continue
            self._idle.clear()
            if client is None or name != self.target:
                name = self.target
                client = self.servers.client(name)
            number += 1
            try:
                client.set(f"{self.prefix}:{number}", number)
                if client.wait(1, 500) >= 1:
                    self.acknowledged.append(number)
            except redis.RedisError:
                client = None
                time.sleep(0.05)
            time.sleep(0.005)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """No write is under way in here."""
        self._pause.set()
        self._idle.wait(10)
        try:
            yield
        finally:
            self._pause.clear()

    def lost(self) -> int:
        """How many acknowledged writes the present master does not have."""
        with self.servers.client(self.target, 30) as client:
            there = client.mget(
                [f"{self.prefix}:{number}" for number in self.acknowledged] or ["-"]
            )
        return sum(value is None for value in there) if self.acknowledged else 0


class Held:
    """A run of ansible-playbook that is held before one of its tasks."""

    def __init__(
        self, inventory: Path, playbook: str, task: str, *arguments: str, nth: int = 1
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="held-")
        self._task = task
        variables = {
            "ANSIBLE_CALLBACK_PLUGINS": str(PROJECT / "tests" / "support" / "callbacks"),
            "ANSIBLE_CALLBACKS_ENABLED": "hold",
            "HOLD_TASK": task,
            "HOLD_COUNT": str(nth),
            "HOLD_DIR": self._folder.name,
        }
        self._output = open(Path(self._folder.name, "output"), "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", inventory, playbook, *arguments],
            cwd=PROJECT,
            env={**environment(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def reached(self) -> None:
        """Wait until the run is held."""
        there = Path(self._folder.name, "reached")

        def held_before_its_task() -> bool:
            return there.exists() or self.process.poll() is not None

        wait_for(held_before_its_task, 300)
        assert there.exists(), f"{self._task!r} was never reached:\n{self._text()[-3000:]}"

    def go(self) -> None:
        """Let it go on."""
        Path(self._folder.name, "go").touch()

    def end(self) -> Play:
        """Let it go on, and wait for its end."""
        self.go()
        self.process.wait(900)
        play = read_play(self.process.returncode, self._text())
        self._output.close()
        self._folder.cleanup()
        return play

    def _text(self) -> str:
        return Path(self._folder.name, "output").read_text("utf-8", "replace")
