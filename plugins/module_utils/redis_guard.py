"""What is looked at directly before a server is started, restarted, or made to follow another.

A decision about a set is some seconds old when a module carries it out, and the world goes on: a
failover by hand, a master that froze and thaws, a machine that reboots. So each module gets the
decision with what it was based on (`redis_topology.decide`), looks again at its own server and at
the master, and leaves everything as it is when they are not what was decided on.

Runs on managed hosts: Python 3.9, standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.proven.redis.plugins.module_utils.redis_history import (
    Position,
    contains,
    position_of,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_info import InfoError, parse_info
from ansible_collections.proven.redis.plugins.module_utils.redis_instance import connect
from ansible_collections.proven.redis.plugins.module_utils.redis_resp import (
    Connection,
    ProtocolError,
    ServerError,
)
from ansible_collections.proven.redis.plugins.module_utils.redis_set import same_endpoint

ARGUMENT_SPEC: dict[str, Any] = {
    "decided": {
        "type": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "role": {"type": "str", "required": True, "choices": ["master", "replica"]},
            "does": {"type": "str", "required": True},
            "replicaof": {"type": "list", "elements": "str"},
            "seen_role": {"type": "str"},
            "seen_master": {"type": "list", "elements": "str"},
            "may_lose": {"type": "bool", "default": False},
            "master": {"type": "str", "required": True},
            "master_addresses": {"type": "list", "elements": "str", "required": True},
            "master_port": {"type": "int", "required": True},
            "master_replid": {"type": "str"},
        },
    }
}


ADVICE = (
    "Somebody else is at work on this set, or it has changed by itself. This run changes nothing"
    " more here; when the set is settled, run again."
)


class GuardError(Exception):
    """A server is not what was decided on; the text says what was seen."""


class Live(NamedTuple):
    """What a server is right now.

    Attributes:
        role: master or replica.
        master: address and port of whom a replica follows.
        keys: how many it has, in all databases.
        position: where it is in which history.
    """

    role: str
    master: tuple[str, int] | None
    keys: int
    position: Position

    def __str__(self) -> str:
        if self.master is None:
            return "a master"
        return f"a replica of {self.master[0]}:{self.master[1]}"


def look(connection: Connection) -> Live:
    """What the server at the other end is."""
    info = parse_info(connection.command("INFO", "all"))
    replication = info["replication"]
    follows = None
    if replication["role"] != "master":
        follows = str(replication["master_host"]), int(replication["master_port"])
    return Live(
        "replica" if follows else "master",
        follows,
        sum(database["keys"] for database in info.get("keyspace", {}).values()),
        position_of(replication),
    )


class Guard:
    """A decision about one instance.

    Args:
        instance: the module's option of this name; the set's servers share the login.
        decided: the module's option of this name, None where the caller decided nothing.
    """

    def __init__(self, instance: Mapping[str, Any], decided: Mapping[str, Any] | None) -> None:
        self.instance = instance
        self.decided = decided

    def check_now(self, *, running: bool, with_master: bool = False) -> None:
        """Look at this server, and at its master too, and fail where either is not what was
        decided on.

        Args:
            running: whether the server has to run, or else the caller takes it for stopped.
            with_master: whether the server is about to get another role, or to start in its own.

        Raises:
            GuardError: see `check_own` and `check_master`.
            OSError: a server that has to run does not answer.
        """
        if self.decided is None:
            return
        own: Live | None = None
        try:
            with connect(self.instance, timeout=10) as connection:
                own = look(connection)
        except (OSError, ServerError):
            if running:
                raise
        self.check_own(own)
        if with_master:
            self.check_master(own)

    def check_own(self, live: Live | None) -> None:
        """Fail when this server is neither what it was nor what it is to be.

        Args:
            live: what it is now, None where it does not run.

        Raises:
            GuardError: it is something else.
        """
        decided = self.decided
        if decided is None or live is None:
            # A server that has stopped is started again in the role of its file; see check_file.
            return
        host, role = decided["host"], decided["seen_role"]
        if decided["does"] in ("bootstrap", "join"):
            # The packaged server may run, and is nobody's as long as it is empty.
            if live.keys or not (live.role == "master" or self._is_target(live)):
                raise GuardError(
                    f"{host} had no data when this run decided, and is {live} with"
                    f" {live.keys} keys now."
                )
            return
        before = _endpoint(decided["seen_master"])
        if not self._is_target(live) and not (
            live.role == role and same_endpoint(live.master, before)
        ):
            was = "was not running" if role is None else f"was {_role_text(role, before)}"
            raise GuardError(f"{host} {was} when this run decided, and is {live} now.")
        if decided["role"] == "master" and not self._is_history(live.position):
            raise GuardError(
                f"{host} is a master still, but of another history than the one that was decided"
                f" on ({live.position}, not {decided['master_replid'][:8]}): it was restarted, or"
                " was a replica meanwhile."
            )

    def check_empty(self, has_keys: bool) -> None:
        """Fail when data lies on the disk of a server that was decided to be a new one.

        Raises:
            GuardError: it does.
        """
        decided = self.decided
        if decided and has_keys and decided["does"] in ("bootstrap", "join"):
            raise GuardError(
                f"{decided['host']} had no data when this run decided, and there are keys in its"
                " data directory now."
            )

    def check_file(self, replicaof: str | None) -> None:
        """Fail when the file that a server is about to start with gives it another role.

        Args:
            replicaof: what the file says, `HOST PORT`; empty or None for a master.

        Raises:
            GuardError: it does.
        """
        decided = self.decided
        if decided is None:
            return
        words = (replicaof or "").split()
        named = (words[0], int(words[1])) if len(words) == 2 else None
        if decided["role"] == "master" and named is not None:
            raise GuardError(
                f"The file of {decided['host']} says replica of {named[0]}:{named[1]}, and"
                f" {decided['host']} was decided to be the master."
            )
        if decided["role"] == "replica" and not self._is_master(named):
            raise GuardError(
                f"The file of {decided['host']} says"
                f" {f'replica of {named[0]}:{named[1]}' if named else 'master'}, and"
                f" {decided['host']} was decided to be a replica of {decided['master']}."
            )

    def check_master(self, own: Live | None = None) -> None:
        """Fail when the server that this one is to follow is not the master that was decided on,
        or when following it would cost this one data.

        Args:
            own: what this server is, where it runs and follows somebody else until now. Read
                before the master is.

        Raises:
            GuardError: it is not, or it would.
        """
        decided = self.decided
        if decided is None or decided["role"] == "master":
            return
        name, replid = decided["master"], decided["master_replid"]
        try:
            found = self._ask_master()
        except (OSError, ServerError, ProtocolError, InfoError, KeyError) as error:
            if replid is None:
                return  # it is to be started later in this run
            raise GuardError(
                f"{name}, the master, does not answer {decided['host']}: {error}."
            ) from None
        if found.role != "master":
            raise GuardError(f"{name} was the master when this run decided, and is {found} now.")
        if not self._is_history(found.position):
            raise GuardError(
                f"{name} is a master still, but of another history than the one that was decided"
                f" on ({found.position}, not {(replid or '')[:8] or 'one that begins'}): it was"
                " restarted, or was a replica meanwhile."
            )
        if own is None or own.keys == 0 or decided["may_lose"] or self._is_target(own):
            return
        if not contains(found.position, own.position):
            raise GuardError(
                f"{decided['host']} is at {own.position} and {name} at {found.position}, which"
                f" does not contain that: as a replica, {decided['host']} would lose what"
                f" {name} never got."
            )

    def _ask_master(self) -> Live:
        decided = self.decided or {}
        where = {
            **self.instance,
            "addresses": decided["master_addresses"],
            "port": decided["master_port"],
        }
        with connect(where, timeout=10) as connection:
            return look(connection)

    def _is_master(self, endpoint: tuple[str, int] | None) -> bool:
        """Whether an address and port mean the master that was decided on."""
        decided = self.decided or {}
        return any(
            same_endpoint(endpoint, (address, decided["master_port"]))
            for address in decided["master_addresses"]
        )

    def _is_target(self, live: Live) -> bool:
        """Whether a server is in the role that was decided."""
        decided = self.decided or {}
        if decided["role"] == "master":
            return live.role == "master"
        return live.role == "replica" and self._is_master(live.master)

    def _is_history(self, position: Position) -> bool:
        replid = (self.decided or {})["master_replid"]
        return replid is None or position.replid == replid


def _endpoint(words: Sequence[str] | None) -> tuple[str, int] | None:
    return (words[0], int(words[1])) if words else None


def _role_text(role: str, master: tuple[str, int] | None) -> str:
    return f"a replica of {master[0]}:{master[1]}" if master else f"a {role}"
