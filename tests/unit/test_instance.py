"""The option `instance` of the modules: its documentation and what Ansible checks are one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from ansible_collections.proven.redis.plugins.doc_fragments.instance import ModuleDocFragment
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import ARGUMENT_SPEC

from tests.support.ansible_runs import ansible

MODULES = ("redis_acl", "redis_config", "redis_service", "redis_state")
SUBOPTIONS = ARGUMENT_SPEC["instance"]["options"]


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    done = ansible("ansible-doc", "--json", *(f"proven.redis.{name}" for name in MODULES))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", MODULES)
def test_ansible_doc_shows_the_option_of_every_module(
    documented: dict[str, Any], name: str
) -> None:
    doc = documented[f"proven.redis.{name}"]["doc"]
    assert set(doc["options"]["instance"]["suboptions"]) == set(SUBOPTIONS)


def test_what_is_documented_is_what_is_checked() -> None:
    (option,) = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"].values()
    documented = {
        name: {key: value for key, value in entry.items() if key != "description"}
        for name, entry in option["suboptions"].items()
    }
    checked = {
        name: {key: value for key, value in entry.items() if key != "no_log"}
        for name, entry in SUBOPTIONS.items()
    }
    assert documented == checked


def test_passwords_are_not_logged() -> None:
    assert all(
        entry.get("no_log", False) is ("password" in name) for name, entry in SUBOPTIONS.items()
    )
