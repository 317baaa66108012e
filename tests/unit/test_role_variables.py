"""Variables of roles as others read them: the inventory's value, else the role's own default."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.proven.redis.plugins.filter.inventory_groups import inventory_groups
from ansible_collections.proven.redis.plugins.filter.role_variable import role_variable

from tests.unit.role_templates import ROOT

PORT = "redis_backup_server_rsync_port"
GROUP = "redis_replication_group"


def stated(role: str, name: str) -> Any:
    """The default in the file of the role."""
    return yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())[name]


def test_what_the_inventory_leaves_out_is_what_the_role_states() -> None:
    hostvars: dict[str, dict[str, Any]] = {"a": {PORT: 8873}, "b": {}, "c": {PORT: None}}
    assert role_variable(hostvars, "a", PORT) == 8873
    default = stated("redis_backup_server", PORT)
    assert [role_variable(hostvars, host, PORT) for host in ("b", "c", "unknown")] == [default] * 3


def test_an_address_is_that_by_which_ansible_reaches_the_host() -> None:
    hostvars: dict[str, dict[str, Any]] = {"a": {"ansible_host": "192.0.2.1"}, "b": {}}
    for name in ("redis_address", "redis_backup_server_address", "redis_restore_drill_address"):
        found = [role_variable(hostvars, host, name) for host in hostvars]
        assert found == ["192.0.2.1", "b"], name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("redis_backup_server_prot", "no role of the collection has a default for"),
        ("another_port", "no role of the collection has a default for another_port"),
        ("redis_backup_hosts_allow_x", "no role"),
        ("redis_restore_drill_servers", "a template that only its role evaluates"),
    ],
)
def test_what_nobody_can_know_is_an_error(name: str, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        role_variable({"a": {}}, "a", name)


def test_groups_are_those_that_hosts_name() -> None:
    groups: dict[str, list[str]] = {
        "all": ["a", "b", "server"],
        "orders": ["a"],
        "sessions": ["b"],
    }
    named: dict[str, dict[str, Any]] = {
        "a": {GROUP: "orders"},
        "b": {GROUP: "sessions"},
        "server": {},
    }
    # The server names none, and the default is no group here.
    assert inventory_groups(groups, named, GROUP) == ["orders", "sessions"]
    groups["redis"] = ["a", "b"]
    assert inventory_groups(groups, named, GROUP) == ["orders", "sessions", "redis"]


def test_a_group_that_does_not_exist_is_named_where_no_other_does() -> None:
    groups = {"all": ["a"]}
    assert inventory_groups(groups, {"a": {GROUP: "cahce"}}, GROUP) == ["cahce"]
    assert inventory_groups(groups, {"a": {}}, GROUP) == [stated("redis", GROUP)]
