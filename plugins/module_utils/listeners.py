"""Who listens on a TCP port of this host, as the kernel tells it.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_LISTEN = "0A"  # as in enum of net/tcp_states.h
_UNIT = re.compile(r"/([^/]+\.(?:service|scope))(?:/|$)")


class Listener(NamedTuple):
    """A process that has a listening socket."""

    address: str
    pid: int
    name: str
    unit: str  # of systemd; empty where it is in none

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}{', ' + self.unit if self.unit else ''})"


def listening_inodes(table: Iterable[str], port: int) -> dict[int, str]:
    """The listening sockets of /proc/net/tcp or tcp6 on a port: inode and address."""
    found = {}
    for line in table:
        words = line.split()
        if len(words) < 10 or words[3] != _LISTEN:
            continue
        address, _, number = words[1].partition(":")
        if int(number, 16) == port:
            found[int(words[9])] = _address(address)
    return found


def _address(text: str) -> str:
    """Four bytes at a time, each group in the byte order of this machine (of which Debian has
    little-endian ones, s390x excepted)."""
    groups = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(groups)))


def unit_of(cgroups: str) -> str:
    """The unit in the text of /proc/PID/cgroup; empty where there is none."""
    for line in cgroups.splitlines():
        controllers, path = line.split(":", 2)[1:]
        found = _UNIT.findall(path) if controllers in ("", "name=systemd") else []
        if found:
            return str(found[-1])
    return ""


def listeners(port: int) -> list[Listener]:
    """Who listens on the port, on whatever address. Needs root to see all processes."""
    inodes: dict[int, str] = {}
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as table:
                inodes.update(listening_inodes(list(table)[1:], port))
        except FileNotFoundError:  # a kernel without IPv6
            continue
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc") if inodes else []):
        try:
            held = _held(pid, inodes)
            if held:
                name, unit = process_text(pid, "comm").strip(), unit_of(process_text(pid, "cgroup"))
                found.append(Listener(held, int(pid), name, unit))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is not ours to look at
    return sorted(found, key=lambda one: one.pid)


def strangers(port: int, unit: str) -> list[Listener]:
    """Who listens on a port that no process of the unit listens on; where systemd runs them, for
    else no process has a unit."""
    found = listeners(port)
    return [] if any(one.unit == unit for one in found) else [one for one in found if one.unit]


def _held(pid: str, inodes: dict[int, str]) -> str:
    """The address of the first of these sockets that the process has open."""
    for handle in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{handle}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:[") and int(target[8:-1]) in inodes:
            return inodes[int(target[8:-1])]
    return ""


def process_text(pid: str, name: str) -> str:
    """A file of /proc/PID as text. Raises OSError, as when the process has ended."""
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()
