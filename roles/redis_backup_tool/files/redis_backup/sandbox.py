"""The sandbox of a drill: its server's configuration and confinement, and the talk with it.

A backup is untrusted input. So the server that loads it runs in a unit of its own, and proves its
confinement before it sees a byte of data:

1. the tool puts `redis.conf`, `dump.rdb` and `order.json` into `<work>/sandbox/in`, which the unit
   sees read-only;
2. the unit starts this module (`python3 -m redis_backup.sandbox`, the prober). It looks around from
   the inside, writes `evidence.json` into `<work>/sandbox/out`, the only place where the unit may
   write, and waits;
3. the tool compares the evidence with its own surroundings (`missing_confinement`, pure) and only
   then creates `in/go`;
4. the prober becomes the server in the same process, so what was proven holds for the server too;
   the tool checks that the process that answers on the socket is the one that gave the evidence.

`<work>` is open to the tool's user alone, so nobody else reaches socket or data. The prober needs
the standard library alone; the client (`Client`) needs python3-redis.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import mmap
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .errors import ToolError

# Where the unit sees `<work>/sandbox`; the unit file of the role binds it there.
INSIDE = Path("/run/redis-backup-sandbox")
SANDBOX_ENFORCED = "enforced"
SANDBOX_NONE = "none"
# What the prober may take to look around, and how long it waits for the word to go on. Seconds.
EVIDENCE_TIMEOUT = 30.0
GO_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
CONNECT_TIMEOUT = 30.0
# A server that loads answers between chunks of the file; a longer silence is a hang. Seconds.
REPLY_TIMEOUT = 60.0

_MAX_OUTPUT_FILE = 64 * 1024
_NAMESPACES = ("mnt", "net", "user", "ipc")
# What every server logs, and every second a replica of nowhere.
_EXPECTED = re.compile(
    "MASTER|Redis is starting|Valkey is starting|(Redis|Valkey) version=|Configuration loaded"
    "|Server initialized|overcommit_memory|Transparent Huge Pages|TCP backlog"
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# A version-1 cgroup without a limit shows the largest page-aligned 64-bit number.
_NO_LIMIT = 2**60


class SandboxError(ToolError):
    """The sandboxed server could not be started, or kept alive."""


class NotConfinedError(ToolError):
    """The sandboxed server is not confined as it must be; `state` is what a report says of it."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


# --- configuration of the server ------------------------------------------------------------------


def server_config(*, directory: Path, databases: int, engine: str, release: tuple[int, int]) -> str:
    """redis.conf of a server that loads `in/dump.rdb` as a replica of nowhere: nothing expires.

    `directory` is the sandbox's directory as the server sees it. Options that a release does not
    know are left out.
    """
    lines = [
        "port 0",
        f"unixsocket {directory}/out/redis.sock",
        # Who may connect is decided by the directory above, which is open to the tool's user alone.
        "unixsocketperm 777",
        "daemonize no",
        "supervised no",
        f"dir {directory}/in",
        "dbfilename dump.rdb",
        f"logfile {directory}/out/server.log",
        "loglevel notice",
        f"databases {max(16, databases)}",
        'save ""',
        "appendonly no",
        "rdbchecksum yes",
        "maxmemory 0",
        "maxmemory-policy noeviction",
        "replicaof 127.0.0.1 1",
        "replica-serve-stale-data yes",
        "replica-read-only yes",
        "cluster-enabled no",
        "aof-load-truncated no",
        "always-show-logo no",
        # How it hands its data back (`saved_again`): at once, streamed, without work for nothing.
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        "repl-timeout 3600",
        "rdbcompression no",
    ]
    if engine == "valkey" or release >= (6, 2):
        lines.append("sanitize-dump-payload yes")
    if engine == "valkey" or release >= (7, 0):
        lines.append("enable-debug-command local")
    return "\n".join(lines) + "\n"


_VERSION_LINE = re.compile(r"(Redis|Valkey) server v=([0-9]+)\.([0-9]+)[0-9A-Za-z.+~-]*", re.I)


