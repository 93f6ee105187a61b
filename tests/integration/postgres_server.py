"""A real PostgreSQL for black-box tests: a cluster of its own in a temporary folder, on a free port of the
loopback, without fsync. Started by root it runs as the user `postgres`, since the server refuses root. Where
none is installed the test fails; it is never skipped."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from harness import until

PASSWORD = "s3cret-p@ss"


def _programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert found, "no PostgreSQL server in /usr/lib/postgresql: run 'make setup'"
    return found[-1].parent


def _children(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


class PostgresServer:
    """Runs from the start; `with PostgresServer() as server:` ends it and removes its folder."""

    def __init__(self):
        self.programs = _programs()
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
        self.process = None
        self.databases = 0
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        (self.folder / "password").write_text(PASSWORD + "\n")
        if self.user:
            for path in (self.folder, self.folder / "password"):
                os.chown(path, self.user.pw_uid, self.user.pw_gid)
        try:
            self._run(
                "initdb",
                *("-D", self.folder / "data", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale", "C"),
                *("-A", "scram-sha-256", "--pwfile", self.folder / "password"),
            )
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _as_user(self):
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}

    def _run(self, program, *arguments, **options):
        done = subprocess.run(
            [str(self.programs / program), *map(str, arguments)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **self._as_user(),
            **options,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout

    def _is_ready(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.programs / "postgres", "-D", self.folder / "data", "-k", self.folder),
                    *("-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_user(),
            )
        until(self._is_ready, seconds=60)

    def stop(self):
        """At once, as after a crash; what was committed is there when it starts again."""
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=60)
        self.process = None

    def restart(self):
        self.stop()
        self.start()

    def _signal_all(self, number):
        # Each backend has a session of its own, so that the group's signal would miss it.
        for pid in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def pause(self):
        """All its processes stand still: connections stay open and nothing answers. Until resume()."""
        self._signal_all(signal.SIGSTOP)

    def resume(self):
        self._signal_all(signal.SIGCONT)

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database):
        return f"postgresql://postgres:{quote(PASSWORD)}@127.0.0.1:{self.port}/{database}"

    def make_database(self):
        """A new database, empty; its URL."""
        self.databases += 1
        name = f"ledger{self.databases}"
        self.query("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def query(self, database, statement):
        """The rows, as lists of text. `database` is a name or a URL of this server."""
        url = database if "://" in database else self.url(database)
        out = self._run("psql", "-X", "-q", "-A", "-t", "-F", "\t", "-d", url, "-c", statement)
        return [line.split("\t") for line in out.splitlines()]
