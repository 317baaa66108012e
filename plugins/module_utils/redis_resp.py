"""A small RESP client for modules that must work before anything is installed on the host.

The Redis serialization protocol, version 2, as documented at
https://redis.io/docs/latest/develop/reference/protocol-spec/. Standard library only, Python 3.9.
Text is decoded as UTF-8 with ``surrogateescape``, so that any byte a server returns survives a
round trip. Secrets travel on the socket alone: never in arguments of a process or in a log.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

ENCODING = "utf-8"


class ServerError(Exception):
    """The server answered with an error reply; the text is the server's own."""


class ProtocolError(Exception):
    """What answered does not speak RESP."""


class Login(NamedTuple):
    """A password and whose it is; without a name, that of the default user."""

    username: str | None
    password: str


def logins(username: str, *passwords: str | None) -> list[Login]:
    """What to try with a server that may be before or after a change of its users or passwords:
    each password as that of the user, and as that of the default user.
    """
    names = [None] if username == "default" else [username, None]
    return [Login(name, word) for word in passwords if word for name in names]


class Connection:
    """One connection to a server, by TCP or by a unix socket.

    Args:
        address: host name or IP address; ignored when ``unixsocket`` is given.
        port: TCP port.
        unixsocket: path of a unix socket.
        timeout: seconds to wait for the connection and for each reply.

    Raises:
        OSError: nothing listens there, or it did not answer in time.
    """

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 6379,
        unixsocket: str | None = None,
        timeout: float = 5.0,
    ) -> None:
        if unixsocket is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(timeout)
            try:
                self._socket.connect(unixsocket)
            except OSError:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection((address, port), timeout=timeout)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; never raises."""
        try:
            self._reader.close()
            self._socket.close()
        except OSError:
            pass

    def command(self, *words: str) -> Any:
        """Send one command and return its reply.

        Returns:
            ``str`` for simple and bulk strings, ``int``, ``list`` for arrays, ``None`` for null.

        Raises:
            ServerError: the reply is an error.
            ProtocolError: the reply is not RESP.
            OSError: the connection broke or timed out.
        """
        encoded = [word.encode(ENCODING, "surrogateescape") for word in words]
        request = b"*%d\r\n" % len(encoded)
        request += b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self._socket.sendall(request)
        return self._reply()

    def _reply(self) -> Any:
        line = self._reader.readline(65536)
        if not line:
            raise ConnectionResetError("the server closed the connection")
        if not line.endswith(b"\r\n"):
            raise ProtocolError(f"unexpected bytes {line[:40]!r}")
        kind, rest = line[:1], line[1:-2]
        text = rest.decode(ENCODING, "surrogateescape")
        if kind == b"+":
            return text
        if kind == b"-":
            raise ServerError(text)
        if kind not in (b":", b"$", b"*"):
            raise ProtocolError(f"unexpected bytes {line[:40]!r}")
        try:
            number = int(rest)
        except ValueError:
            raise ProtocolError(f"unexpected bytes {line[:40]!r}") from None
        if kind == b":":
            return number
        if number < 0:
            return None
        if kind == b"*":
            return [self._reply() for _ in range(number)]
        payload = self._reader.read(number + 2)
        if len(payload) != number + 2:
            raise ConnectionResetError("the server closed the connection in the middle of a reply")
        return payload[:-2].decode(ENCODING, "surrogateescape")

    def authenticate(self, password: str | None, username: str | None = None) -> None:
        """Authenticate; a server that has no password yet takes any client, so that is no error.

        Raises:
            ServerError: the server refuses this password.
        """
        if not password:
            return
        words = ["AUTH", password] if username is None else ["AUTH", username, password]
        try:
            self.command(*words)
        except ServerError as error:
            if "without any password configured" not in str(error):
                raise

    def log_in(self, tried: Sequence[Login]) -> Login | None:
        """Authenticate by the first of these that the server takes; return it.

        None at all is no error: a server without a password takes any client.

        Raises:
            ServerError: the server refuses all; it is the answer to the first.
        """
        refused: ServerError | None = None
        for login in tried:
            try:
                self.authenticate(login.password, login.username)
            except ServerError as error:
                refused = refused or error
            else:
                return login
        if refused is not None:
            raise refused
        return None

    def config(self) -> dict[str, str]:
        """All of CONFIG GET, names in lower case."""
        flat = self.command("CONFIG", "GET", "*")
        return {name.lower(): value for name, value in zip(flat[::2], flat[1::2])}


def wait_until(condition: Any, timeout: float, pause: float = 0.2) -> bool:
    """Call ``condition`` until it is true or ``timeout`` seconds have passed; tell which."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
    return True
