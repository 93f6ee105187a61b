"""Opens many server-sent event streams at once and tells how long their events took.

The mock provider, told `stamp=1`, puts the CLOCK_MONOTONIC nanosecond of sending into every event's id.
"""

import re
import selectors
import socket
import time

EVENT = re.compile(rb'"id":\s*"chatcmpl-(\d+)"')
LIMIT_S = 15.0


class Stream:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent_ns = self.first_ns = None
        self.tail = b""  # the end of what was read, where an event may begin
        self.done = False

    def read(self, transits):
        """Takes what has come; returns whether more may come."""
        data = self.socket.recv(65536)
        now = time.monotonic_ns()
        text, end = self.tail + data, 0
        for event in EVENT.finditer(text):
            end = event.end()
            transits.append(now - int(event[1]))
            if self.first_ns is None:
                self.first_ns = now - self.sent_ns
        self.done = self.done or b"data: [DONE]" in text
        self.tail = text[max(end, len(text) - 64) :]
        return bool(data) and not self.done


def wave(port, path, headers, body, count, spread_s):
    """`count` streams, started evenly over `spread_s`: (ns to each one's first event, ns of each event's way, failed)."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, f"Content-Length: {len(body)}"]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    streams = [Stream(port) for _ in range(count)]
    transits, waiting, is_open = [], list(reversed(streams)), count
    start = time.monotonic()
    with selectors.DefaultSelector() as ready:
        for stream in streams:
            ready.register(stream.socket, selectors.EVENT_READ, stream)
        while is_open and time.monotonic() < start + LIMIT_S:
            due = start + (count - len(waiting)) * spread_s / count
            if waiting and time.monotonic() >= due:
                stream = waiting.pop()
                stream.sent_ns = time.monotonic_ns()
                stream.socket.sendall(request)
                continue
            for key, _ in ready.select(max(0.0, due - time.monotonic()) if waiting else 0.5):
                if not key.data.read(transits):
                    ready.unregister(key.fileobj)
                    is_open -= 1
    for stream in streams:
        stream.socket.close()
    firsts = [s.first_ns for s in streams if s.first_ns is not None]
    return firsts, transits, sum(not (s.done and s.first_ns is not None) for s in streams)
