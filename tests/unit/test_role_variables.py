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
    context = {"hostvars": hostvars}
    assert role_variable(context, PORT, "a") == 8873
    default = stated("redis_backup_server", PORT)
    assert [role_variable(context, PORT, host) for host in ("b", "c", "unknown")] == [default] * 3


def test_a_variable_of_the_play_counts_where_it_is_used() -> None:
    """The inventory's own value for the host is among what the template sees."""
    context: dict[str, Any] = {"inventory_hostname": "a", "hostvars": {"a": {}}}
    assert role_variable(context, "redis_port") == stated("redis", "redis_port")
    assert role_variable({**context, "redis_port": 6380}, "redis_port") == 6380
    assert role_variable({**context, "redis_port": ""}, "redis_port") == 6379
    assert role_variable(context, "redis_address") == "a"
    assert role_variable({**context, "ansible_host": "192.0.2.1"}, "redis_address") == "192.0.2.1"


def test_an_address_is_that_by_which_ansible_reaches_the_host() -> None:
    hostvars: dict[str, dict[str, Any]] = {"a": {"ansible_host": "192.0.2.1"}, "b": {}}
    for name in ("redis_address", "redis_backup_server_address", "redis_restore_drill_address"):
        found = [role_variable({"hostvars": hostvars}, name, host) for host in hostvars]
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
        role_variable({"hostvars": {"a": {}}}, name, "a")


def named(groups: dict[str, list[str]], hostvars: dict[str, dict[str, Any]]) -> list[str]:
    return inventory_groups({"groups": groups, "hostvars": hostvars}, GROUP)


def test_groups_are_those_that_hosts_name() -> None:
    groups: dict[str, list[str]] = {
        "all": ["a", "b", "server"],
        "orders": ["a"],
        "sessions": ["b"],
    }
    hostvars: dict[str, dict[str, Any]] = {
        "a": {GROUP: "orders"},
        "b": {GROUP: "sessions"},
        "server": {},
    }
    # The server names none, and the default is no group here.
    assert named(groups, hostvars) == ["orders", "sessions"]
    groups["redis"] = ["a", "b"]
    assert named(groups, hostvars) == ["orders", "sessions", "redis"]


def test_a_group_that_is_named_and_does_not_exist_is_not_left_out() -> None:
    groups = {"all": ["a", "b"], "orders": ["a"]}
    assert named(groups, {"a": {GROUP: "orders"}, "b": {GROUP: "sessoins"}}) == [
        "orders",
        "sessoins",
    ]
    default = stated("redis", GROUP)
    assert named({"all": ["a"]}, {"a": {}}) == [default]
    assert named({"all": []}, {}) == [default]


def test_before_the_first_play_the_command_line_counts() -> None:
    assert inventory_groups({}, GROUP) == [stated("redis", GROUP)]
    assert inventory_groups({GROUP: "orders"}, GROUP) == ["orders"]
