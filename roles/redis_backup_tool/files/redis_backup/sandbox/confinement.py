"""Judging what the prober saw: whether the sandbox is one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SANDBOX_ENFORCED = "enforced"
SANDBOX_NONE = "none"


@dataclass(frozen=True)
class Confinement:
    """How the server was confined: `state` as a report says it, `details` for people."""

    state: str
    details: str

    @property
    def enforced(self) -> bool:
        """Whether every confinement was seen in force."""
        return self.state == SANDBOX_ENFORCED


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
