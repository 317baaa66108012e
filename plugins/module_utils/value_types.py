"""Values of variables against argument specifications: checked, never coerced. Pure functions.

Ansible's own validation turns the text `0.0.0.0` into a list of one address, and the role then gets
the text. Here a value either has its type, or a message names the variable, the value, and what is
wanted with an example. Text that is exactly `true`, `false`, or decimal digits counts as that type:
INI inventories and `-e name=value` have nothing but text.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.proven.redis.plugins.module_utils.value_forms import (
    BOUNDS,
    FORMS,
    MAY_BE_EMPTY,
    NO_ENTRY,
    SAME_AS,
    Form,
)

_SHOWN = 70
# With zeros in front, a server takes it for none, and YAML for an octal one.
_WHOLE = re.compile("0|-?[1-9][0-9]{0,29}")
_WANTED = {
    "bool": "true or false",
    "str": "text",
    "path": "a path",
    "dict": "a dictionary",
    "list": "a list",
}

_OF: Mapping[str, str] = {"str": " of text", "dict": " of dictionaries"}


def problems(name: str, value: Any, option: Mapping[str, Any]) -> list[str]:
    """What is wrong with the value of a variable, a sentence each; empty where nothing is."""
    return [
        text if text.endswith("?") else f"{text}." for text in _problems(name, name, value, option)
    ]


def _problems(name: str, where: str, value: Any, option: Mapping[str, Any]) -> Iterator[str]:
    """`name` is the key of the table of forms, `where` that place in the value."""
    form = FORMS.get(name)
    if value is None and not _optional(name, where, option):
        yield (
            f"{where} has no value: give it one, or delete its line. It must be"
            f" {_wanted(name, where, option)}"
        )
        return
    if value is None or (value == "" and _optional(name, where, option)):
        return
    kind = option.get("type", "str")
    if not (form and form.any_type) and not _has_type(kind, value, option, form):
        number = kind in ("str", "path") and isinstance(value, int) and not isinstance(value, bool)
        reason = "a number where text belongs, so put it in quotes" if number else ""
        if kind == "int" and re.fullmatch("-?0[0-9]+", str(value)):
            reason = "a number has no zeros in front"
        yield _refusal(name, where, value, option, reason)
        return
    if kind == "list" and not (form and form.any_type):
        found = list(_of_elements(name, where, value, option))
        yield from found
        if found:
            return
    if kind == "dict" and "options" in option:
        yield from _of_options(name, where, value, option["options"])
    yield from _of_form(name, where, value, option, form)


def _optional(name: str, where: str, option: Mapping[str, Any]) -> bool:
    """Whether no value, or empty text, means that it is not given. A default makes it a mistake."""
    return name in MAY_BE_EMPTY or not (
        "default" in option
        or option.get("required")
        or option.get("has_default")
        or where.endswith("]")
    )


def _has_type(kind: str, value: Any, option: Mapping[str, Any], form: Form | None) -> bool:
    if kind == "bool":
        return isinstance(value, bool) or value in ("true", "false", "True", "False")
    if kind == "int":
        return not isinstance(value, bool) and (
            isinstance(value, int)
            or (isinstance(value, str) and _WHOLE.fullmatch(value) is not None)
        )
    if kind == "list":
        return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if kind == "dict":
        return isinstance(value, Mapping)
    if kind in ("str", "path"):
        # Sizes and passwords of digits are numbers in YAML; YAML's own `no` is a choice of some.
        if isinstance(value, bool):
            return ("yes" if value else "no") in option.get("choices", ())
        if isinstance(value, int):
            takes_numbers = option.get("no_log") or (form is not None and form.numbers)
            return value >= 0 and bool(takes_numbers)
        return isinstance(value, str)
    return True


def _of_elements(
    name: str, where: str, value: Sequence[Any], option: Mapping[str, Any]
) -> Iterator[str]:
    element = {key: option[key] for key in ("choices", "options", "no_log") if key in option} | {
        "type": option.get("elements", "raw")
    }
    base = SAME_AS.get(name, name)
    for place, item in enumerate(value):
        yield from _problems(f"{base}[]", f"{where}[{place}]", item, element)


def _of_options(
    name: str, where: str, value: Mapping[Any, Any], options: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    for key in value:
        if key not in options:
            close = difflib.get_close_matches(str(key), options, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"{where} has {key!r}, and may have {', '.join(options)}{hint}"
    for key, option in options.items():
        if key in value:
            yield from _problems(f"{name}.{key}", f"{where}.{key}", value[key], option)
        elif option.get("required"):
            wanted = _wanted(f"{name}.{key}", f"{where}.{key}", option)
            yield f"{where}.{key} is missing; it must be {wanted}"


def _of_form(
    name: str, where: str, value: Any, option: Mapping[str, Any], form: Form | None
) -> Iterator[str]:
    if option.get("type") == "int":
        low, high = BOUNDS.get(name, NO_ENTRY)
        if not low <= int(value) <= high:
            yield _refusal(name, where, value, option)
            return
    if "choices" in option and option.get("type") != "list" and not isinstance(value, bool):
        if value not in option["choices"]:
            yield _refusal(name, where, value, option)
        return
    if form is None:
        text = option.get("type") in ("str", "path") and isinstance(value, str)
        if text and (value == "" or re.search(r"[\n\0]", value)):
            yield _refusal(name, where, value, option)
        return
    reason = form.problem(value)
    if reason is None:
        yield _refusal(name, where, value, option)
    elif reason:
        yield _refusal(name, where, value, option, reason)


def _refusal(name: str, where: str, value: Any, option: Mapping[str, Any], reason: str = "") -> str:
    return (
        f"{where} is {_described(value, option)}{f': {reason}' if reason else ''}; it must be"
        f" {_wanted(name, where, option)}"
    )


def _wanted(name: str, where: str, option: Mapping[str, Any]) -> str:
    """What it must be, with an example."""
    form = FORMS.get(name)
    kind = option.get("type", "str")
    if form is not None:
        wanted = form.wanted
        example = form.example
    elif "choices" in option and kind != "list":
        wanted = f"one of {', '.join(str(choice) for choice in option['choices'])}"
        example = _yaml(option.get("default", option["choices"][0]))
    elif kind == "int":
        low, high = BOUNDS.get(name, NO_ENTRY)
        wanted = f"a whole number from {low} to {high}"
        example = _yaml(option.get("default", low))
    else:
        wanted = _WANTED.get(str(kind), str(kind))
        if kind == "list":
            wanted += _OF.get(str(option.get("elements")), "")
        example = _example(option)
    if not example:
        return wanted
    last = where.rpartition(".")[2]
    if last.endswith("]"):
        return f"{wanted}, such as {example}"
    return f"{wanted}, such as {last}: {example}"


def _example(option: Mapping[str, Any]) -> str:
    kind = option.get("type", "str")
    default = option.get("default")
    if default is not None and "{{" not in str(default) and default not in ([], {}, ""):
        return _yaml(default)
    if "options" in option:
        pairs = ", ".join(
            f"{key}: ..." for key, of in option["options"].items() if of.get("required")
        )
        return f"[{{{pairs}}}]" if kind == "list" else f"{{{pairs}}}"
    if kind == "list" and "choices" in option:
        return _yaml(option["choices"][:1])
    return {"bool": "true", "list": "[one, two]", "dict": "{name: value}", "path": "/path"}.get(
        kind, "text"
    )


def _yaml(value: Any) -> str:
    """As YAML has it, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and (value in ("yes", "no", "") or re.search(r"[:#*&{}\[\]]", value)):
        return json.dumps(value)
    return str(value)


def _described(value: Any, option: Mapping[str, Any]) -> str:
    """A value in words; of a secret, only its kind."""
    secret = bool(option.get("no_log")) or any(
        sub.get("no_log") for sub in (option.get("options") or {}).values()
    )
    if value == "" and isinstance(value, str):
        return "empty text"
    if isinstance(value, bool):
        kind, shown = "", str(value).lower()
    elif isinstance(value, str):
        kind, shown = "the text ", repr(str(value))
    elif isinstance(value, (int, float)):
        kind, shown = "the number ", str(value)
    elif isinstance(value, Mapping):
        kind, shown = "the dictionary ", _yaml(value)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        kind, shown = "the list ", _yaml(list(value))
    else:
        kind, shown = f"a {type(value).__name__.lower()} ", str(value)
    if secret:
        return kind.replace("the ", "a ").replace("a text", "text").strip() or "a boolean"
    shown = " ".join(shown.split())
    return kind + (shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...")
