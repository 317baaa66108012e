"""When a unit is started, restarted, reloaded or left alone."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.proven.redis.plugins.filter.systemd_actions import systemd_actions
from ansible_collections.proven.redis.plugins.module_utils.systemd_time import seconds

SOUND = {
    "Id": "a.timer",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ActiveEnterTimestamp": "Sat 2026-11-21 05:32:55 UTC",
}
STARTED = 1795239175  # that time
PATH = "/etc/systemd/system/a.timer"

RESTART = {"unit": "a.timer", "state": "restarted"}
START = {"unit": "a.timer", "state": "started"}

CASES: dict[str, tuple[dict[str, str], float, list[str], list[dict[str, Any]]]] = {
    "sound": ({}, STARTED - 10, [], []),
    "written in the second of the start": ({}, STARTED + 0.9, [], []),
    "written after the start": ({}, STARTED + 1, [], [{**RESTART, "reload": False}]),
    "changed by this run": ({}, STARTED - 10, [PATH], [{**RESTART, "reload": True}]),
    "not read yet": ({"NeedDaemonReload": "yes"}, 0, [], [{**RESTART, "reload": True}]),
    "failed": ({"ActiveState": "failed"}, 0, [], [{**START, "reload": False}]),
    "new": (
        {"ActiveState": "inactive", "UnitFileState": "disabled", "ActiveEnterTimestamp": ""},
        STARTED,
        [PATH],
        [{**START, "reload": True}],
    ),
    # It serves: nothing is cut off.
    "not enabled": ({"UnitFileState": "disabled"}, 0, [], [{**START, "reload": False}]),
}


def shown(*units: dict[str, str]) -> str:
    """What `systemctl show` prints of units."""
    blocks = ["\n".join(f"{name}={value}" for name, value in unit.items()) for unit in units]
    return "\n\n".join(blocks)


@pytest.mark.parametrize("case", CASES)
def test_a_unit_that_is_to_run(case: str) -> None:
    differs, written, changed, expected = CASES[case]
    found = systemd_actions(shown({**SOUND, **differs}), ["a.timer"], [], {PATH: written}, changed)
    assert found == expected


@pytest.mark.parametrize(
    ("differs", "stops"),
    [
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, False),
        ({"ActiveState": "inactive", "UnitFileState": ""}, False),  # not installed
        ({"ActiveState": "active", "UnitFileState": "disabled"}, True),
        ({"ActiveState": "inactive", "UnitFileState": "enabled"}, True),
    ],
)
def test_a_unit_that_is_not_to_run(differs: dict[str, str], stops: bool) -> None:
    found = systemd_actions(shown({**SOUND, **differs}), [], ["a.timer"], {}, [])
    assert found == ([{"unit": "a.timer", "state": "stopped", "reload": False}] if stops else [])


def test_a_value_may_have_an_equals_sign_or_nothing_in_it() -> None:
    others = {"Description": "x=y", "Conditions": ""}
    failed = {**SOUND, **others, "ActiveState": "failed"}
    found = systemd_actions(
        shown({**SOUND, "Id": "b.timer", **others}, failed), ["a.timer"], [], {}, []
    )
    assert found == [{**START, "reload": False}]


def test_a_unit_that_others_start_is_only_reloaded() -> None:
    unit = {**SOUND, "ActiveState": "inactive", "UnitFileState": "static"}
    unit["ActiveEnterTimestamp"] = ""
    assert systemd_actions(shown(unit), [], [], {PATH: STARTED}, []) == []
    reload = [{"unit": "a.timer", "state": None, "reload": True}]
    assert systemd_actions(shown(unit), [], [], {}, [PATH]) == reload
    assert systemd_actions(shown({**unit, "NeedDaemonReload": "yes"}), [], [], {}, []) == reload


@pytest.mark.parametrize("day", ["Sat", "Sa", "sam.", "土"])
def test_a_time_is_read_whatever_the_day_is_called(day: str) -> None:
    """Where the controller or the host speaks another language, so does Python's strptime()."""
    assert seconds(f"{day} 2026-11-21 05:32:55 UTC") == STARTED


@pytest.mark.parametrize("text", ["", "n/a", "2026-11-21 05:32:55 UTC", "Sat 2026-11-21 05:32 CET"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        seconds(text)