def server_version(binary: str) -> tuple[str, tuple[int, int]]:
    """Engine and (major, minor) of an installed server, by its own word. Raises SandboxError."""
    try:
        done = subprocess.run(
            [binary, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise SandboxError(
            f"{binary} --version does not run ({problem}); install the server on the drill host"
        ) from None
    found = _VERSION_LINE.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise SandboxError(
            f"{binary} --version says {done.stdout.strip()[:100]!r}, no known server"
        )
    return found.group(1).lower(), (int(found.group(2)), int(found.group(3)))


# --- the prober, inside ---------------------------------------------------------------------------


def parse_memory(text: str, total: int) -> int:
    """Bytes of a systemd memory setting (`1G`, `75%` of `total`). Raises SandboxError."""
    found = re.fullmatch(r"([0-9]+)([KMGT%]?)", text.strip())
    value = int(found.group(1)) if found else 0
    if found is None or value == 0 or (found.group(2) == "%" and value > 100):
        raise SandboxError(f"memory limit {text!r} is neither bytes (K, M, G, T) nor 1% to 100%")
    if found.group(2) == "%":
        return total * value // 100
    return value * _UNITS[found.group(2)]


def memory_total() -> int:
    """Bytes of physical memory that the kernel has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def namespaces() -> dict[str, str]:
    """The namespaces of this process, such as ``{"net": "net:[4026531840]"}``."""
    found = {}
    for name in _NAMESPACES:
        with contextlib.suppress(OSError):
            found[name] = str(Path(f"/proc/self/ns/{name}").readlink())
    return found


def _attempt(action: Callable[[], None]) -> str:
    """`done`, or the name of the error that the kernel answered with."""
    try:
        action()
    except OSError as problem:
        return errno.errorcode.get(problem.errno or 0, str(problem))
    return "done"


def _try_write(directory: str) -> str:
    path = f"{directory}/.redis-backup-sandbox-{os.getpid()}"

    def write() -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        Path(path).unlink()

    return _attempt(write)


def _try_network(family: int) -> str:
    def connect() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # A datagram socket that connects sends nothing: the kernel only looks for a route.
            address = ("192.0.2.1", 9) if family == socket.AF_INET else ("2001:db8::1", 9)
            probe.connect(address)

    return _attempt(connect)


def _interfaces() -> list[str]:
    try:
        lines = Path("/proc/self/net/dev").read_text("utf-8").splitlines()[2:]
    except OSError:
        return []
    return sorted(line.split(":", 1)[0].strip() for line in lines if ":" in line)


def _status() -> dict[str, str]:
    wanted = ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")
    found = {}
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            found[name] = value.strip()
    return found


def cgroup_limit(own: str, root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The smallest memory limit (bytes) from a process's cgroup upwards, None without one.

    `own` is the text of /proc/self/cgroup; versions 1 and 2 and both together are read.
    """
    candidates = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            candidates += [(root, path, "memory.max"), (root / "unified", path, "memory.max")]
        elif "memory" in controllers.split(","):
            candidates.append((root / "memory", path, "memory.limit_in_bytes"))
    limits = []
    for base, path, name in candidates:
        where = base / path.lstrip("/")
        while True:
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((where / name).read_text("ascii")))
            if where == base or base not in where.parents:
                break
            where = where.parent
    real = [limit for limit in limits if limit < _NO_LIMIT]
    return min(real) if real else None


def _allocation_refused(size: int) -> bool:
    """Whether the kernel refuses this much address space; what is not touched uses nothing."""
    try:
        mmap.mmap(-1, size).close()
    except (OSError, MemoryError, OverflowError, ValueError):
        return True
    return False


def _start_time(pid: int) -> str:
    """The process's start in clock ticks since boot: with the pid it names one process for good."""
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text.rsplit(")", 1)[1].split()[19]


def gather(expected_memory: int) -> dict[str, Any]:
    """What can be seen and done from here. Run by the prober, inside."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    return {
        "pid": os.getpid(),
        "start_time": _start_time(os.getpid()),
        "uid": os.getuid(),
        "uids": list(os.getresuid()),
        "namespaces": namespaces(),
        "interfaces": _interfaces(),
        "write": {directory: _try_write(directory) for directory in ("/etc", "/usr", "/var")},
        "network": {
            "inet": _try_network(socket.AF_INET),
            "inet6": _try_network(socket.AF_INET6),
        },
        "status": _status(),
        "memory": {
            "expected": expected_memory,
            "cgroup": cgroup_limit(Path("/proc/self/cgroup").read_text("utf-8")),
            "address_space": None if limit == resource.RLIM_INFINITY else limit,
            "allocation_refused": _allocation_refused(expected_memory),
        },
    }


def probe(arguments: Sequence[str] | None = None) -> int:
    """Look around, tell, wait for the word, become the server. Returns only after a failure."""
    parser = argparse.ArgumentParser(
        description="Prove the sandbox from inside, then start the server."
    )
    parser.add_argument("--directory", type=Path, default=INSIDE)
    parser.add_argument("--memory-max", default="75%")
    options = parser.parse_args(arguments)
    out = options.directory / "out"
    try:
        order = json.loads((options.directory / "in" / "order.json").read_text("utf-8"))
        limit = parse_memory(options.memory_max, memory_total())
        # In force also where the unit has no memory controller and its MemoryMax means nothing.
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        evidence = {**gather(limit), "nonce": order["nonce"]}
        partial = out / "evidence.json.part"
        partial.write_text(json.dumps(evidence), "utf-8")
        partial.rename(out / "evidence.json")
        deadline = time.monotonic() + GO_TIMEOUT
        while not (options.directory / "in" / "go").exists():
            if time.monotonic() > deadline:
                raise SandboxError(f"nobody said go within {GO_TIMEOUT:g} s")
            time.sleep(0.01)
        # What a server complains of before it knows its log file belongs there as well.
        words = os.open(out / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(words, 1)
        os.dup2(words, 2)
        os.execv(  # noqa: S606 - becoming the server is the point: same process, same sandbox
            order["server"], [order["server"], str(options.directory / "in" / "redis.conf")]
        )
    except (OSError, ValueError, KeyError, ToolError) as problem:
        message = f"sandbox prober: {problem}\n"
        sys.stderr.write(message)
        with contextlib.suppress(OSError):
            (out / "server.log").write_text(message, "utf-8")
    return 1


# --- judging the evidence, outside ----------------------------------------------------------------


def missing_confinement(
    evidence: Mapping[str, Any], own_uid: int, own_namespaces: Mapping[str, str]
) -> list[str]:
    """What a confined server would have and this one has not; empty when it is confined."""
    missing = []
    seen = evidence["namespaces"]
    if seen.get("net") in (None, own_namespaces.get("net")):
        missing.append("a network of its own")
    elif set(evidence["interfaces"]) - {"lo"}:
        missing.append(f"a network without interfaces (it has {', '.join(evidence['interfaces'])})")
    # EAFNOSUPPORT: such sockets are forbidden; ENETUNREACH: there is no way out.
    opened = [
        family
        for family, outcome in evidence["network"].items()
        if outcome not in ("EAFNOSUPPORT", "EPERM", "ENETUNREACH")
    ]
    if opened:
        missing.append(f"no way out by {', '.join(opened)}")
    if seen.get("mnt") in (None, own_namespaces.get("mnt")):
        missing.append("a view of the file system of its own")
    # Any other refusal is one of permissions, not of a file system that is read-only.
    writable = [where for where, outcome in evidence["write"].items() if outcome != "EROFS"]
    if writable:
        missing.append(f"a read-only {', '.join(writable)}")
    uids = set(evidence["uids"])
    if 0 in uids or own_uid in uids:
        missing.append("a user of its own")
    status = evidence["status"]
    if status.get("NoNewPrivs") != "1":
        missing.append("no new privileges")
    if status.get("Seccomp") != "2":
        missing.append("a system call filter")
    if int(status.get("CapEff", "1"), 16) != 0 or int(status.get("CapBnd", "1"), 16) != 0:
        missing.append("no capabilities")
    if memory_limit(evidence) is None:
        missing.append("a memory limit")
    return missing


def memory_limit(evidence: Mapping[str, Any]) -> str | None:
    """The memory limit that is truly in force, in words; None when none is."""
    memory = evidence["memory"]
    expected = memory["expected"]
    if memory["cgroup"] is not None and memory["cgroup"] <= expected:
        return f"{_mebibytes(memory['cgroup'])} by cgroup"
    space = memory["address_space"]
    if space is not None and space <= expected and memory["allocation_refused"]:
        return f"{_mebibytes(space)} by address space"
    return None


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"


# --- starting and stopping, outside ---------------------------------------------------------------


class Launcher(Protocol):
    """How the prober is started. `inside` is the sandbox's directory as it sees it."""

    confined: bool
    inside: Path

    def start(self) -> None:
        """Start the prober; raises SandboxError with the reason."""

    def ended(self) -> bool:
        """Whether what was started is known to have ended."""

    def stop(self) -> None:
        """Stop whatever runs, also what a killed drill left; raises SandboxError."""


class UnitLauncher(Launcher):
    """The confined systemd unit. Sudo allows the tool's user exactly these two commands."""

    confined = True
    inside = INSIDE

    def __init__(self, unit: str) -> None:
        self._unit = unit

    def start(self) -> None:
        self._systemctl("start", EVIDENCE_TIMEOUT)

    def ended(self) -> bool:
        # Asked without sudo; where systemd does not tell (no D-Bus), it is not known.
        command = ["/bin/systemctl", "is-active", self._unit]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, timeout=5.0, check=False)
            return done.stdout.strip() in ("inactive", "failed")
        return False

    def stop(self) -> None:
        self._systemctl("stop", 90.0)

    def _systemctl(self, verb: str, timeout: float) -> None:
        # By its old path, which every Debian has: sudo allows exactly this one.
        command = ["sudo", "-n", "/bin/systemctl", verb, self._unit]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as problem:
            raise SandboxError(f"{' '.join(command)}: {problem}") from None
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:300]
            raise SandboxError(
                f"{' '.join(command)} failed: {said or done.returncode};"
                " deploy the drill host again"
            )


