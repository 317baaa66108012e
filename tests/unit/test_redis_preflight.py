"""What the role redis refuses by the inventory alone: its playbook, run while no host is up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.live import Play, play_against

# Nothing listens on port 1: a host that is asked at all is seen to be unreachable.
INVENTORY = """\
redis:
  vars: {ansible_host: 127.0.0.1, ansible_port: 1, redis_requirepass: of-twelve-or-more}
  children: {redis_master: {hosts: {redis-1: }}}
"""


def deploy(directory: Path, variable: str, **more_hosts: dict[str, Any]) -> Play:
    inventory = yaml.safe_load(INVENTORY)
    inventory["redis"]["hosts"] = more_hosts
    (directory / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
    hosts = str(directory / "hosts.yml")
    return play_against(hosts, "playbooks/deploy_redis.yml", "-e", variable)


@pytest.mark.parametrize("hidden", ["/home", "/root/redis", "/tmp/redis/", "/var/../var/tmp/redis"])
def test_data_is_not_put_where_the_unit_hides_it(tmp_path: Path, hidden: str) -> None:
    run = deploy(tmp_path, f"redis_dir={hidden}")
    assert "UNREACHABLE" not in run.output
    assert "which Debian's unit hides from the server" in " ".join(run.output.split()), run.output


def plain(text: str) -> str:
    """Without what a terminal, JSON and Ansible's own log do to a text."""
    return " ".join(text.replace("\\", "").split())


CANNOT_WORK = [
    *("data", "", "~/redis", "/srv/$HOME", "/srv/redis\n", "/srv/\tredis", '/a"b', "/a\\b")
]
OF_THE_SYSTEM = [
    *("/", "//", "/srv", "/srv/", "/mnt/../mnt", "/etc/redis", "/usr/share/x", "/var/lib")
]


def test_paths_that_cannot_be_a_data_directory_are_refused(tmp_path: Path) -> None:
    """A host for each, all in one run."""
    paths = [*CANNOT_WORK, *OF_THE_SYSTEM]
    hosts = {f"host-{number}": {"redis_dir": path} for number, path in enumerate(paths)}
    run = deploy(tmp_path, "redis_port=6379", **hosts)
    assert "host-0]: UNREACHABLE" not in run.output
    for number, path in enumerate(CANNOT_WORK):
        wanted = rf"host-{number}: redis_dir [^:]*must be an absolute path, such as "
        assert re.search(wanted, plain(run.output)), path
    for path in OF_THE_SYSTEM:
        wanted = f"redis_dir (here {path}) is given to the server's account"
        assert wanted in plain(run.output), path


def test_other_directories_will_do(tmp_path: Path) -> None:
    paths = ["/homes/tmp", "/srv/redis data é 100%", "/data", "/var/lib/x/"]
    hosts = {f"host-{number}": {"redis_dir": path} for number, path in enumerate(paths)}
    run = deploy(tmp_path, "redis_port=6379", **hosts)
    for number in range(len(paths)):
        assert f"host-{number}]: UNREACHABLE" in run.output, run.output


def test_consent_for_a_host_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = deploy(tmp_path, json.dumps({"redis_accept": ["redis-9:maxmemory:10-keys"]}))
    assert "UNREACHABLE" not in run.output
    assert "redis_accept has entries for redis-9" in " ".join(run.output.split()), run.output


