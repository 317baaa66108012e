"""A wire between a client and a server of this machine that can be slow, cut or dead."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType

_CHUNK = 16 * 1024
_PATIENCE = 0.05  # seconds between looks at whether the wire is still there


class Wire:
    """Forwards TCP connections from ``port`` to a port of 127.0.0.1.

    ``cut_after`` and ``freeze_after`` count the bytes that clients have sent over all connections:
    from then on a connection is reset, or stays open and carries nothing. ``cuts`` bounds how often
    that happens. ``rate`` is the bytes per second of each connection from client to server,
    ``drip`` from server to client. All can be changed while it runs; None is a good wire.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_after: int | None = None
        self.cuts = 1_000_000
        self.rate: int | None = None
        self.drip: int | None = None
        self.frozen = threading.Event()
        self.freeze_after: int | None = None
        self.sent = 0
        self.accepted = 0
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Wire:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                server = socket.create_connection(("127.0.0.1", self.target))
                # A frozen wire holds what it held; connections made later are good ones.
                frozen = threading.Event() if self.frozen.is_set() else self.frozen
                for ends, to_server in (((client, server), True), ((server, client), False)):
                    threading.Thread(
                        target=self._carry, args=(*ends, to_server, frozen), daemon=True
                    ).start()

    def _carry(
        self,
        source: socket.socket,
        target: socket.socket,
        to_server: bool,
        frozen: threading.Event,
    ) -> None:
        try:
            while data := source.recv(_CHUNK):
                if to_server:
                    self.sent += len(data)
                    if self.rate is not None:
                        time.sleep(len(data) / self.rate)
                    if self.freeze_after is not None and self.sent > self.freeze_after:
                        self.freeze_after = None
                        frozen.set()
                    if self.cut_after is not None and self.sent > self.cut_after and self.cuts:
                        self.cuts -= 1
                        break
                elif self.drip is not None:
                    for byte in data:
                        time.sleep(1 / self.drip)
                        target.sendall(bytes([byte]))
                    continue
                while frozen.is_set() and not self._ended.is_set():
                    time.sleep(_PATIENCE)
                target.sendall(data)
        except OSError:
            pass
        finally:
            # A dead wire does not tell that the other side has given up.
            while frozen.is_set() and not self._ended.is_set():
                time.sleep(_PATIENCE)
            for end in (source, target):
                # The other thread's calls end too; both sides see the connection end.
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
