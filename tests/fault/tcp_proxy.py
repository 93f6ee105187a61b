"""A network that fails on purpose: a TCP proxy on the loopback that can hold back either direction, delay, cut and
refuse. One thread; every change acts on open connections too."""

import contextlib
import selectors
import socket
import threading
import time

CHUNK = 65536


class TcpProxy:
    """Forwards to `target` (a port). `to_server` and `to_client` say what happens to bytes that way: "pass" or
    "hold" (they wait, and nothing is read any more); `delay` seconds are added each way; `refuse` ends connections
    as they come."""

    def __init__(self, target):
        self.target = target
        self.to_server = "pass"
        self.to_client = "pass"
        self.delay = 0.0
        self.refuse = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._pairs = {}  # socket -> (the other, is it the client's)
        self._late = []  # (due, destination, bytes)
        self._cut = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="tcp-proxy", daemon=True)
        self._thread.start()

    def cut(self):
        """Ends every open connection."""
        self._cut = True

    def stop(self):
        self._stopping = True
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()

    def _run(self):
        while not self._stopping:
            if self._cut:
                self._cut = False
                for sock in list(self._pairs):
                    self._end(sock)
            self._deliver()
            for key, _ in self._selector.select(timeout=0.002):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._pairs:
                    self._forward(key.fileobj)
        for sock in list(self._pairs):
            self._end(sock)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            if self.refuse:
                client.close()
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=1)
            except OSError:
                client.close()
                return
            for sock, other, is_client in ((client, server, True), (server, client, False)):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pairs[sock] = (other, is_client)
                self._selector.register(sock, selectors.EVENT_READ, None)

    def _forward(self, sock):
        other, is_client = self._pairs[sock]
        if (self.to_server if is_client else self.to_client) == "hold":
            time.sleep(0.001)  # the selector would come at once again
            return
        try:
            data = sock.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            self._end(sock)
        elif self.delay > 0 or self._late:
            self._late.append((time.monotonic() + self.delay, other, data))
        else:
            self._send(other, data)

    def _deliver(self):
        while self._late and self._late[0][0] <= time.monotonic():
            _, destination, data = self._late.pop(0)
            self._send(destination, data)

    def _send(self, sock, data):
        try:
            sock.settimeout(1)
            sock.sendall(data)
        except OSError:
            self._end(sock)

    def _end(self, sock):
        for one in (sock, self._pairs.get(sock, (None,))[0]):
            if one is None or one not in self._pairs:
                continue
            del self._pairs[one]
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._selector.unregister(one)
            one.close()
