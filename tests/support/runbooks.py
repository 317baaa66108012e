"""What the runbooks say, for the tests that do it.

Every fenced block of a page in ``docs/runbooks/`` carries a label behind its language::

    ```sh add-a-replica
    ansible-playbook -i inventories/prod site.yml --limit redis-4
    ```

A ``sh`` block is typed, a ``text`` block is what is then seen. Tests name a block as
``"page#label"``, so that a command or a message stands in one place: the page that people read.
"""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
RUNBOOKS = PROJECT / "docs" / "runbooks"
# The inventory that the pages speak of; a test puts its own in its place.
INVENTORY = "inventories/prod"

_BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Differs from run to run: sums, ids, addresses, dates, sizes and every other number.
_VARIES = re.compile(r"[0-9a-f]{40,}|\d{8}T\d{6}Z|\d+(?:[.:]\d+)*")


def blocks(page: str) -> dict[str, str]:
    """The labelled blocks of one page, by label. Raises ValueError for a label used twice or a
    block without one."""
    found: dict[str, str] = {}
    for language, label, text in _BLOCK.findall((RUNBOOKS / f"{page}.md").read_text("utf-8")):
        if not label:
            raise ValueError(f"{page}.md: a {language} block has no label: {text[:60]!r}")
        if label in found:
            raise ValueError(f"{page}.md: two blocks are labelled {label!r}")
        found[label] = text.rstrip("\n")
    return found


def block(reference: str) -> str:
    """The text of the block ``page#label``."""
    page, _, label = reference.partition("#")
    return blocks(page)[label]


def playbook(reference: str) -> list[str]:
    """The arguments of ansible-playbook in the one-line block ``page#label``, without the program
    and the inventory, as ``play_against`` takes them."""
    words = block(reference).split()
    assert words[:3] == ["ansible-playbook", "-i", INVENTORY], words
    return words[3:]


def is_seen(reference: str, actual: str) -> bool:
    """Whether what the block quotes is in ``actual``, whatever its numbers, line breaks and
    indents."""
    return _generalised(block(reference)) in _generalised(actual)


def _generalised(text: str) -> str:
    return " ".join(_VARIES.sub("N", text).split())
