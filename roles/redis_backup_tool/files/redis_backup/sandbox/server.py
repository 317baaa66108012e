"""The sandbox of a drill: its server's configuration and confinement, and the talk with it.

A backup is untrusted input. So the server that loads it runs in a unit of its own, and proves its
confinement before it sees a byte of data:

1. the tool puts `redis.conf`, `dump.rdb` and `order.json` into `<work>/sandbox/in`, which the unit
   sees read-only;
2. the unit starts the prober (`python3 -m redis_backup.sandbox.prober`). It looks around from
   the inside, writes `evidence.json` into `<work>/sandbox/out`, the only place where the unit may
   write, and waits;
3. the tool compares the evidence with its own surroundings (`missing_confinement`, pure) and only
   then creates `in/go`;
4. the prober becomes the server in the same process, so what was proven holds for the server too;
   the tool checks that the process that answers on the socket is the one that gave the evidence.

`<work>` is open to the tool's user alone, so nobody else reaches socket or data."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .client import REPLY_TIMEOUT, Client
from .confinement import (
    SANDBOX_ENFORCED,
    SANDBOX_NONE,
    Confinement,
    memory_limit,
    missing_confinement,
)
from .errors import NotConfinedError, SandboxError
from .launchers import EVIDENCE_TIMEOUT, STOP_TIMEOUT, Launcher
from .prober import namespaces
from .traces import alive, read_output

CONNECT_TIMEOUT = 30.0  # seconds

# What every server logs, and every second a replica of nowhere.
_EXPECTED = re.compile(
    "MASTER|Redis is starting|Valkey is starting|(Redis|Valkey) version=|Configuration loaded"
    "|Server initialized|overcommit_memory|Transparent Huge Pages|TCP backlog"
)


# loadDataFromDisk() of server.c, from Redis 5.0 on and in Valkey.
_LOADED = re.compile(r" DB loaded from disk: ([0-9]{1,9}\.[0-9]{3}) seconds$", re.MULTILINE)


class SandboxServer:
    """One sandboxed server from order to removal, in `directory`, which is `<work>/sandbox`."""

    def __init__(self, directory: Path, launcher: Launcher) -> None:
        self._directory = directory
        self._launcher = launcher
        self._evidence: dict[str, Any] = {}

    @property
    def dump(self) -> Path:
        """Where the plain RDB has to be when `start` is called."""
        return self._directory / "in" / "dump.rdb"

    @property
    def inside(self) -> Path:
        """The sandbox's directory as the server sees it."""
        return self._launcher.inside

    def clear(self) -> None:
        """Stop a server, also one that a killed drill left, and make its directories empty.

        The directories themselves stay: the unit mounts a small file system on `out`.
        """
        self._launcher.stop()
        # Modes count inside the unit only: outside, nobody else gets past the directory above.
        for name, mode in (("", 0o755), ("in", 0o755), ("out", 0o777)):
            directory = self._directory / name
            directory.mkdir(exist_ok=True)
            directory.chmod(mode)
            for left in directory.iterdir() if name else ():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                else:
                    left.unlink()

    def start(self, server: str, config: str, require_sandbox: bool) -> Confinement:
        """Start the prober, judge its evidence, and let it become the server. Raises SandboxError.

        With `require_sandbox` nothing is loaded unless the confinement is complete, else
        NotConfinedError.
        """
        nonce = os.urandom(16).hex()
        self._write("redis.conf", config)
        self._write("order.json", json.dumps({"server": server, "nonce": nonce}))
        self.dump.chmod(0o644)
        self._launcher.start()
        self._evidence = self._wait_for_evidence(nonce)
        confinement = self._judge()
        if require_sandbox and not confinement.enforced:
            raise NotConfinedError(
                confinement.state,
                f"the sandbox of the server is not enforced, it lacks {confinement.details};"
                " nothing was loaded (redis_restore_drill_require_sandbox: false allows it)",
            )
        self._write("go", "")
        return confinement

    def _write(self, name: str, text: str) -> None:
        path = self._directory / "in" / name
        path.write_text(text, "utf-8")
        path.chmod(0o644)

    def _wait_for_evidence(self, nonce: str) -> dict[str, Any]:
        deadline = time.monotonic() + EVIDENCE_TIMEOUT
        asked = time.monotonic()
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                evidence = json.loads(read_output(self._directory / "out" / "evidence.json"))
                if not isinstance(evidence, dict) or evidence.get("nonce") != nonce:
                    raise SandboxError("the evidence of the sandbox is not that of this start")
                return evidence
            if (self._directory / "out" / "server.log").exists():
                break
            if time.monotonic() - asked > 0.5:
                asked = time.monotonic()
                if self._launcher.ended():
                    break
            time.sleep(0.02)
        raise SandboxError(f"the sandboxed server did not come up: {self.last_words()}")

    def _judge(self) -> Confinement:
        missing = missing_confinement(self._evidence, os.getuid(), namespaces())
        if not self._launcher.confined:
            return Confinement(SANDBOX_NONE, "everything, it runs without a unit")
        if missing:
            return Confinement(f"not enforced: {'; '.join(missing)}", ", ".join(missing))
        limit = memory_limit(self._evidence)
        return Confinement(SANDBOX_ENFORCED, f"uid {self._evidence['uid']}, no network, {limit}")

    def connect(self) -> Client:
        """A connection to the server that gave the evidence. Raises SandboxError."""
        path = self._directory / "out" / "redis.sock"
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while (pid := _peer_pid(path)) is None:
            if not alive(self._evidence) or time.monotonic() > deadline:
                raise SandboxError(f"the sandboxed server did not come up: {self.last_words()}")
            time.sleep(0.02)
        if pid != self._evidence["pid"]:
            raise SandboxError(
                f"process {pid} answers on the sandboxed server's socket, but the sandbox that was"
                f" checked is that of {self._evidence['pid']}"
            )
        return Client(path)

    def wait_loaded(self, client: Client, timeout: float, step: Callable[[float], None]) -> None:
        """Wait until the file is loaded; `step` hears the per cent done. Raises SandboxError."""
        deadline = time.monotonic() + timeout
        pause = 0.01
        while True:
            try:
                persistence = client.info("persistence")
            except SandboxError as problem:
                raise SandboxError(
                    f"the sandboxed server ended while it loaded: {self.last_words()}"
                    if self._gone()
                    else str(problem)
                ) from None
            if persistence.get("loading") == "0":
                return
            done = re.match(r"[0-9]{1,3}(?=\.|\Z)", persistence.get("loading_loaded_perc", "0"))
            if done is not None:
                step(float(done.group()))
            if time.monotonic() > deadline:
                raise SandboxError(f"not loaded within {timeout:g} s; see load_timeout_seconds")
            time.sleep(pause)
            pause = min(0.5, pause * 1.5)

    def load_seconds(self) -> float | None:
        """How long loading took by the server's own log, None where it does not say."""
        said = _LOADED.findall(read_output(self._directory / "out" / "server.log", tail=True))
        return float(said[-1]) if said else None

    @contextlib.contextmanager
    def saved_again(self, client: Client) -> Iterator[Transfer]:
        """All that the server holds, as the RDB that it saves for a replica: nothing is written.

        Only a master serves replicas, so it becomes one here, with the expiry of keys switched off
        before: it still holds what it has loaded. Raises SandboxError, also while it is read.
        """
        client.call("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        client.call("REPLICAOF", "NO", "ONE")
        about = ["REPLCONF capa eof\r\n"]
        # Valkey 9 writes what the replica's release can read (replicaRdbVersion() of its
        # replication.c), and nothing that a replica without a release might not. Its own, then.
        if release := client.info("server").get("valkey_version"):
            about.append(f"REPLCONF version {release}\r\n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(REPLY_TIMEOUT)
            try:
                link.connect(str(self._directory / "out" / "redis.sock"))
                for words in (*about, "SYNC\r\n"):
                    link.sendall(words.encode())
                    reply = _line(link)
                    if reply != b"+OK":
                        break
            except OSError as problem:
                raise SandboxError(
                    f"the sandboxed server hands nothing back ({problem}): {self.last_words()}"
                ) from None
            if not re.fullmatch(rb"\$EOF:[0-9a-f]{40}", reply):
                raise SandboxError(f"the sandboxed server hands nothing back, it says {reply!r}")
            yield Transfer(link, reply[5:], self.last_words)
        # The child that handed it over would outlive a server that is stopped now.
        deadline = time.monotonic() + STOP_TIMEOUT
        while client.info("persistence").get("rdb_bgsave_in_progress") != "0":
            if time.monotonic() > deadline:
                raise SandboxError("the sandboxed server's child does not end")
            time.sleep(0.01)

    def _gone(self) -> bool:
        deadline = time.monotonic() + 2
        while alive(self._evidence):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def last_words(self) -> str:
        """The last lines of the server's log that say something, on one line."""
        try:
            lines = read_output(self._directory / "out" / "server.log", tail=True).splitlines()
        except OSError:
            return "it left no log"
        said = [line for line in lines if line.strip() and not _EXPECTED.search(line)]
        # What it logs as a warning names the cause; without one the end of the log may.
        warnings = [line.split(" # ", 1)[1] for line in said if " # " in line]
        limit = memory_limit(self._evidence) if self._evidence else None
        words = " / ".join(warnings[-3:] or said[-4:])[:600]
        return words + (f" (memory limit: {limit})" if limit else "")


def _line(link: socket.socket) -> bytes:
    """One line of the server, past the empty ones that keep a connection alive. Raises OSError."""
    line = b""
    while not line.endswith(b"\r\n"):
        byte = link.recv(1)
        if not byte or len(line) > 200:
            raise OSError(errno.EPROTO, "no answer of a server")
        line = (line + byte).lstrip(b"\n")
    return line[:-2]


class Transfer:
    """An RDB of unknown length on a connection, up to the mark that was announced."""

    def __init__(self, link: socket.socket, mark: bytes, last_words: Callable[[], str]) -> None:
        self._link = link
        self._mark = mark
        self._last_words = last_words
        self._held = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """About so many bytes, none at the end. Raises SandboxError when the server ends or falls
        silent before the mark.
        """
        parts = [self._held]
        have = len(self._held)
        while not self._ended and have < size + len(self._mark):
            try:
                data = self._link.recv(1 << 18)
            except OSError as problem:
                raise SandboxError(
                    f"the sandboxed server stopped handing its data back ({problem}):"
                    f" {self._last_words()}"
                ) from None
            if not data:
                raise SandboxError(
                    "the sandboxed server ended while it handed its data back:"
                    f" {self._last_words()}"
                )
            parts.append(data)
            have += len(data)
            # Redis itself finds the end in this way: nothing comes behind the mark.
            tail = data if len(data) >= len(self._mark) else b"".join(parts)
            self._ended = tail.endswith(self._mark)
        whole = b"".join(parts)
        self._held = b"" if self._ended else whole[-len(self._mark) :]
        return whole[: -len(self._mark)]


def _peer_pid(path: Path) -> int | None:
    """The process that listens on a unix socket, by the kernel's word; None when none does yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe_socket:
        probe_socket.settimeout(REPLY_TIMEOUT)
        try:
            probe_socket.connect(str(path))
        except OSError:
            return None
        raw = probe_socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid: int = struct.unpack("3i", raw)[0]
        return pid
