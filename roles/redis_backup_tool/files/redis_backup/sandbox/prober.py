"""The prober: it looks around inside the sandbox, tells, and becomes the server.

The unit redis-backup-sandbox.service starts it (`python3 -m redis_backup.sandbox.prober`) as a user
of its own. Standard library alone: nothing else is promised in there.
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
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base.errors import ToolError
from .errors import SandboxError

# Where the unit sees `<work>/sandbox`; the unit file of the role binds it there.
INSIDE = Path("/run/redis-backup-sandbox")
# How long the prober waits for the word to go on. Seconds.
GO_TIMEOUT = 60.0

_NAMESPACES = ("mnt", "net", "user", "ipc")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# A version-1 cgroup without a limit shows the largest page-aligned 64-bit number.
_NO_LIMIT = 2**60


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


def start_time(pid: int) -> str:
    """The process's start in clock ticks since boot: with the pid it names one process for good."""
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text.rsplit(")", 1)[1].split()[19]


def gather(expected_memory: int) -> dict[str, Any]:
    """What can be seen and done from here. Run by the prober, inside."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    return {
        "pid": os.getpid(),
        "start_time": start_time(os.getpid()),
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


if __name__ == "__main__":
    sys.exit(probe())
