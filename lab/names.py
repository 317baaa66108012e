"""Where a lab lives: names, networks and ports that two labs never share.

Everything is derived from the checkout's path and the lab's name, so that it is the same at every
run and different for the next checkout. What is already taken on the machine is stepped over by the
callers: each function here yields candidates in a fixed order, or takes what is in use.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

USER_LAB = "lab"
# The lab of a Molecule scenario or of a file of tests/hosts is called after it. Behind each
# beginning of such a name: where the inventory is, if the test has one of its own.
TEST_LABS = {"molecule-": "molecule/{}/inventory", "hosts-": "tests/hosts/{}"}
PREFIX = "redis-lab"
CHECKOUT_LABEL = "redis-lab.checkout"
LAB_LABEL = "redis-lab.name"
SPEC_LABEL = "redis-lab.spec"

PORTS_PER_LAB = 20
_FIRST_PORT = 20000
_PORT_BLOCKS = 600  # up to 31999: below the range from which Linux takes outgoing ports
_FIRST_HOST_ADDRESS = 11

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


def check_name(name: str) -> str:
    """Return the lab's name, or raise ValueError when it cannot be part of a container's name."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a lab: lower-case letters, digits and hyphens, at most 40"
        )
    return name


def is_of_a_test(lab: str) -> bool:
    """Whether the lab is one that a test makes, and removes when it has ended."""
    return lab.startswith(tuple(TEST_LABS))


def checkout_id(checkout: Path) -> str:
    """Eight hex digits that stand for this checkout's path."""
    return hashlib.sha256(str(checkout).encode()).hexdigest()[:8]


def network_name(checkout: Path, lab: str) -> str:
    return f"{PREFIX}-{checkout_id(checkout)}-{lab}"


def container_name(checkout: Path, lab: str, host: str) -> str:
    return f"{network_name(checkout, lab)}-{host}"


def _number(checkout: Path, lab: str, purpose: str) -> int:
    text = f"{checkout}\0{lab}\0{purpose}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def subnets(checkout: Path, lab: str) -> Iterator[ipaddress.IPv4Network]:
    """Every /24 of 10.128.0.0/9, starting at this lab's own."""
    total = 1 << 15
    start = _number(checkout, lab, "subnet") % total
    base = int(ipaddress.IPv4Address("10.128.0.0"))
    for index in range(total):
        yield ipaddress.IPv4Network((base + (((start + index) % total) << 8), 24))


def free_subnets(
    checkout: Path, lab: str, taken: Iterable[ipaddress.IPv4Network]
) -> Iterator[ipaddress.IPv4Network]:
    """The candidates of subnets() that overlap with nothing in taken."""
    used = list(taken)
    return (s for s in subnets(checkout, lab) if not any(s.overlaps(u) for u in used))


def port_blocks(checkout: Path, lab: str) -> Iterator[range]:
    """Every block of loopback ports, starting at this lab's own."""
    start = _number(checkout, lab, "ports") % _PORT_BLOCKS
    for index in range(_PORT_BLOCKS):
        first = _FIRST_PORT + ((start + index) % _PORT_BLOCKS) * PORTS_PER_LAB
        yield range(first, first + PORTS_PER_LAB)


def assign(hosts: Sequence[str], before: dict[str, int]) -> dict[str, int]:
    """Give each host a number (0 and up) that it keeps while other hosts come and go.

    before is an earlier answer; hosts no longer wanted give their number back.
    """
    kept = {host: before[host] for host in hosts if host in before}
    free = (n for n in range(PORTS_PER_LAB) if n not in kept.values())
    numbers = {}
    for host in hosts:
        number = kept.get(host)
        if number is None:
            number = next(free, None)
        if number is None:
            raise ValueError(f"a lab has room for {PORTS_PER_LAB} hosts, not {len(hosts)}")
        numbers[host] = number
    return numbers


def address(subnet: ipaddress.IPv4Network, number: int) -> str:
    """The fixed address of host number N of a lab: .11 and up (.1 is the gateway)."""
    return str(subnet[_FIRST_HOST_ADDRESS + number])
