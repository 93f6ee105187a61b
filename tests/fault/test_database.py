"""PostgreSQL slow, stopped and started again under load: calls go on, the journal holds what it lacks, and afterwards
no call is missing."""

import json
import subprocess
import time

import pytest
from faults import LONG, Load, priced, quiet, spent, start
from harness import PENSTOCK, until
from postgres_server import PASSWORD


def verify(gateway, *more):
    run = subprocess.run(
        [PENSTOCK, "ledger", "verify", "--config", gateway.file, *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.mark.timeout(300)
def test_a_stopped_database_loses_no_call(tmp_path, mock, postgres):
    config = priced(mock, 1_000, ledger={"database": postgres.url})
    gateway = start(tmp_path / "gateway", config)
    load = Load([gateway.port], threads=4).start()
    until(lambda: load.answered > 20)
    postgres.stop()
    until(lambda: gateway.health("/health/database")["status"] == "degraded")
    until(lambda: gateway.metric("penstock_state_degraded", store="ledger") == 1)
    before = load.answered
    time.sleep(60 if LONG else 4)  # the outage itself
    assert load.answered > before, "calls stopped with the database"
    assert gateway.metric("penstock_journal_unapplied_bytes") > 0
    postgres.start()
    until(lambda: gateway.health("/health/database")["status"] == "ok", seconds=20)
    load.stop()
    quiet(mock)
    assert load.refused == {}
    assert load.unanswered == 0
    until(lambda: gateway.health("/health/database")["up_to_date"] == 1, seconds=30)
    calls, cost = postgres.query("select count(*), sum(cost) from calls")[0]
    print(f"\n{load.answered} calls, {calls} in the ledger, {cost} nano-dollars, billed {mock.billed()}")
    assert int(calls) == load.answered
    assert int(cost) == load.cost == mock.billed()
    assert spent(gateway.port) == (mock.billed(), 0)
    print(verify(gateway, "--url", gateway.url))
    gateway.stop()


def test_a_database_that_stands_still_holds_nobody_up(tmp_path, mock, postgres):
    gateway = start(tmp_path / "gateway", priced(mock, 1_000, ledger={"database": postgres.url}))
    load = Load([gateway.port], threads=2).start()
    until(lambda: load.answered > 20)
    postgres.pause()
    before = load.answered
    until(lambda: load.answered > before + 500)
    postgres.resume()
    load.stop()
    quiet(mock)
    until(lambda: gateway.health("/health/database").get("up_to_date") == 1, seconds=40)
    assert int(postgres.query("select sum(cost) from calls")[0][0]) == load.cost == mock.billed()
    gateway.stop()


def test_a_journal_that_grows_too_far_fails_closed_and_recovers(tmp_path, mock, postgres):
    config = priced(mock, 1_000, ledger={"database": postgres.url, "max_journal": "1MiB"})
    gateway = start(tmp_path / "gateway", config)
    load = Load([gateway.port], threads=4).start()
    until(lambda: load.answered > 20)
    postgres.stop()
    until(lambda: load.refused.get("policy_state_unavailable", 0) > 0, seconds=60)
    assert gateway.health("/health/ready") == {"status": "closed"}
    postgres.start()
    until(lambda: gateway.health("/health/ready") == {"status": "ready"}, seconds=30)
    before = load.answered
    until(lambda: load.answered > before)
    load.stop()
    quiet(mock)
    assert set(load.refused) == {"policy_state_unavailable"}
    until(lambda: gateway.health("/health/database").get("up_to_date") == 1, seconds=30)
    assert int(postgres.query("select sum(cost) from calls")[0][0]) == load.cost == mock.billed()
    gateway.stop()


def test_a_database_that_is_gone_at_the_start_is_told(tmp_path, mock, postgres):
    postgres.stop()
    config = priced(mock, 1_000, ledger={"database": postgres.url})
    (tmp_path / "penstock.yaml").write_text(json.dumps(config))
    run = subprocess.run(
        [PENSTOCK, "serve", "--config", tmp_path / "penstock.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert "database" in run.stderr
    assert PASSWORD not in run.stdout + run.stderr