class ProcessLauncher(Launcher):
    """A plain child process, for hosts without systemd and for tests: nothing is confined."""

    confined = False

    def __init__(self, directory: Path, memory_max: str = "75%") -> None:
        self.inside = directory
        self._memory_max = memory_max
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        package_parent = Path(__file__).resolve().parent.parent
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "redis_backup.sandbox",
                f"--directory={self.inside}",
                f"--memory-max={self._memory_max}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": str(package_parent)},
            # Python looks for modules in the working directory first, and that may be anybody's.
            cwd="/",
            # A group of its own: what it forks ends with it.
            start_new_session=True,
        )

    def ended(self) -> bool:
        return self._child is not None and self._child.poll() is not None

    def stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(STOP_TIMEOUT)
            return
        # What an earlier drill left, if it is still that very process.
        with contextlib.suppress(ToolError, OSError, KeyError, ValueError, IndexError):
            left = json.loads(_read_output(self.inside / "out" / "evidence.json"))
            if _start_time(left["pid"]) == left["start_time"]:
                os.kill(left["pid"], signal.SIGKILL)
                deadline = time.monotonic() + STOP_TIMEOUT
                while _alive(left) and time.monotonic() < deadline:
                    time.sleep(0.02)


def _alive(evidence: Mapping[str, Any]) -> bool:
    """Whether the process that gave this evidence is still there (a zombie is not)."""
    try:
        text = Path(f"/proc/{evidence['pid']}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    fields = text.rsplit(")", 1)[1].split()
    return fields[0] not in "ZX" and fields[19] == evidence["start_time"]


