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


@pytest.mark.parametrize("case", CASES)
def test_a_unit_that_is_to_run(case: str) -> None:
    differs, written, changed, expected = CASES[case]
    found = systemd_actions([{**SOUND, **differs}], ["a.timer"], {PATH: written}, changed)
    assert found == expected


def test_a_unit_that_others_start_is_only_reloaded() -> None:
    unit = {**SOUND, "ActiveState": "inactive", "UnitFileState": "static"}
    unit["ActiveEnterTimestamp"] = ""
    assert systemd_actions([unit], [], {PATH: STARTED}, []) == []
    reload = [{"unit": "a.timer", "state": None, "reload": True}]
    assert systemd_actions([unit], [], {}, [PATH]) == reload
    assert systemd_actions([{**unit, "NeedDaemonReload": "yes"}], [], {}, []) == reload


@pytest.mark.parametrize("day", ["Sat", "Sa", "sam.", "土"])
def test_a_time_is_read_whatever_the_day_is_called(day: str) -> None:
    """Where the controller or the host speaks another language, so does Python's strptime()."""
    assert seconds(f"{day} 2026-11-21 05:32:55 UTC") == STARTED


@pytest.mark.parametrize("text", ["", "n/a", "2026-11-21 05:32:55 UTC", "Sat 2026-11-21 05:32 CET"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="does not match"):
        seconds(text)
