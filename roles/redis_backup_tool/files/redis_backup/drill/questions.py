"""Asking a restored server the user's assertions."""

from __future__ import annotations

from typing import Any

from ..sandbox.client import Client, ServerSaidError
from . import assertions
from .assertions import Assertion


def ask(client: Client, question: Assertion) -> dict[str, Any]:
    """Run one assertion and say how it went; what the server does not call a read does not run."""
    reply: assertions.Reply = None
    problem: str | None
    names = [question.command[0].lower(), "|".join(question.command[:2]).lower()]
    try:
        infos = [client.call("COMMAND", "INFO", name) for name in names]
        if assertions.is_read_only(names, infos):
            client.call("SELECT", str(question.db))
            reply = assertions.from_wire(client.call(*question.command))
            problem = assertions.evaluate(question, reply)
        else:
            problem = f"{question}: the server does not call this a command that only reads"
    except ServerSaidError as error:
        problem = f"{question}: the server says {str(error)!r}"
    return question.result(reply, problem)
