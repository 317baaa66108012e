"""A client that asks on time, whatever the server does: an open loop.

    python3 bench/prober.py PORT RATE [--write KEYS]

sends RATE commands a second and counts each latency from the moment at which it was *meant* to be
sent, so that one stall shows in every request that it delays; a client that waits for its reply
before it asks again would report it once. The password comes in PASSWORD. Prints a line when it is
connected, ends when its stdin does and then prints a JSON list of [meant, latency], in seconds of
the machine's monotonic clock. With --write it sets random keys of so many instead, in batches, and
prints an empty list.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress

PING, PONG = b"PING\r\n", b"+PONG\r\n"
_LAST_REPLIES = 60.0  # seconds


def connect(port: int) -> socket.socket:
    """A connection to the server on loopback, authenticated."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(b"AUTH %b\r\n" % os.environ["PASSWORD"].encode())
    if connection.recv(100) != b"+OK\r\n":
        raise SystemExit("the server did not take the password")
    return connection


def probe(port: int, rate: float) -> list[tuple[float, float]]:
    """Ask until stdin ends. Returns (meant, latency) of every request."""
    connection = connect(port)
    print("connected", flush=True)
    connection.setblocking(False)
    waiting: deque[float] = deque()
    found: list[tuple[float, float]] = []
    unsent, unread = b"", 0
    begun, count = time.monotonic() + 0.05, 0
    end: float | None = None
    while end is None or (waiting and time.monotonic() < end):
        now = time.monotonic()
        while end is None and (meant := begun + count / rate) <= now:
            waiting.append(meant)
            unsent += PING
            count += 1
        with suppress(BlockingIOError):
            unsent = unsent[connection.send(unsent) :] if unsent else unsent
        pause = max(0.0, begun + count / rate - time.monotonic()) if end is None else 0.1
        listen = [connection] if end is not None else [connection, sys.stdin]
        readable, _, _ = select.select(listen, [connection] if unsent else [], [], pause)
        if connection in readable:
            unread += len(connection.recv(1 << 20))
            heard = time.monotonic()
            while unread >= len(PONG):
                unread -= len(PONG)
                meant = waiting.popleft()
                found.append((meant, heard - meant))
        if sys.stdin in readable and not os.read(sys.stdin.fileno(), 100):
            end = time.monotonic() + _LAST_REPLIES
    return found


def write(port: int, rate: float, keys: int) -> None:
    """Set keys, a hundredth of a second's worth at a time, until stdin ends."""
    connection = connect(port)
    print("connected", flush=True)
    batch = max(1, round(rate / 100))
    chance = random.Random(1)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        connection.sendall(
            b"".join(
                b"SET session:%d %032x%064x\r\n"
                % (chance.randrange(keys), chance.getrandbits(128), chance.getrandbits(256))
                for _ in range(batch)
            )
        )
        left = batch * len(b"+OK\r\n")
        while left:
            left -= len(connection.recv(left))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--write", type=int, metavar="KEYS")
    arguments = parser.parse_args()
    found: list[tuple[float, float]] = []
    if arguments.write is None:
        found = probe(arguments.port, arguments.rate)
    else:
        write(arguments.port, arguments.rate, arguments.write)
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
