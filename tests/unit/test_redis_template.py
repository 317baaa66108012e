"""redis.conf as the role renders it, by Ansible's own engine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.redis_acl import sha256

from tests.unit.role_templates import ROOT, Role

GOLDEN = Path(__file__).parent / "golden" / "redis"
MASTER = {
    "__redis_plan": {"role": "master", "replicaof": None, "does": "keep"},
    "__redis_version": "7.0",
}
REPLICA = {
    "__redis_plan": {"role": "replica", "replicaof": ["192.168.1.2", 6379], "does": "keep"},
    "__redis_version": "7.0",
}


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    return Role("redis", tmp_path_factory.mktemp("inventory"))


def render(role: Role, host: str, **extra: Any) -> str:
    return role.render("redis.conf.j2", host, **extra)


@pytest.mark.parametrize(
    ("name", "host", "template", "extra"),
    [
        ("master.conf", "redis-1", "redis.conf.j2", MASTER),
        ("replica.conf", "redis-2", "redis.conf.j2", REPLICA),
        ("unit-dropin.conf", "redis-1", "unit-dropin.conf.j2", {"redis_dir": "/mnt/redis_data"}),
    ],
)
def test_golden(role: Role, name: str, host: str, template: str, extra: dict[str, Any]) -> None:
    """After a wanted change, `GOLDEN=write pytest` writes these files again."""
    text = role.render(template, host, **extra)
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("/srv/redis", "ReadWritePaths=/srv/redis"),
        ("/srv//redis/", "ReadWritePaths=/srv/redis"),
        ("//srv/x/../redis", "ReadWritePaths=/srv/redis"),
        ("/srv/redis data", 'ReadWritePaths="/srv/redis data"'),
        ("/srv/100%", 'ReadWritePaths="/srv/100%%"'),
        ("/srv/a'b", 'ReadWritePaths="/srv/a\'b"'),
        ("/srv/é", 'ReadWritePaths="/srv/é"'),
        ("/var/lib/redis/", None),
        ("//var/lib/redis", None),
    ],
)
def test_the_drop_in_names_the_data_directory_as_systemd_reads_it(
    role: Role, folder: str, line: str | None
) -> None:
    text = role.render("unit-dropin.conf.j2", "redis-1", redis_dir=folder)
    assert [found for found in text.splitlines() if found.startswith("Read")] == [line] * bool(line)


def test_another_spelling_of_a_path_changes_nothing(role: Role) -> None:
    wanted = render(role, "redis-1", **MASTER, redis_dir="/srv/redis")
    for spelled in ("/srv/redis/", "//srv///redis", "/srv/./redis"):
        assert render(role, "redis-1", **MASTER, redis_dir=spelled) == wanted


def test_no_other_controller_or_day_changes_the_drop_in(role: Role) -> None:
    """A newer file restarts the server."""
    text = role.render("unit-dropin.conf.j2", "redis-1", ansible_managed="by me, today")
    assert text == role.render("unit-dropin.conf.j2", "redis-1", ansible_managed="by you, tomorrow")


def test_the_classic_save_points_are_the_default(role: Role) -> None:
    assert settings(render(role, "redis-1", **MASTER))["save"] == "900 1 300 10 60 10000"


def test_an_empty_list_turns_snapshots_off(role: Role) -> None:
    text = render(role, "redis-1", **MASTER, redis_save=[])
    assert 'save ""' in text.splitlines()


def test_the_password_is_the_masters_too_unless_said_otherwise(role: Role) -> None:
    odd = " two words \"quoted\" 'and' #hash \\ back"
    values = settings(render(role, "redis-1", **MASTER, redis_requirepass=odd))
    assert values["requirepass"] == values["masterauth"] == odd
    values = settings(render(role, "redis-1", **MASTER, redis_masterauth="another"))
    assert values["masterauth"] == "another"


def test_while_a_password_changes_both_are_in_the_file(role: Role) -> None:
    odd = "before 'and' \"after\" #1 {{ x }}"
    text = render(role, "redis-1", **MASTER, redis_previous_password=odd)
    values = settings(text)
    assert values["requirepass"] == values["masterauth"] == "a-password"
    both = sorted(f"#{sha256(word)}" for word in ("a-password", odd))
    assert values["user default"] == f"on {' '.join(both)} ~* &* +@all"


def test_with_users_there_is_no_requirepass_and_replicas_have_a_name(role: Role) -> None:
    users = [
        {"name": "copy", "preset": "replication", "password": "the password of replicas"},
        {"name": "shop", "preset": "application", "password": "the password of shops"},
    ]
    values = settings(render(role, "redis-1", **MASTER, redis_acl_users=users))
    assert values["aclfile"] == "/etc/redis/redis.acl"
    assert (values["masteruser"], values["masterauth"]) == ("copy", "the password of replicas")
    assert "requirepass" not in values
    assert not any(name.startswith("user ") for name in values)


def test_without_a_user_for_it_replicas_are_the_administrator(role: Role) -> None:
    values = settings(render(role, "redis-1", **MASTER, redis_admin_user="operator"))
    assert (values["masteruser"], values["masterauth"]) == ("operator", "a-password")
    assert role.value("__redis_acl", "redis-1", redis_admin_user="operator").splitlines() == [
        f"user operator on #{sha256('a-password')} ~* &* +@all",
        "user default off ~* &* +@all",
    ]


def test_whatever_has_no_variable_goes_through_extra_config(role: Role) -> None:
    extra = {"hz": 50, "maxmemory": "1gb", "latency-monitor-threshold": 100, "activedefrag": True}
    values = settings(render(role, "redis-1", **MASTER, redis_extra_config=extra))
    assert values["hz"] == "50"
    assert values["activedefrag"] == "yes"
    assert values["maxmemory"] == str(1024**3), "it wins over the variable of the role"


@pytest.mark.parametrize("value", [True, False])
def test_booleans_may_come_as_text(role: Role, value: bool) -> None:
    specs = yaml.safe_load((ROOT / "roles/redis/meta/argument_specs.yml").read_text("utf-8"))
    options = specs["argument_specs"]["main"]["options"]
    names = [name for name, option in options.items() if option["type"] == "bool"]
    real: dict[str, Any] = dict.fromkeys(names, value)
    text = dict.fromkeys(names, str(value).lower())
    wanted = render(role, "redis-1", **{**MASTER, **real})
    assert f"\nrdbcompression {'yes' if value else 'no'}\n" in wanted
    assert render(role, "redis-1", **{**MASTER, **text}) == wanted


def test_another_port_is_another_instance(role: Role) -> None:
    for name, value in {
        "__redis_unit": "redis-server@6380.service",
        "__redis_config_file": "/etc/redis/redis-6380.conf",
        "__redis_mark": "/etc/redis/redis-6380.conf.managed",
        "__redis_run_dir": "/run/redis-6380",
    }.items():
        assert role.value(name, "redis-1", redis_port=6380) == value
