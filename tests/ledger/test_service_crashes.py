"""The whole service keeps what it confirms: when it is killed, loses its database, meets another one, or is to end."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nectar_demo.ledger import LedgerProcess
from nectar_protocol.checkpoint import Checkpoint

from benchmarks.crash import CONNECTIONS, Campaign, Round
from benchmarks.ledgers import found, serving
from benchmarks.people import People
from benchmarks.promises import Promises, Record
from benchmarks.requests import Sent, send
from tests.ledger.engines import Place, PostgresServer

ROUNDS = 20
sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
postgresql = pytest.mark.parametrize("place", ["postgresql"], indirect=True)


@pytest.fixture
def running(postgres: PostgresServer) -> Iterator[PostgresServer]:
    yield postgres
    postgres.start_again()


def check(played: Round) -> None:
    assert played.confirmed > 0
    assert (played.lost, played.counted_twice, played.findings) == (0, 0, 0)


def test_kill_9_of_the_service_loses_nothing_confirmed_and_a_resend_changes_nothing(
    place: Place, tmp_path: Path
) -> None:
    check(Campaign(tmp_path / "ledger", place.url, seed=0).play(0))


@pytest.mark.slow
@sqlite
def test_twenty_kills_of_the_service_on_sqlite(place: Place, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "ledger", place.url, seed=1)
    for number in range(ROUNDS):
        check(campaign.play(number))


@pytest.mark.slow
@postgresql
def test_twenty_kills_of_the_service_or_of_its_postgresql(
    place: Place, running: PostgresServer, tmp_path: Path
) -> None:
    campaign = Campaign(tmp_path / "ledger", place.url, seed=1, server=running)
    for number in range(ROUNDS):
        check(campaign.play(number))


@pytest.mark.slow
def test_a_second_service_on_the_same_database_refuses_to_start(place: Place, tmp_path: Path) -> None:
    home = found(tmp_path / "ledger", place.url, People(seed=0, nodes=1, holds=1))
    with serving(home) as first:
        second = LedgerProcess(home)
        assert second.ended() != 0
        assert "another process writes to this ledger's database; stop it first" in second.said()
        assert first.stop() == 0
    with serving(home) as third:
        assert third.stop() == 0


@sqlite
def test_sigterm_records_signs_and_answers_what_was_accepted(place: Place, tmp_path: Path) -> None:
    campaign, promises, sent = Campaign(tmp_path / "ledger", place.url, seed=2), Promises(), Sent()
    requests = campaign.requests()
    with serving(campaign.home) as process:

        def load() -> None:
            sent.failures = send(process.url, requests, CONNECTIONS, on_answer=promises.keep).failures

        loading = threading.Thread(target=load)
        loading.start()
        promises.wait(5, timeout_s=60)
        assert process.stop() == 0
        loading.join()
    record = Record.read(campaign.home)
    assert record.lost(promises) == 0
    # Whoever was not answered had found the door closed: nothing that came in was dropped on the way.
    assert promises.answers + len(sent.failures) <= len(requests)
    assert sum(record.seqs.values()) == sum(promises.seqs.values())
    published = campaign.home.published.read()
    assert published is not None
    assert Checkpoint.parse(published.text).size == len(record.entries)