ADMIN = "of-twelve-or-more"  # redis_requirepass of the inventory
COPY = {"name": "copy", "preset": "replication", "password": "of-replicas-alone"}
SHOP = {"name": "shop", "rules": ["~*", "+@all"], "password": "of-the-shop-alone"}
OLD = {"previous_password": "of-years-gone-by"}
UNKNOWN, NOT_THEIRS = "and no server lets that in", "with a password that is not that user's"
REPLICAS_LOGINS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"redis_masteruser": ""}, ""),
    ({"redis_masteruser": None, "redis_masterauth": None}, ""),
    ({"redis_masteruser": "default"}, ""),
    ({"redis_masterauth": ADMIN}, ""),
    ({"redis_masterauth": "of-years-gone-by", "redis_previous_password": "of-years-gone-by"}, ""),
    ({"redis_requirepass": 123456789012, "redis_masterauth": 123456789012}, ""),
    ({"redis_admin_user": "operator"}, ""),
    ({"redis_acl_users": [SHOP]}, ""),
    ({"redis_acl_users": [COPY]}, ""),
    ({"redis_acl_users": [{**COPY, **OLD}], "redis_masterauth": "of-years-gone-by"}, ""),
    (
        {
            "redis_acl_users": [SHOP],
            "redis_masteruser": "shop",
            "redis_masterauth": "of-the-shop-alone",
        },
        "",
    ),
    ({"redis_acl_users": [COPY], "redis_masteruser": "default", "redis_masterauth": ADMIN}, ""),
    ({"redis_requirepass": "", "redis_bind": ["127.0.0.1"]}, ""),
    (
        {
            "redis_requirepass": "",
            "redis_bind": ["127.0.0.1"],
            "redis_masteruser": "default",
            "redis_masterauth": "any",
        },
        "",
    ),
    ({"redis_masteruser": "nosuch"}, UNKNOWN),
    ({"redis_masteruser": "def.*"}, UNKNOWN),
    ({"redis_admin_user": "operator", "redis_masteruser": "default"}, UNKNOWN),
    ({"redis_masterauth": "of-nobody-at-all"}, NOT_THEIRS),
    ({"redis_acl_users": [COPY], "redis_masterauth": ADMIN}, NOT_THEIRS),
    ({"redis_acl_users": [SHOP], "redis_masteruser": "shop"}, NOT_THEIRS),
    (
        {"redis_requirepass": "", "redis_bind": ["127.0.0.1"], "redis_masterauth": "any"},
        NOT_THEIRS,
    ),
]


def test_replicas_log_in_as_a_user_that_there_is(tmp_path: Path) -> None:
    """All cases in one run. The host of the master is in no case the only one of the set."""
    hosts = {f"host-{number}": values for number, (values, _) in enumerate(REPLICAS_LOGINS)}
    run = deploy(tmp_path, "redis_port=6379", **hosts)
    said: dict[str, str] = {}
    for line in run.output.partition("fatal: ")[2].splitlines():
        names, _, words = line.strip().partition(": ")
        said.update({name: words for name in names.split(", ") if name in hosts})
    assert "of-nobody-at-all" not in run.output
    wrong = [
        (values, said.get(name, ""))
        for (name, values), (_, words) in zip(hosts.items(), REPLICAS_LOGINS, strict=True)
        if (words not in said.get(name, "") if words else name in said)
    ]
    assert wrong == [], run.output


def test_a_server_without_replicas_needs_no_login_for_them(tmp_path: Path) -> None:
    run = deploy(tmp_path, "redis_masteruser=nosuch")
    assert "UNREACHABLE" in run.output, run.output


@pytest.mark.parametrize(
    ("limit", "extra", "needed"),
    [
        (64, {}, 10032),
        ("10031", {"hz": 50}, 10032),
        (10032, {}, 0),
        (531, {"MaxClients": 500}, 532),
        (532, {"maxclients": ["500"]}, 0),
        (65535, {"maxclients": 100000}, 100032),
    ],
)
def test_files_are_enough_for_all_clients(
    tmp_path: Path, limit: int | str, extra: dict[str, Any], needed: int
) -> None:
    given = json.dumps({"redis_nofile_limit": limit, "redis_extra_config": extra})
    run = deploy(tmp_path, given)
    if needed:
        assert f"redis_nofile_limit ({limit}) must be {needed} or more" in plain(run.output)
        assert f"(here {needed - 32}; 10000" in plain(run.output)
    assert ("UNREACHABLE" in run.output) == (not needed), run.output
