"""A TCP relay on loopback that counts what goes through it, for comparing what tools send."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

CHUNK = 1 << 16


@dataclass
class Relay:
    """Bytes that clients sent to the server behind the relay, and what they got back."""

    port: int
    sent: int = 0
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Count from nothing again."""
        with self._lock:
            self.sent = self.received = 0

    def _pump(self, source: socket.socket, sink: socket.socket, *, upstream: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                with self._lock:
                    if upstream:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _serve(self, client: socket.socket, target: int) -> None:
        with client, socket.create_connection(("127.0.0.1", target)) as server:
            back = threading.Thread(
                target=self._pump, args=(server, client), kwargs={"upstream": False}, daemon=True
            )
            back.start()
            self._pump(client, server, upstream=True)
            back.join()


@contextlib.contextmanager
def relay(target: int) -> Iterator[Relay]:
    """Relay a free port of loopback to the port ``target``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Relay(listener.getsockname()[1])

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=made._serve, args=(client, target), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield made
