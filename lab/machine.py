"""What this machine brings: Debian packages, apt's settings, networks and ports in use."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import platform
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from lab.shell import LabError, run, step

ENGINE_PACKAGES = (
    "podman",
    "runc",
    "netavark",
    "aardvark-dns",
    "iptables",
    "nftables",
    "mmdebstrap",
)
TOOL_PACKAGES = {"ssh": "openssh-client", "ssh-keygen": "openssh-client"}
TEST_PACKAGES = {"rsync": "rsync", "zstd": "zstd"}
BENCH_PACKAGES = {**TEST_PACKAGES, "restic": "restic"}
# Counted on Debian 12: systemd 5, dbus 1, logind 1, a login's own systemd 3.
INOTIFY_PER_HOST = 9

_NEUTRAL_MIRRORS = {
    "Debian": "http://deb.debian.org/debian",
    "Debian-Security": "http://deb.debian.org/debian-security",
}
_ACQUIRE = re.compile(
    r"Acquire::("
    r"(http|https)::(Proxy|Timeout|Pipeline-Depth|No-Cache|Verify-Peer|Verify-Host)(::\S+)?"
    r"|Check-Valid-Until|Check-Date|Max-ValidTime|Min-ValidTime|Retries|ForceIPv4|ForceIPv6"
    r")"
)


_installing = threading.Lock()


@dataclass(frozen=True)
class AptSettings:
    """How this machine gets its Debian packages; the lab's hosts do the same.

    sources: lines for sources.list; options: lines for apt.conf; ca_bundle: the certificates that
    this machine trusts, where packages come by https.
    """

    sources: str
    options: str
    ca_bundle: bytes | None


def is_debian() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return "debian" in f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".split()


def can_install() -> bool:
    return is_debian() and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_get(*arguments: str, patience: float = 300) -> CompletedProcess[str]:
    """Run apt-get without a check of its status; no service is started by it.

    A machine that has just booted updates itself: patience (seconds) is how long to wait for locks.
    """
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "LC_ALL": "C"}
    argv = ["apt-get", f"-oDPkg::Lock::Timeout={patience:.0f}", *arguments]
    give_up = time.monotonic() + patience
    while True:
        done = run(argv, env=env, timeout=1200 + patience, check=False)
        # apt itself waits for dpkg's locks alone, not for those of its lists and archives.
        locked = done.returncode != 0 and "Could not get lock" in done.stderr
        if not locked or time.monotonic() > give_up:
            return done
        time.sleep(1)


def install(packages: Iterable[str]) -> None:
    """Install Debian packages without starting any of their services."""
    wanted = sorted(set(packages))
    with _installing, step("machine", f"installing {' '.join(wanted)}"):
        # A broken third-party source fails this and need not concern us; the next command decides.
        updated = apt_get("update", "-q")
        done = apt_get("install", "-q", "-y", "--no-install-recommends", *wanted)
        if done.returncode != 0:
            before = f"\napt-get update, before it, said:\n{_last_words(updated)}"
            raise LabError(
                f"apt-get install {' '.join(wanted)} failed:\n{_last_words(done)}"
                + (before if updated.stderr.strip() else "")
            )


def _last_words(done: CompletedProcess[str]) -> str:
    return "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-12:])


def ensure_tools(tools: Mapping[str, str]) -> None:
    """See to it that these programs (name: Debian package) are on PATH, or say what to install."""
    missing = {tool: package for tool, package in tools.items() if shutil.which(tool) is None}
    if not missing:
        return
    if not can_install():
        names = " ".join(sorted(set(missing.values())))
        raise LabError(
            f"{', '.join(sorted(missing))} not found: install {names} and run this again"
        )
    install(missing.values())


def parse_indextargets(text: str) -> dict[str, str]:
    """The mirror of each Debian archive, from lines 'LABEL|ORIGIN|URI' of apt-get indextargets.

    Before the first `apt-get update` apt knows no labels; then the end of the URI decides.
    """
    mirrors: dict[str, str] = {}
    for line in text.splitlines():
        label, origin, uri = line.split("|", 2)
        uri = uri.rstrip("/")
        if not origin:
            tail = uri.rsplit("/", 1)[-1]
            label = {"debian": "Debian", "debian-security": "Debian-Security"}.get(tail, "")
        elif origin != "Debian":
            continue
        if label in _NEUTRAL_MIRRORS:
            mirrors.setdefault(label, uri)
    return mirrors


def sources_list(suite: str, mirrors: Mapping[str, str]) -> str:
    """sources.list for a Debian suite; archives without a mirror of their own use Debian's."""
    debian = mirrors.get("Debian", _NEUTRAL_MIRRORS["Debian"])
    security = mirrors.get("Debian-Security", _NEUTRAL_MIRRORS["Debian-Security"])
    return (
        f"deb {debian} {suite} main\n"
        f"deb {debian} {suite}-updates main\n"
        f"deb {security} {suite}-security main\n"
    )