def _read_output(path: Path, tail: bool = False) -> str:
    """A file that the sandboxed server may have written: no link, no other kind, never much.

    It runs on data that nobody vouches for; what it leaves must not lead the tool to other files.
    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if tail:
            file.seek(max(0, status.st_size - _MAX_OUTPUT_FILE))
        return file.read(_MAX_OUTPUT_FILE).decode("utf-8", "replace")


# --- the server, outside --------------------------------------------------------------------------


@dataclass(frozen=True)
class Confinement:
    """How the server was confined: `state` as a report says it, `details` for people."""

    state: str
    details: str

    @property
    def enforced(self) -> bool:
        """Whether every confinement was seen in force."""
        return self.state == SANDBOX_ENFORCED


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
                evidence = json.loads(_read_output(self._directory / "out" / "evidence.json"))
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
            if not _alive(self._evidence) or time.monotonic() > deadline:
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

    @contextlib.contextmanager
    def saved_again(self, client: Client) -> Iterator[Transfer]:
        """All that the server holds, as the RDB that it saves for a replica: nothing is written.

        Only a master serves replicas, so it becomes one here, with the expiry of keys switched off
        before: it still holds what it has loaded. Raises SandboxError, also while it is read.
        """
        client.call("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        client.call("REPLICAOF", "NO", "ONE")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(REPLY_TIMEOUT)
            try:
                link.connect(str(self._directory / "out" / "redis.sock"))
                link.sendall(b"REPLCONF capa eof\r\n")
                reply = _line(link)
                if reply == b"+OK":
                    link.sendall(b"SYNC\r\n")
                    reply = _line(link)
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
        while _alive(self._evidence):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def last_words(self) -> str:
        """The last lines of the server's log that say something, on one line."""
        try:
            lines = _read_output(self._directory / "out" / "server.log", tail=True).splitlines()
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


