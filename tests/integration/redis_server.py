"""A redis-server of a test's own, on a free port, that can be stopped in every way that servers stop."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


class RedisServer:
    """with RedisServer(tmp_path) as redis: ... redis.url

    Further settings go by name: RedisServer(tmp_path, appendfsync="always", maxmemory="50mb").
    """

    def __init__(self, folder: Path, **settings: str):
        self.folder = Path(folder) / "redis"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = {"appendonly": "yes", "save": ""} | settings
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.process = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self, seconds: float = 10) -> None:
        words = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in self.settings.items():
            words += [f"--{name}", value]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + seconds
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def ask(self, *words: str) -> str:
        """The answer of redis-cli, in database 1."""
        command = ["redis-cli", "-p", str(self.port), "-n", "1", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    def stop(self) -> None:
        """As kill -9 does, also when it is paused."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.process = None

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """With what it had written."""
        self.stop()
        self.start()

    def restart_empty(self) -> None:
        self.stop()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        self.start()

    def keep_copy(self) -> None:
        """What it has written so far, for restart_old."""
        shutil.rmtree(self.folder / "kept", ignore_errors=True)
        shutil.copytree(self.folder / "appendonlydir", self.folder / "kept")

    def restart_old(self) -> None:
        """With what it had written when keep_copy was called."""
        self.stop()
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        shutil.copytree(self.folder / "kept", self.folder / "appendonlydir")
        self.start()
