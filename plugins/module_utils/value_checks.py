"""What speaks against the variables of a host for one role, before anything connects to it.

The values are those that a template of the role would see, wherever they come from. Nothing here
fails by itself: a value or a rule that cannot be computed is one more sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils import role_variables
from ansible_collections.proven.redis.plugins.module_utils.value_types import problems
from ansible_collections.proven.redis.plugins.module_utils.variable_names import unknown

_ECHO = re.compile(
    r"A rule of role \w+ could not be computed: |The tool would refuse its configuration on "
)


def refusals(
    role: str,
    names: Iterable[str],
    value_of: Callable[[str], Any],
    in_inventory: Collection[str],
    rules: Iterable[Mapping[str, Any]] = (),
) -> list[str]:
    """Sentences, none where nothing speaks against the values.

    `names` are all variables of the host, `value_of` computes one of them, `in_inventory` has those
    that the host itself is given.

    `rules` are looked at when the values are what they must be, and computed one by one. A rule has
    `holds`, whether all is well, and `say`, what to say where it is not; or `renders`, what must be
    computed without an error, and `of`, the variable that an error is about.
    """
    given = set(names)
    found = _of_values(role, given, value_of, in_inventory)
    misspelt = unknown(given, role_variables.known_names())
    if found:
        return found + misspelt
    broken, crashed = [], []
    for rule in rules:
        try:
            if "renders" in rule:
                broken += _of_rendering(rule)
            elif not rule["holds"]:
                broken.append(" ".join(str(rule["say"]).split()))
        except Exception as error:  # whatever a template raises
            crashed.append(f"A rule of role {role} could not be computed: {_cause(error)}.")
    # A rule that crashed beside another one that is broken says nothing new.
    return misspelt + (broken or crashed)


def without_echoes(reasons: Iterable[str]) -> list[str]:
    """The reasons of all hosts without those that only repeat what is wrong with a value.

    What is computed from the value, on this host or another, fails too, and its message names
    neither the variable nor its host.
    """
    texts = list(reasons)
    others = [text for text in texts if not _ECHO.match(text)]
    if len(others) == len(texts):  # as nearly always: no need to read the roles for it
        return texts
    known = role_variables.known_names()
    about_a_value = any(re.split(r"\W", text, maxsplit=1)[0] in known for text in others)
    return others if about_a_value else texts


def _of_rendering(rule: Mapping[str, Any]) -> list[str]:
    try:
        plain(rule["renders"])
    except Exception as error:  # whatever a template raises
        return [f"{rule['of']}: {_cause(error)}."]
    return []


def _of_values(
    role: str,
    given: Collection[str],
    value_of: Callable[[str], Any],
    in_inventory: Collection[str],
) -> list[str]:
    defaults = role_variables.defaults(role)
    options = role_variables.options(role)
    # A default that is computed from other variables repeats what is wrong with them.
    computed = {name for name in defaults if "{{" in str(defaults[name])} - set(in_inventory)
    found: list[str] = []
    for name in [each for each in options if each not in computed]:
        found += _of_value(name, given, value_of, options[name], defaults)
    if not found:
        for name in [each for each in options if each in computed]:
            found += _of_value(name, given, value_of, options[name], defaults)
    return found


def _of_value(
    name: str,
    given: Collection[str],
    value_of: Callable[[str], Any],
    option: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> list[str]:
    if name not in given:
        return []
    try:
        value = plain(value_of(name))
    except Exception as error:  # whatever a template raises
        return [f"{name} cannot be computed: {_cause(error)}."]
    return problems(name, value, {**option, "has_default": name in defaults})


def plain(value: Any) -> Any:
    """The value with all that is in it computed."""
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _cause(error: BaseException) -> str:
    """The first error of all, which the others have only passed on, in one line."""
    while error.__cause__ is not None and str(error.__cause__).strip():
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
