"""G2: after kill -9 at any instant and a restart, recorded spend is at least what the provider billed, and at most
that plus the reservations that were open. The provider here is the mock, which keeps its own bill."""

import random
import time
from decimal import Decimal

import pytest
from faults import CREDIT, ESTIMATE, LONG, Load, kill, priced, quiet, seed, spent, start
from harness import nano

ROUNDS = 1_000 if LONG else 25


def recovered(gateway):
    """How many reservations it found open at its start, as it says."""
    lines = gateway.await_log(message="recovered")
    return int(lines[0]["reservations"])


def check_books(gateway, mock, before, load, where, knows_all=True):
    """What one life spent, seen from three sides: the ledger after recovery, the provider's bill, the callers.
    `knows_all`: no earlier start died while it recovered, so that this one's count of open reservations is all."""
    settled, held = spent(gateway.port)
    opened = recovered(gateway)
    now_billed = mock.billed()
    assert held == 0, where
    life, billed = settled - before["settled"], now_billed - before["billed"]
    assert life >= billed, f"{where}: recovered {life}, billed {billed}"
    if knows_all:
        assert life <= billed + opened * ESTIMATE, (
            f"{where}: recovered {life}, billed {billed}, {opened} open"
        )
    # From outside: what answered callers were told, and at most the estimate for each who heard nothing.
    most = load.cost + load.unanswered * ESTIMATE
    assert load.cost <= life <= most, (
        f"{where}: {load.cost} told, {load.unanswered} unanswered, {life} recovered"
    )
    assert opened <= load.unanswered, where
    before["settled"], before["billed"] = settled, now_billed
    return opened


@pytest.mark.timeout(3600 if LONG else 240)
def test_kill_at_random_instants(tmp_path, mock):
    random_seed = seed()
    rng = random.Random(random_seed)
    folder = tmp_path / "gateway"
    totals = {"reservations": 0, "calls": 0, "rounds that met the budget": 0}
    before = {"settled": 0, "billed": 0}
    limit = ESTIMATE * 1_000
    load = None
    for number in range(ROUNDS + 1):
        gateway = start(folder, priced(mock, Decimal(limit) / 10**9))
        if load is not None:
            where = f"round {number}, seed {random_seed}"
            totals["reservations"] += check_books(gateway, mock, before, load, where)
            assert before["settled"] <= limit, where
        if number == ROUNDS:
            gateway.stop()
            break
        # The budget is met in about every second round: G1 through crashes.
        limit = before["settled"] + ESTIMATE * rng.choice([12, 1_000])
        gateway.reload(priced(mock, Decimal(limit) / 10**9))
        load = Load([gateway.port], random_seed=f"{random_seed} {number}").start()
        time.sleep(rng.uniform(0.002, 0.12))  # the instant of the kill: not a wait for something
        kill(gateway)
        load.stop()
        quiet(mock, "dead")
        totals["calls"] += load.answered
        totals["rounds that met the budget"] += load.refused.get("policy_budget_exceeded", 0) > 0
    print(f"\n{ROUNDS} rounds of kill -9, seed {random_seed}: {totals}, billed {mock.billed()} nano-dollars")
    assert totals["reservations"] > 0
    assert totals["rounds that met the budget"] > 0


@pytest.mark.timeout(3600 if LONG else 240)
@pytest.mark.parametrize("fault", ["kill-before", "kill-after", "kill-torn"])
def test_kill_at_every_journal_write(tmp_path, mock, machine, fault):
    """The first writes of a life one by one: the segment's beginning, reservations, settlements, calls."""
    before = {"settled": 0, "billed": 0}
    folder = tmp_path / "gateway"
    opened = 0
    config = priced(mock, 1_000)
    last = None  # the load of the last life that began, unchecked so far
    knows_all = True
    for number in range(1, 200 if LONG else 24):
        try:
            gateway = start(folder, config, machine=machine, fault=f"{fault}:{number}")
        except AssertionError:
            knows_all = False  # it died while it recovered, or at its first segment
            continue
        if last is not None:
            opened += check_books(gateway, mock, before, last, f"{fault}:{number}", knows_all)
        knows_all = True
        last = Load([gateway.port], threads=2, random_seed=f"{fault} {number}").start()
        gateway.process.wait(timeout=30)
        kill(gateway)
        last.stop()
        quiet(mock, "dead")
    gateway = start(folder, config)
    assert last is not None, "no life got as far as serving"
    opened += check_books(gateway, mock, before, last, f"after {fault}", knows_all)
    gateway.stop()
    print(f"\n{fault}: {opened} reservations recovered, billed {mock.billed()} nano-dollars")
    assert mock.billed() > 0


def test_a_clean_stop_and_start_changes_nothing(tmp_path, mock):
    folder = tmp_path / "gateway"
    gateway = start(folder, priced(mock, 100))
    load = Load([gateway.port], threads=4).start()
    time.sleep(0.2)
    load.stop()
    gateway.stop()
    gateway = start(folder, priced(mock, 100))
    assert spent(gateway.port) == (mock.billed(), 0) == (load.cost, 0)
    assert recovered(gateway) == 0
    answer = gateway.get("/p/mock/geocode?q=x&credits=3")
    assert nano(answer.headers["Penstock-Cost"]) == 3 * CREDIT
    gateway.stop()
