#!/usr/bin/env python3
"""Write the tables of variables in the roles' README files from their argument specifications.

    docs/generate.py            write them
    docs/generate.py --check    change nothing, exit with 1 where one is out of date

Each role's README.md holds two marker lines, and what is between them belongs to this program.
Types, descriptions and choices come from meta/argument_specs.yml, default values from
defaults/main.yml, so that what is documented is what runs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- variables: made by docs/generate.py -->"
END = "<!-- end of variables -->"
HEAD = ("| Variable | Type | Default | What it is |", "|---|---|---|---|")
# Ansible's markup for code, options, values, modules and emphasis; P(name#type) names a plugin.
MARKUP = re.compile(r"\b[CMPOVEI]\(([^()#]*)(?:#[a-z]+)?\)")


class DocsError(Exception):
    """A README that cannot be written; the message says why and what to do."""


def load(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; an absent or empty one is an empty mapping."""
    if not path.exists():
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def prose(description: object) -> str:
    """A description (a string or a list of paragraphs) as one cell of a table."""
    paragraphs = description if isinstance(description, list) else [description or ""]
    text = " ".join(str(paragraph).strip() for paragraph in paragraphs)
    return MARKUP.sub(r"`\1`", text).replace("|", "\\|").replace("\n", " ")


def code(value: object) -> str:
    """A value as inline code: YAML's spelling, on one line."""
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`"


def kind(option: Mapping[str, Any]) -> str:
    """The type of an option in words."""
    name = str(option.get("type", "str"))
    if name == "list":
        name = f"list of {option.get('elements', 'any')}"
    if "choices" in option:
        name += ": " + ", ".join(code(choice) for choice in option["choices"])
    return name


def rows(
    options: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any], parent: str = ""
) -> Iterator[str]:
    """One line of the table per option, the options of a dictionary below it."""
    for name, option in options.items():
        if not parent and name in defaults:
            default = code(defaults[name])
        elif "default" in option:
            default = code(option["default"])
        else:
            default = "required" if option.get("required") else ""
        description = prose(option.get("description"))
        yield f"| `{parent}{name}` | {kind(option)} | {default} | {description} |"
        if "options" in option:
            of_list = option.get("type") == "list"
            yield from rows(option["options"], {}, f"{parent}{name}{'[]' if of_list else ''}.")


def tables(specs: Mapping[str, Mapping[str, Any]], defaults: Mapping[str, Any]) -> str:
    """The text between the markers: one table per entry point."""
    parts = []
    for entry_point, spec in specs.items():
        if entry_point != "main":
            parts.append(
                f"### Entry point `{entry_point}`\n\n{prose(spec.get('short_description'))}."
            )
        lines = list(rows(spec.get("options") or {}, defaults))
        parts.append("\n".join([*HEAD, *lines]) if lines else prose(spec.get("description")))
    return "\n\n".join(parts)


def render(readme: str, table: str, where: str) -> str:
    """The README with the text between its markers replaced. Raises DocsError without markers."""
    head, begin, rest = readme.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"{END}\n")
    if not begin or not end:
        raise DocsError(f"{where} needs the lines\n{BEGIN}\n{END}\nwhere its variables belong")
    return f"{head}{BEGIN}\n\n{table}\n\n{END}\n{tail}"


def generate(role: Path) -> tuple[Path, str, str]:
    """A role's README: its path, the text that is there and the text that belongs there."""
    path = role / "README.md"
    if not path.exists():
        raise DocsError(
            f"{path.relative_to(ROOT)} is missing: write what the role does, with the markers in it"
        )
    specs = load(role / "meta" / "argument_specs.yml").get("argument_specs") or {}
    current = path.read_text(encoding="utf-8")
    table = tables(specs, load(role / "defaults" / "main.yml"))
    return path, current, render(current, table, str(path.relative_to(ROOT)))


def roles() -> list[Path]:
    """The project's roles."""
    return sorted(path.parent for path in (ROOT / "roles").glob("*/meta"))


def main() -> int:
    """Write or check all of them; the exit status says whether one is out of date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    status = 0
    for role in roles():
        try:
            path, current, wanted = generate(role)
        except DocsError as problem:
            print(problem, file=sys.stderr)
            status = 1
            continue
        if current == wanted:
            continue
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run docs/generate.py", file=sys.stderr)
            status = 1
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    return status


if __name__ == "__main__":
    sys.exit(main())