class ServerSaidError(ToolError):
    """An error reply, in the server's words."""


class Client:
    """Raw replies, by python3-redis's connection class: its client class would reshape them."""

    def __init__(self, path: Path) -> None:
        try:
            import redis  # the prober must run without it
        except ModuleNotFoundError as problem:
            raise SandboxError(
                f"the Python module {problem.name} is missing: apt-get install python3-redis"
            ) from None

        self._redis = redis
        # Typed only in some of the versions that the supported systems have.
        connect: Any = redis.connection.UnixDomainSocketConnection
        self._connection: Any = connect(path=str(path), socket_timeout=REPLY_TIMEOUT)

    def call(self, *words: str) -> object:
        """One command. Raises ServerSaidError for an error reply, SandboxError without a reply."""
        try:
            self._connection.send_command(*words)
            reply: object = self._connection.read_response()
        except self._redis.exceptions.ResponseError as problem:
            raise ServerSaidError(str(problem)) from None
        except (self._redis.exceptions.RedisError, OSError) as problem:
            self._connection.disconnect()
            raise SandboxError(f"the sandboxed server does not answer: {problem}") from None
        return reply

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO, values as text."""
        reply = self.call("INFO", section)
        text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
        pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
        return {name: value for name, colon, value in pairs if colon}

    def keyspace(self) -> dict[int, tuple[int, int]]:
        """Keys and expires per database, from INFO keyspace."""
        counts = {}
        for name, value in self.info("keyspace").items():
            if re.fullmatch(r"db[0-9]+", name):
                found = re.match(r"keys=([0-9]+),expires=([0-9]+)(,|$)", value)
                if found is None:
                    raise SandboxError(
                        f"the sandboxed server's INFO keyspace is odd: {value[:80]!r}"
                    )
                counts[int(name[2:])] = (int(found.group(1)), int(found.group(2)))
        return counts

    def close(self) -> None:
        """Close the connection; never raises."""
        with contextlib.suppress(Exception):
            self._connection.disconnect()


if __name__ == "__main__":
    sys.exit(probe())
