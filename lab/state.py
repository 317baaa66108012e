"""What is known of a lab between runs: its addresses, ports, key and secrets."""

from __future__ import annotations

import ipaddress
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import files, names


@dataclass(frozen=True)
class Place:
    """Where one host of a lab is: its number, fixed address and ssh port on loopback; and which
    Debian it has."""

    number: int
    address: str
    port: int
    suite: str = "bookworm"


@dataclass(frozen=True)
class Lab:
    """One lab of one checkout.

    places is in the inventory's order; requirepass is Redis's password in this lab; engines are
    the container engines that may hold its hosts, such as ``("podman",)``.
    """

    checkout: Path
    name: str
    subnet: ipaddress.IPv4Network
    ports: range
    places: dict[str, Place]
    requirepass: str
    engines: tuple[str, ...] = ()

    @property
    def directory(self) -> Path:
        return self.checkout / ".labs" / self.name

    @property
    def network(self) -> str:
        return names.network_name(self.checkout, self.name)

    @property
    def inventory(self) -> Path:
        """The inventory to give to Ansible. The user's lab is the project's default inventory."""
        if self.name == names.USER_LAB:
            return self.checkout / "inventories" / "lab"
        return self.directory / "inventory"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def container(self, host: str) -> str:
        return names.container_name(self.checkout, self.name, host)


def new_password() -> str:
    """A password that only survives if everything on its way quotes it."""
    one, two, three = (secrets.token_hex(8) for _ in range(3))
    return f"{one} \"{two}'#{three}"


def plan(
    checkout: Path,
    name: str,
    hosts: Sequence[str],
    before: Lab | None,
    taken: Iterable[ipaddress.IPv4Network],
    port_is_free: Callable[[int], bool],
    suites: Mapping[str, str] | None = None,
) -> Lab:
    """Settle a lab's places: those it had, or free ones. suites has the Debian of the hosts that
    are to have a certain one.

    Raises ValueError when there are too many hosts or nothing is free.
    """
    if before is None:
        subnet = next(names.free_subnets(checkout, name, taken), None)
        blocks = names.port_blocks(checkout, name)
        ports = next((b for b in blocks if all(port_is_free(p) for p in b)), None)
        if subnet is None or ports is None:
            raise ValueError("no free network or no free block of loopback ports on this machine")
        requirepass, numbers = new_password(), names.assign(hosts, {})
    else:
        subnet, ports, requirepass = before.subnet, before.ports, before.requirepass
        numbers = names.assign(hosts, {host: place.number for host, place in before.places.items()})

    def suite_of(host: str) -> dict[str, str]:
        return {"suite": suites[host]} if suites and host in suites else {}

    places = {
        host: Place(number, names.address(subnet, number), ports[number], **suite_of(host))
        for host, number in numbers.items()
    }
    engines = before.engines if before else ()
    return Lab(checkout, name, subnet, ports, places, requirepass, engines)


def load(checkout: Path, name: str) -> Lab | None:
    """The lab as an earlier run left it; None when there is none or its record cannot be read."""
    try:
        stored = json.loads((checkout / ".labs" / name / "state.json").read_text())
        return Lab(
            checkout,
            name,
            ipaddress.IPv4Network(stored["subnet"]),
            range(stored["first_port"], stored["first_port"] + names.PORTS_PER_LAB),
            {host: Place(**place) for host, place in stored["places"].items()},
            stored["requirepass"],
            tuple(stored.get("engines", ())),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(lab: Lab) -> None:
    stored = {
        "subnet": str(lab.subnet),
        "first_port": lab.ports.start,
        "places": {host: asdict(place) for host, place in lab.places.items()},
        "requirepass": lab.requirepass,
        "engines": list(lab.engines),
    }
    files.write(lab.directory / "state.json", json.dumps(stored, indent=1) + "\n", 0o600)


def known_labs(checkout: Path) -> list[str]:
    """The names of all labs that this checkout has a record of."""
    return sorted(path.parent.name for path in (checkout / ".labs").glob("*/state.json"))
