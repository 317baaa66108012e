"""The roles' README files say what their argument specifications say."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs import generate


@pytest.mark.parametrize("role", generate.roles(), ids=lambda role: role.name)
def test_readme_has_the_variables_of_the_specification(role: Path) -> None:
    path, current, wanted = generate.generate(role)
    assert current == wanted, f"{path} is out of date: run docs/generate.py"


def test_defaults_come_from_the_role_and_not_from_the_specification() -> None:
    (row,) = generate.rows({"a_port": {"type": "int", "default": 1}}, {"a_port": "{{ b_port }}"})
    assert row == "| `a_port` | int | `{{ b_port }}` |  |"


def test_options_of_a_list_follow_it() -> None:
    option = {
        "type": "list",
        "elements": "dict",
        "options": {"seconds": {"type": "int", "required": True, "description": "How long."}},
    }
    assert list(generate.rows({"a_save": option}, {"a_save": []})) == [
        "| `a_save` | list of dict | `[]` |  |",
        "| `a_save[].seconds` | int | required | How long. |",
    ]


def test_markup_becomes_code_and_pipes_stay_in_their_cell() -> None:
    assert generate.prose(["Like C(a|b).", "See O(x)."]) == "Like `a\\|b`. See `x`."


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(generate.DocsError, match="needs the lines"):
        generate.render("# A role\n", "table", "roles/a/README.md")
