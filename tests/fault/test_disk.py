"""The journal on a machine that fails: a disk that is full or broken, a power failure, files that were damaged."""

import random
import shutil
import subprocess

import pytest
from faults import ESTIMATE, LONG, Load, kill, priced, quiet, seed, spent, start
from harness import PENSTOCK, until


def journal_files(folder):
    return sorted((folder / "penstock-data" / "journal").glob("*.journal"))


@pytest.mark.parametrize("sync", ["interval", "always"])
def test_power_failure(tmp_path, mock, machine, sync):
    """What was not synced is gone. With sync: always nothing that left had an unsynced reservation, so that spend is
    still at least the bill; with an interval the loss is bounded by what was reserved within it."""
    folder = tmp_path / "gateway"
    rng = random.Random(seed())
    for _ in range(20 if LONG else 4):
        mock.admin("reset")
        config = priced(mock, 1_000, ledger={"sync": sync, "sync_interval": "5ms"})
        shutil.rmtree(folder, ignore_errors=True)
        gateway = start(folder, config, machine=machine, fault=f"power:{rng.randint(5, 400)}")
        load = Load([gateway.port], threads=4).start()
        gateway.process.wait(timeout=30)
        kill(gateway)
        load.stop()
        quiet(mock, "dead")
        gateway = start(folder, config)
        settled, held = spent(gateway.port)
        assert held == 0
        if sync == "always":
            assert settled >= mock.billed()
        assert settled <= load.cost + load.unanswered * ESTIMATE + load.answered * ESTIMATE
        gateway.stop()


def test_a_full_disk_refuses_before_it_loses(tmp_path, mock, machine):
    folder = tmp_path / "gateway"
    gateway = start(
        folder, priced(mock, 1_000, ledger={"max_journal": "2MiB"}), machine=machine, fault="full:8"
    )
    load = Load([gateway.port], threads=4).start()
    until(lambda: load.refused.get("policy_state_unavailable", 0) > 10, seconds=60)
    until(lambda: gateway.health("/health/ready")["status"] == "closed")
    load.stop()
    quiet(mock)
    assert load.answered > 0
    assert set(load.refused) == {"policy_state_unavailable"}
    kill(gateway)
    gateway = start(folder, priced(mock, 1_000))  # on a machine with room again
    settled, _ = spent(gateway.port)
    assert mock.billed() <= settled <= mock.billed() + 8 * ESTIMATE
    assert gateway.get("/p/mock/geocode?q=x&credits=1").status_code == 200
    gateway.stop()


def test_a_disk_that_cannot_sync_ends_the_process(tmp_path, mock, machine):
    """After a failed fsync nobody knows what is on the disk (the kernel may have dropped the pages): going on would
    promise what cannot be kept."""
    folder = tmp_path / "gateway"
    gateway = start(folder, priced(mock, 1_000), machine=machine, fault="sync-error:30")
    load = Load([gateway.port], threads=4).start()
    assert gateway.process.wait(timeout=30) != 0
    load.stop()
    quiet(mock)
    assert "journal" in gateway.stderr()
    kill(gateway)
    gateway = start(folder, priced(mock, 1_000))
    settled, _ = spent(gateway.port)
    assert mock.billed() <= settled <= load.cost + load.unanswered * ESTIMATE + load.answered * ESTIMATE
    gateway.stop()


def test_damage_is_refused_with_its_place(tmp_path, mock):
    """A flipped bit before valid records is no torn tail: the gateway says where, and starts on nothing."""
    folder = tmp_path / "gateway"
    config = priced(mock, 1_000)
    gateway = start(folder, config)
    load = Load([gateway.port], threads=2).start()
    until(lambda: load.answered > 200)
    kill(gateway)
    load.stop()
    file = max(journal_files(folder), key=lambda one: one.read_bytes().rstrip(b"\0").__len__())
    content = bytearray(file.read_bytes())
    whole = len(content.rstrip(b"\0"))
    content[whole // 3] ^= 0x10  # long synced
    file.write_bytes(content)
    run = subprocess.run(
        [PENSTOCK, "serve", "--config", gateway.file], capture_output=True, text=True, timeout=30, check=False
    )
    applied = "listens on" in run.stdout
    assert not applied, "it took a damaged journal for a whole one"
    assert run.returncode == 1
    assert file.name in run.stderr
    assert "offset" in run.stderr or "byte" in run.stderr


def test_one_process_per_directory(tmp_path, mock):
    folder = tmp_path / "gateway"
    gateway = start(folder, priced(mock, 1_000))
    run = subprocess.run(
        [PENSTOCK, "serve", "--config", gateway.file], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 1
    assert "penstock-data" in run.stderr
    gateway.stop()
