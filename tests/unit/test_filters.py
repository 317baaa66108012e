"""The filters as Ansible sees them, under the shipped ansible.cfg."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.proven.redis.plugins.filter.merged_refusals import merged_refusals

from tests.support.ansible_runs import ROOT, ansible

FILTERS = sorted(path.stem for path in (ROOT / "filter_plugins").glob("*.py"))


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    names = [f"proven.redis.{name}" for name in FILTERS]
    done = ansible("ansible-doc", "-t", "filter", "--json", *names)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", FILTERS)
def test_ansible_doc_knows_the_filter(documented: dict[str, Any], name: str) -> None:
    entry = documented[f"proven.redis.{name}"]
    assert Path(entry["doc"]["filename"]).resolve() == ROOT / "filter_plugins" / f"{name}.py"
    assert entry["doc"]["short_description"]
    assert all(option["description"] for option in entry["doc"]["options"].values())
    assert name in entry["examples"]
    assert yaml.safe_load(entry["examples"])
    assert entry["return"]["_value"]["description"]


@pytest.fixture(scope="module")
def templar() -> Templar:
    """Ansible's own templating, with the project's filters."""
    return Templar(
        loader=DataLoader(),
        variables={
            name: trust_as_template(value) if isinstance(value, str) else value
            for name, value in VARIABLES.items()
        },
    )


SECRET = 'se"cret # 1'
SECRET_PART = "hidden"

VARIABLES: dict[str, Any] = {
    "directives": {
        "appendonly": True,
        "save": [],
        "requirepass": SECRET,
        "bind": ["192.0.2.11", "::1"],
        "slaveof": "192.0.2.12 6379",
        "maxmemory": None,
        "port": 6379,
    },
    "instances": [
        {"host": "redis-1", "address": "192.0.2.11", "port": 6379, "state": "virgin"},
        {"host": "redis-2", "address": "192.0.2.12", "port": 6379, "state": "virgin"},
    ],
    "with_newline": {"requirepass": f"a\n{SECRET_PART}"},
}

EXPRESSIONS: list[tuple[str, Any]] = [
    (
        "directives | proven.redis.redis_conf",
        'appendonly yes\nsave ""\nrequirepass "se\\"cret # 1"\nbind 192.0.2.11 ::1\n'
        "replicaof 192.0.2.12 6379\nport 6379\n",
    ),
    (
        "{'replicaof': 'a 1', 'hash-max-listpack-value': 2}"
        " | proven.redis.redis_conf(version='4.0')",
        "slaveof a 1\nhash-max-ziplist-value 2\n",
    ),
    (
        "(instances | proven.redis.redis_topology('redis-2')).plan.values()"
        " | map(attribute='does')",
        ["join", "bootstrap"],
    ),
]


@pytest.mark.parametrize(("expression", "value"), EXPRESSIONS)
def test_a_template_gets(templar: Templar, expression: str, value: Any) -> None:
    assert templar.template(trust_as_template("{{ " + expression + " }}")) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "with_newline | proven.redis.redis_conf",
            "redis_conf: requirepass has a newline or NUL character in its value; take it out",
        ),
        (
            "'port 1' | proven.redis.redis_conf",
            "redis_conf: it takes a dictionary of directives, not",
        ),
        (
            "{} | proven.redis.redis_conf('stable')",
            "redis_conf: 'stable' is not a version of Redis",
        ),
        (
            "instances | proven.redis.redis_topology('redis-9')",
            "redis_topology: the master of the inventory, 'redis-9', is no host of this set",
        ),
        (
            "{} | proven.redis.redis_topology('redis-1')",
            "redis_topology: it takes a list of hosts, not",
        ),
        (
            "instances | proven.redis.redis_topology('redis-1', 'redis-1')",
            "rejoin_as_replica has to be a list",
        ),
    ],
)
def test_bad_input_is_answered_by_a_sentence(
    templar: Templar, expression: str, message: str
) -> None:
    with pytest.raises(AnsibleError) as caught:
        templar.template(trust_as_template("{{ " + expression + " }}"))
    said = str(caught.value)
    assert message in said
    assert SECRET_PART not in said


def test_a_play_finds_the_filters() -> None:
    """By the shipped ansible.cfg, and all of them in one run."""
    words = (
        "{{ directives | proven.redis.redis_conf }}"
        " {{ (instances | proven.redis.redis_topology('redis-2')).reason }}"
    )
    done = ansible(
        "ansible", "localhost", "-i", "localhost,", "-m", "ansible.builtin.debug",
        "-a", json.dumps({"msg": words}), "-e", json.dumps(VARIABLES),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with redis-2 as master" in done.stdout


def test_the_shipped_configuration_is_valid() -> None:
    done = ansible("ansible-config", "validate", "-t", "all")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mistake_in_a_configuration_would_be_found(tmp_path: Path) -> None:
    config = tmp_path / "ansible.cfg"
    config.write_text("[defaults]\nfilter_plugin = filter_plugins\n")
    done = ansible("ansible-config", "validate", "-t", "all", "-c", str(config))
    assert done.returncode != 0


def test_merged_refusals_names_hosts_once() -> None:
    facts: dict[str, dict[str, list[str]]] = {
        "redis-1": {"no": ["redis_bind is text.", "redis-1 is full."]},
        "redis-2": {"no": ["redis_bind is text."]},
        "redis-3": {"no": []},
    }
    assert merged_refusals(facts, facts, "no") == (
        "redis-1, redis-2: redis_bind is text.\nredis-1 is full."
    )
    assert merged_refusals(["redis-1", "redis-2"], facts, "no").startswith("redis_bind")
    assert merged_refusals(["redis-3"], facts, "no") == ""


def test_merged_refusals_leaves_out_what_repeats_a_wrong_value() -> None:
    wrong = "redis_port is the text '0x10'; it must be a whole number."
    crashed = "A rule of role redis_backup could not be computed: invalid literal for int()."
    refused = "The tool would refuse its configuration on redis-2: x. Correct the variable."
    misspelt = "redis_maxmemroy is no variable of the roles: nothing would read it."
    echoes = {"redis-2": {"no": [crashed, refused]}, "redis-3": {"no": [misspelt]}}
    # What is misspelt is read by nobody.
    assert merged_refusals(echoes, echoes, "no").count("\n") == 2
    facts = {"redis-1": {"no": [wrong]}, **echoes}
    assert merged_refusals(facts, facts, "no") == f"redis-1: {wrong}\nredis-3: {misspelt}"
