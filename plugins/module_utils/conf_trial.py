"""The wanted configuration file, and what a server makes of it in a trial boot."""

from __future__ import annotations

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import SECRET_NAMES, fold
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import settings
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import Change
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import Connection
from ansible_collections.proven.redis.plugins.module_utils.trial_boot import boot_and_ask

# What a trial boot must not share with the real one. Redis unlinks the path it is given as
# unixsocket, opens its logfile, and follows replicaof: none of these may be the live ones.
TRIAL_OVERRIDES = (
    ("port", "0"),
    ("tls-port", "0"),
    ("bind", "127.0.0.1"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("supervised", "no"),
    ("logfile", '""'),
    ("save", '""'),
    ("replicaof", "no one"),
)


class Wanted:
    """The wanted configuration file, and what it sets by today's name of each directive."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.values = settings(text)

    @property
    def replicaof(self) -> tuple[str, int] | None:
        words = self.values.get("replicaof", "").split()
        return (words[0], int(words[1])) if words else None

    def turns_on_appendonly(self, in_file: list[Change]) -> bool:
        """Whether the file is about to turn on the append-only file."""
        return self.values.get("appendonly") == "yes" and any(
            change.name == "appendonly" for change in in_file
        )


def effective_settings(server: str, account: str, wanted: Wanted) -> dict[str, str]:
    """CONFIG GET of a server that runs with the wanted file.

    Args:
        server: path of the server's binary.
        account: account to run it as.
        wanted: the file.

    Raises:
        RefusedError: it does not start with it.
    """

    def question(connection: Connection) -> dict[str, str]:
        connection.authenticate(wanted.values.get("requirepass"))
        return dict(connection.config())

    return dict(
        boot_and_ask(
            server,
            account,
            lambda folder: {"redis.conf": candidate(wanted, folder)},
            question,
        )
    )


def candidate(wanted: Wanted, folder: str) -> str:
    """The wanted file, with what a trial boot must not share overridden at its end."""
    lines = []
    for line in wanted.text.split("\n"):
        # dir is entered as soon as it is read, and may not be there yet in check mode; so is the
        # file of the users, which redis_acl has tried before it wrote it.
        if not line.lower().startswith(("dir ", "aclfile ")):
            lines.append(line)
    overrides = [*TRIAL_OVERRIDES, ("dir", folder), ("unixsocket", f"{folder}/s")]
    overrides.append(("pidfile", f"{folder}/pid"))
    lines += [f"{name} {value}" for name, value in overrides]
    return "\n".join(lines) + "\n"


def effective_of(content: str, wanted: Wanted, effective: dict[str, str]) -> dict[str, str]:
    """CONFIG GET of a server that runs with `content`, as far as that of one with the wanted file
    tells: nothing is known of what differs between them."""
    own = settings(content)
    return {
        name: value
        for name, value in effective.items()
        if own.get(fold(name)) == wanted.values.get(fold(name))
    }


def reason(log: str) -> str:
    """Why a server did not start: the end of its log, behind its logo, secrets masked."""
    lines = [line.strip() for line in log.splitlines()]
    words = [line for line in lines if line and not line.startswith(("_", ".-", "|", "`"))]
    return " ".join(mask_line(line) for line in words[-4:])


def mask_line(line: str) -> str:
    """Hide the value when the server quotes the line of a secret back at us."""
    name, _, rest = line.lstrip("> '\"").partition(" ")
    return line.replace(rest, "********'") if rest and fold(name.lower()) in SECRET_NAMES else line
