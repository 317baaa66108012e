"""Between the tracked inventory, which names hosts and groups, and the lab that stands for it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import files, image, names
from lab.shell import LabError, run
from lab.state import Lab

TRACKED = Path("inventories/lab")
_LINKED = ("hosts.yml", "group_vars", "host_vars")

# How the other hosts of the lab reach a host, by the group that it is in.
_ADDRESS_VARIABLES = {
    "redis": "redis_address",
    "backup_server": "redis_backup_server_address",
    "restore_drill": "redis_restore_drill_address",
}


def tracked_for(checkout: Path, name: str) -> Path:
    """The tracked inventory of a lab: that of its test where it brings one."""
    for beginning, place in names.TEST_LABS.items():
        own = Path(place.format(name.removeprefix(beginning)))
        if name.startswith(beginning) and (checkout / own).is_dir():
            return own
    return TRACKED


def hosts_and_groups(listing: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every host with all its groups, in the inventory's order, from `ansible-inventory --list`."""
    members: dict[str, list[str]] = {}

    def walk(group: str, above: tuple[str, ...]) -> None:
        path = (*above, group)
        entry = listing.get(group, {})
        for host in entry.get("hosts", []):
            members.setdefault(host, []).extend(g for g in path if g not in members.get(host, []))
        for child in entry.get("children", []):
            walk(child, path)

    walk("all", ())
    return members


@dataclass(frozen=True)
class Described:
    """What an inventory says of the hosts that it names: their groups, and the Debian of those with
    a `lab_suite`."""

    groups: dict[str, list[str]]
    suites: dict[str, str]


def chosen_suites(listing: Mapping[str, Any]) -> dict[str, str]:
    """Debian's release of each host that says which one it wants. Raises LabError for one that is
    not built here."""
    chosen = {}
    for host, variables in listing.get("_meta", {}).get("hostvars", {}).items():
        suite = variables.get("lab_suite")
        if suite is None:
            continue
        if suite not in image.SUITES:
            raise LabError(f"{host}: lab_suite is {suite!r}, it can be {', '.join(image.SUITES)}")
        chosen[host] = suite
    return chosen


def read(checkout: Path, tracked: Path) -> Described:
    """What an inventory's hosts.yml and the variables beside it say."""
    beside = checkout / ".venv" / "bin" / "ansible-inventory"
    program = str(beside) if beside.is_file() else shutil.which("ansible-inventory")
    if program is None:
        raise LabError("ansible-inventory is not installed: run `make venv`")
    listing = run(
        [program, "-i", str(checkout / tracked / "hosts.yml"), "--list"],
        env={**os.environ, "ANSIBLE_CONFIG": str(checkout / "ansible.cfg")},
        cwd=str(checkout),
    )
    found = json.loads(listing.stdout)
    return Described(hosts_and_groups(found), chosen_suites(found))


_CONNECT_SECONDS = 60


def generated(lab: Lab, groups: Mapping[str, list[str]]) -> str:
    """generated.yml: literals only, because testinfra and `molecule login` template nothing.

    Every scalar is written as JSON, which is YAML too and leaves no quoting to chance.
    """
    # The user's own ssh configuration, agent and known hosts have no say in a lab.
    ssh = (
        f"-F /dev/null -o IdentitiesOnly=yes -o 'UserKnownHostsFile=\"{lab.known_hosts}\"' "
        "-o GlobalKnownHostsFile=/dev/null"
        # testinfra goes by this one, Ansible by its own variable. A busy host answers late.
        f" -o ConnectTimeout={_CONNECT_SECONDS}"
    )
    common = {
        "ansible_host": "127.0.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(lab.key),
        "ansible_ssh_common_args": ssh,
        "ansible_ssh_timeout": _CONNECT_SECONDS,
        "redis_requirepass": lab.requirepass,
        # Containers have no loop devices. Memory is taken only for what lies there.
        "redis_backup_server_inbox_backing": "tmpfs",
        "redis_backup_inbox_size": 256 * 1024 * 1024,
    }
    lines = ["---", "# Written when the lab is made, removed with it. Not for editing.", "all:"]
    lines += ["  vars:", *(f"    {key}: {json.dumps(value)}" for key, value in common.items())]
    lines.append("  hosts:")
    for host, place in lab.places.items():
        own: dict[str, str | int] = {"ansible_port": place.port}
        for group, variable in _ADDRESS_VARIABLES.items():
            if group in groups.get(host, []):
                own[variable] = place.address
        lines.append(f"    {host}:")
        lines += [f"      {key}: {json.dumps(value)}" for key, value in own.items()]
    return "\n".join(lines) + "\n"


def write(lab: Lab, tracked: Path, groups: Mapping[str, list[str]]) -> None:
    """Make lab.inventory a complete inventory: links to what is tracked, and generated.yml."""
    lab.inventory.mkdir(parents=True, exist_ok=True)
    source = lab.checkout / tracked
    if lab.inventory != source:
        for name in _LINKED:
            link = lab.inventory / name
            link.unlink(missing_ok=True)
            if (source / name).exists():
                link.symlink_to(os.path.relpath(source / name, lab.inventory))
    files.write(lab.inventory / "generated.yml", generated(lab, groups), 0o600)


def remove_users(checkout: Path) -> None:
    """Remove from the default inventory what belongs to the user's lab, and nothing tracked:
    what write() made, and the passwords that the roles made up for its hosts.
    """
    (checkout / TRACKED / "generated.yml").unlink(missing_ok=True)
    shutil.rmtree(checkout / TRACKED / ".secrets", ignore_errors=True)
