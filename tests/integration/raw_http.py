"""HTTP over bare sockets: a client that sends exactly the given bytes, and a provider that answers with
exactly the given bytes and takes only canonical requests. Client libraries would repair or hide the framing."""

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field

TIMEOUT = 20
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)", re.DOTALL)


class Closed(Exception):
    """The peer ended the connection where more was due."""


class Malformed(Exception):
    """The peer sent what is not canonical HTTP/1.1."""


@dataclass
class Message:
    start: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def all(self, name):
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    def get(self, name):
        values = self.all(name)
        assert len(values) <= 1, (name, values)
        return values[0].decode("latin-1") if values else None

    @property
    def chunked(self):
        return self.get("Transfer-Encoding") is not None

    @property
    def status(self):
        return int(self.start.split(b" ")[1])

    @property
    def target(self):
        return self.start.split(b" ")[1].decode("latin-1")


class Stream:
    """One end of a connection, and a strict reader of what comes."""

    def __init__(self, connection):
        self.socket = connection
        self.socket.settimeout(TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""

    def send(self, data):
        self.socket.sendall(data)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError as error:
            raise Closed("reset") from error
        if not data:
            raise Closed(self.held)
        self.held += data

    def take(self, size):
        while len(self.held) < size:
            self._more()
        taken, self.held = self.held[:size], self.held[size:]
        return taken

    def line(self):
        while b"\n" not in self.held:
            self._more()
        line, _, self.held = self.held.partition(b"\n")
        if not line.endswith(b"\r") or b"\r" in line[:-1]:
            raise Malformed(line)
        return line[:-1]

    def rest(self):
        """Everything until the peer ends the connection."""
        with contextlib.suppress(Closed):
            while True:
                self._more()
        taken, self.held = self.held, b""
        return taken

    def field_lines(self):
        fields = []
        while line := self.line():
            match = FIELD.fullmatch(line)
            if not match:
                raise Malformed(line)
            fields.append((match[1], match[2].rstrip(b" \t")))
        return fields

    def chunks(self):
        body = b""
        while True:
            line = self.line()
            if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", line):
                raise Malformed(line)
            size = int(line, 16)
            if size == 0:
                return body
            body += self.take(size)
            if self.line():
                raise Malformed("no CRLF after a chunk")

    def read_body(self, message):
        """The body by its length fields; False where there are none."""
        lengths, codings = message.all("Content-Length"), message.all("Transfer-Encoding")
        if len(lengths) + len(codings) > 1:
            raise Malformed(message)
        if codings:
            if codings != [b"chunked"]:
                raise Malformed(message)
            message.body = self.chunks()
            message.trailers = self.field_lines()
        elif lengths:
            if not re.fullmatch(rb"[0-9]+", lengths[0]):
                raise Malformed(message)
            message.body = self.take(int(lengths[0]))
        return bool(lengths or codings)

    def request(self, on_head=None):
        request = Message(self.line())
        if not re.fullmatch(rb"[A-Z]+ /[!-~]* HTTP/1\.1", request.start):
            raise Malformed(request.start)
        request.fields = self.field_lines()
        if len(request.all("Host")) != 1:
            raise Malformed(request)
        if on_head is None or on_head(request, self):
            self.read_body(request)
        return request

    def response(self, to_head=False):
        """The next response, interim ones included."""
        response = Message(self.line())
        if not re.fullmatch(rb"HTTP/1\.1 [1-5][0-9][0-9] [\t\x20-\x7e\x80-\xff]*", response.start):
            raise Malformed(response.start)
        response.fields = self.field_lines()
        bodiless = to_head or response.status < 200 or response.status in (204, 304)
        if not bodiless and not self.read_body(response):
            response.body = self.rest()
        return response

    def is_closed(self):
        """Waits for the end; anything that still comes is a fault."""
        return self.rest() == b""


def connect(port):
    return Stream(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT))


def ok(body=b"ok", *fields):
    lines = b"".join(line + b"\r\n" for line in fields)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), lines, body)


class Upstream:
    """A provider on a port of its own. `answer(request, stream)` writes the response and returns whether the
    connection goes on. `on_head(request, stream)` comes before the body and returns whether to read that."""

    def __init__(self, answer=None, on_head=None):
        self.on_head = on_head
        self.expects_cuts = False  # a request that breaks off is what the test wants
        self.answer = answer or (lambda request, stream: stream.send(ok()) or True)
        self.requests = []
        self.faults = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.streams = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream = Stream(self.listener.accept()[0])
                self.streams.append(stream)
                thread = threading.Thread(target=self._serve, args=(stream,), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _serve(self, stream):
        with stream, contextlib.suppress(OSError):
            try:
                while True:
                    request = stream.request(self.on_head)
                    self.requests.append(request)
                    if not self.answer(request, stream):
                        return
            except Closed as closed:
                if not self.expects_cuts and closed.args[0] not in (b"", "reset"):
                    self.faults.append(closed)
            except Malformed as malformed:
                self.faults.append(malformed)

    def close(self):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for stream in self.streams:
            with contextlib.suppress(OSError):
                stream.socket.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(TIMEOUT)