def acquire_options(dump: str, environ: Mapping[str, str]) -> str:
    """Those lines of `apt-config dump` that say how to reach a mirror, proxies of the shell too."""
    lines = [
        line for line in dump.splitlines() if _ACQUIRE.match(line) and not line.endswith('"";')
    ]
    for scheme in ("http", "https"):
        proxy = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        key = f"Acquire::{scheme}::Proxy "
        if proxy and not any(line.startswith(key) for line in lines):
            lines.append(f'{key}"{proxy}";')
    return "".join(f"{line}\n" for line in lines)


def apt_settings(suite: str) -> AptSettings:
    """This machine's apt settings for a suite; Debian's own mirrors where it has no apt."""
    mirrors: dict[str, str] = {}
    dump = ""
    if is_debian() and shutil.which("apt-get"):
        listing = run(
            [
                "apt-get",
                "indextargets",
                "--format",
                "$(LABEL)|$(ORIGIN)|$(REPO_URI)",
                "Created-By: Packages",
            ],
            check=False,
        )
        mirrors = parse_indextargets(listing.stdout)
        dump = run(["apt-config", "dump"]).stdout
    sources = sources_list(suite, mirrors)
    options = acquire_options(dump, os.environ)
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    by_https = "https:" in sources or "https:" in options
    ca_bundle = bundle.read_bytes() if by_https and bundle.is_file() else None
    return AptSettings(sources, options, ca_bundle)


def parse_routes(text: str) -> list[ipaddress.IPv4Network]:
    """The networks of /proc/net/route, without the default route."""
    networks = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        destination, mask = (int(fields[n], 16).to_bytes(4, "little") for n in (1, 7))
        network = ipaddress.IPv4Network(
            (int.from_bytes(destination, "big"), bin(int.from_bytes(mask, "big")).count("1"))
        )
        if network.prefixlen > 0:
            networks.append(network)
    return networks


def routed_networks() -> list[ipaddress.IPv4Network]:
    """What this machine has routes to; empty where there is no /proc."""
    table = Path("/proc/net/route")
    return parse_routes(table.read_text()) if table.is_file() else []


def check_inotify(hosts: int) -> None:
    """Raise LabError when the kernel has no room for systemd in so many more hosts.

    systemd cannot boot without inotify instances, of which a user has 128 unless told otherwise.
    """
    if not sys.platform.startswith("linux"):
        return
    needed = hosts * INOTIFY_PER_HOST
    libc = ctypes.CDLL(None)
    taken: list[int] = []
    try:
        while len(taken) < needed:
            descriptor = libc.inotify_init1(os.O_CLOEXEC)
            if descriptor < 0:
                break
            taken.append(descriptor)
    finally:
        for descriptor in taken:
            os.close(descriptor)
    if len(taken) < needed:
        raise LabError(
            f"{hosts} more hosts need about {needed} inotify instances and {len(taken)} are left: "
            "remove a lab (python3 -m lab list; python3 -m lab destroy NAME) or raise the limit "
            "(sysctl fs.inotify.max_user_instances=1024)"
        )


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
