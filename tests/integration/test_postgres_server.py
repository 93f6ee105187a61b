"""The database that other tests lean on does what they ask of it."""

import subprocess

import pytest
from postgres_server import PostgresServer


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as made:
        yield made


def test_keeps_what_was_committed_over_a_restart(server):
    url = server.make_database()
    server.query(url, "CREATE TABLE t (x int); INSERT INTO t VALUES (1), (2)")
    server.restart()
    assert server.query(url, "SELECT x FROM t ORDER BY x") == [["1"], ["2"]]


def test_a_paused_server_answers_nothing_until_it_goes_on(server):
    url = server.make_database()
    server.pause()
    try:
        ask = [server.programs / "pg_isready", "-q", "-t", "1", "-d", url]
        assert subprocess.run(ask, check=False).returncode == 2  # no answer
    finally:
        server.resume()
    assert server.query(url, "SELECT 1") == [["1"]]
