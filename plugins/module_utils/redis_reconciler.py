"""Bring a running server to wanted settings, live."""

from __future__ import annotations

from ansible_collections.proven.redis.plugins.module_utils.conf_directives import SECRET_NAMES, fold
from ansible_collections.proven.redis.plugins.module_utils.conf_meaning import normalise
from ansible_collections.proven.redis.plugins.module_utils.conf_plan import MASK, Planned
from ansible_collections.proven.redis.plugins.module_utils.redis_live import (
    SaveError,
    bgsave,
    info,
    wait_for_rewrite,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ServerError,
    wait_until,
)


class ApplyError(Exception):
    """The running server did not become what the file says; the text says why."""


class Reconciler:
    """Brings a running server to the wanted settings, and reads back every one of them.

    Every method raises ApplyError, or what the connection raises.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self.timeout = timeout

    def apply(self, changes: list[Planned]) -> None:
        """CONFIG SET each change, appendonly last."""
        for change in sorted(changes, key=lambda item: item.name == "appendonly"):
            if change.name == "appendonly" and change.desired == "no":
                # What the next start will load is the RDB: it has to be of now.
                self.save()
            self.set(change.name, str(change.desired))

    def finish_appendonly(self) -> None:
        """Wait until the append-only file holds all data; only then may the file turn it on.

        Needed also when this run changes nothing: an earlier one may have ended in the middle.
        """
        try:
            state = wait_for_rewrite(self.connection, self.timeout)
        except SaveError as error:
            raise ApplyError(str(error)) from None
        if state["aof_last_bgrewrite_status"] != "ok":
            raise ApplyError(
                "The rewrite of the append-only file failed, so it does not hold all data; the "
                "server's log says why. BGREWRITEAOF tries again."
            )

    def set(self, name: str, value: str) -> None:
        shown = MASK if fold(name) in SECRET_NAMES else value
        try:
            self.connection.command("CONFIG", "SET", name, value)
            answer = self.connection.command("CONFIG", "GET", name)
        except ServerError as error:
            raise ApplyError(
                f"The running server refuses CONFIG SET {name} {shown}: {error}."
            ) from None
        if len(answer) != 2 or normalise(name, [answer[1]]) != normalise(name, [value]):
            raise ApplyError(
                f"The running server took CONFIG SET {name} {shown} and reads back another."
            )

    def save(self) -> None:
        try:
            bgsave(self.connection, self.timeout)
        except SaveError as error:
            raise ApplyError(str(error)) from None

    def role(self) -> tuple[str, int] | None:
        state = info(self.connection, "replication")
        if state["role"] == "master":
            return None
        return str(state["master_host"]), int(state["master_port"])

    def follow(self, target: tuple[str, int]) -> None:
        """Make the server a replica of ``target``."""
        self.connection.command("REPLICAOF", target[0], str(target[1]))

    def wait_for_link(self) -> None:
        """Wait until the link to the master is up."""

        def linked() -> bool:
            state = info(self.connection, "replication")
            return bool(state.get("master_link_status") == "up")

        if not wait_until(linked, self.timeout):
            raise ApplyError(
                f"The replica got no link to its master {self.role()} within {self.timeout} s."
            )
