"""Both clients against a server that lies, stalls and floods: a clear error of ours, and nothing believed."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from fastapi.responses import RedirectResponse, Response
from nectar_ledger_client import calls, logcalls
from nectar_ledger_client.errors import AnswerError, BusyError, LedgerClientError, UnreachableError, UntrustedError
from nectar_ledger_client.known import KnownLedger
from nectar_ledger_client.retries import NO_RETRIES, Retries
from nectar_ledger_client.verifier import verify_proof, with_entry
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.commands import OpenHold
from nectar_protocol.entry import Kind, pack_entry
from nectar_protocol.textual import to_base64
from nectar_protocol.tiles import Tile

from tests.ledger.world import MODEL, POLICY, START_MS, World, person
from tests.ledger_client.asking import Asker, AsyncAsker
from tests.ledger_client.history import CAP, LIFE_MS, NODE, SESSION, find, write_history
from tests.ledger_client.liar import Liar, drip, flood, lying, refusal, without_entry
from tests.ledger_client.paper import LOG, PaperLog, fillers

IN_A_HURRY = Retries(tries=3, first_s=0.001, longest_s=5)
TILE = logcalls.tile(Tile(0, 0, 1))
world = World()
genesis = pack_entry(START_MS, world.genesis)
known = KnownLedger.of(genesis)


@pytest.fixture
def liar() -> Iterator[Liar]:
    with lying() as liar:
        yield liar


Ask = Callable[..., Any]


@pytest.fixture(params=[Asker, AsyncAsker])
def ask(request: pytest.FixtureRequest, liar: Liar) -> Iterator[Ask]:
    """Makes a client of the liar's, or of another address."""
    askers = []

    def make(address: str | None = None, ledger: Any = known, **settings: Any) -> Any:
        chosen = {"retries": IN_A_HURRY, "timeout_s": 5.0} | settings
        askers.append(request.param(address or liar.url, ledger, **chosen))
        return askers[-1]

    yield make
    for asker in askers:
        asker.end()


# Forged answers


def test_a_hold_that_was_not_asked_for_is_not_believed(liar: Liar, ask: Ask) -> None:
    signed = world.open_hold(SESSION, SESSION, {NODE: CAP}, START_MS + LIFE_MS).signed
    assert isinstance(signed.command, OpenHold)
    hold = signed.command.hold()
    forged = (hold.signed(person("liar")), replace(hold, weight=8).signed(world.keys.holds))
    for promised in forged:
        packed = to_base64(promised.pack())
        liar.tell("/v1/commands", lambda packed=packed: {"index": 1, "hold": packed})  # type: ignore[misc]
        with pytest.raises(UntrustedError):
            ask().send_command(signed)


def test_the_first_entry_of_another_ledger_is_not_believed(liar: Liar, ask: Ask) -> None:
    for entry in (pack_entry(START_MS + 1, world.genesis), b"nonsense", pack_entry(0, world.grant(NODE, 1).signed)):
        shown = to_base64(entry)
        liar.tell("/v1/entries/0", lambda shown=shown: {"index": 0, "entry": shown})  # type: ignore[misc]
        with pytest.raises((UntrustedError, AnswerError)):
            ask(ledger=world.ledger).known()


def test_other_things_than_those_that_were_asked_for_are_not_believed(liar: Liar, ask: Ask) -> None:
    announced = Announcement(
        NODE.public, MODEL.model, 0, 1, 0, 1, Profile.F32, NodeState.SERVING, 1, 1, ()
    ).signed(NODE).pack()  # fmt: skip
    forged, hashed = announced[:-1] + bytes([announced[-1] ^ 1]), bytes(32)
    liar.tell("/v1/directory", lambda: {"items": [{"announcement": to_base64(forged)}], "next": None})
    liar.tell(f"/v1/policies/{hashed.hex()}", lambda: {"packed": to_base64(POLICY.pack())})
    liar.tell(f"/v1/models/{hashed.hex()}", lambda: {"packed": to_base64(MODEL.pack())})
    liar.tell(f"/v1/evidence/{hashed.hex()}", lambda: b"forged")
    liar.tell("/v1/evidence", lambda: {"evidence": hashed.hex()})
    liar.tell("/v1/entries/5", lambda: {"index": 4, "entry": to_base64(genesis)})
    sums = ("emitted_ucr", "burned_ucr", "wallets_ucr", "pool_ucr", "holds_ucr", "batches_ucr")
    liar.tell("/v1/supply", lambda: dict.fromkeys(sums, "1") | {"epoch": 1, "epoch_started_ms": 0, "granted_ucr": "0"})
    ledger = ask()
    for lie in (
        lambda: ledger.directory(MODEL.model),
        lambda: ledger.policy(hashed),
        lambda: ledger.model(hashed),
        lambda: ledger.evidence(hashed),
        lambda: ledger.put_evidence(person("auditor"), b"evidence"),
        lambda: ledger.entry(5),
        ledger.supply,
    ):
        with pytest.raises(UntrustedError):
            lie()


def test_what_a_newer_version_announces_is_left_out(liar: Liar, ask: Ask) -> None:
    newer = to_base64(b"NECANN02" + bytes(200))
    liar.tell("/v1/directory", lambda: {"items": [{"announcement": newer}], "next": None})
    assert ask().directory(MODEL.model) == []


def test_fewer_answers_than_receipts_are_none(liar: Liar, ask: Ask) -> None:
    liar.tell("/v1/receipts", lambda: {"results": [{"status": "superseded"}]})
    receipt = world.receipt(world.open_hold(SESSION, SESSION, {NODE: 1}, 1).signed.command.hold(), NODE, SESSION, 1, 1)  # type: ignore[attr-defined]
    with pytest.raises(AnswerError, match="1 answers to 2 receipts"):
        ask().send_receipts(NODE, [receipt.receipt] * 2)


# Forged logs


def test_a_forked_log_is_noticed_and_both_checkpoints_are_kept(liar: Liar, ask: Ask, tmp_path: Path) -> None:
    honest = liar.log = PaperLog().publish(fillers(20))
    follower = ask().follow(LOG, tmp_path / "kept")
    assert follower.advance().size == 20
    liar.log = honest.fork(7, *fillers(30, ["forged"]))
    with pytest.raises(UntrustedError, match="Do not rely"):
        follower.advance()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "kept.fork-kept", "kept.fork-served"]
    liar.log = honest.publish(fillers(3))
    assert follower.advance().size == 23


def test_an_entry_that_the_log_has_not_is_not_included(liar: Liar, ask: Ask, tmp_path: Path) -> None:
    liar.log = PaperLog().publish(fillers(20))
    follower = ask().follow(LOG, tmp_path / "kept")
    for path in ("/log/tile/0/000.p/20", "/log/tile/entries/000.p/20"):
        liar.tell(path, lambda: bytes(640))
    with pytest.raises(UntrustedError):
        follower.includes(3, liar.log.entries[3])


def test_a_receipt_whose_entry_is_forged_is_not_settled(liar: Liar, ask: Ask, tmp_path: Path) -> None:
    book = write_history()
    index = find(book, Kind.SETTLE)
    honest = PaperLog().publish([draft.entry for draft in book.log])
    forged = bytearray(honest.entries[index])
    forged[20] ^= 1
    liar.log = honest
    receipt = book.bodies()[index].receipt  # type: ignore[union-attr]
    follower = ask().follow(LOG, tmp_path / "kept")
    follower.settled(receipt, index)
    lie = PaperLog([*honest.entries[:index], bytes(forged), *honest.entries[index + 1 :]], size=honest.size)
    bundle = Tile(-1, 0, honest.size)
    liar.tell(f"/log/{bundle.path}", lambda: lie.tile(bundle))
    with pytest.raises(UntrustedError):
        ask().follow(LOG, tmp_path / "other").settled(receipt, index)


def test_a_proof_of_another_entry_proves_nothing(liar: Liar, ask: Ask) -> None:
    book = write_history()
    log = PaperLog().publish([draft.entry for draft in book.log])
    liar.tell("/log/proof/5", lambda: without_entry(log.proof(6)))
    with pytest.raises(UntrustedError, match="asked for the proof of entry 5"):
        ask().proof(5)
    liar.tell("/log/proof/5", lambda: without_entry(replace(log.proof(6), index=5)))
    with pytest.raises(UntrustedError):
        verify_proof(with_entry(ask().proof(5), log.entries[5]), LOG)


# Floods, delays and noise


@pytest.mark.parametrize("call", [calls.supply(), TILE, logcalls.checkpoint(), calls.evidence(bytes(32))])
def test_a_flood_is_cut_off(liar: Liar, ask: Ask, call: Any) -> None:
    liar.tell(call.path, flood)
    with pytest.raises(AnswerError, match="more than"):
        ask().call(replace(call, max_bytes=1 << 20))


def test_an_endless_trickle_is_given_up(liar: Liar, ask: Ask) -> None:
    liar.tell(TILE.path, lambda: drip(b"."))
    with pytest.raises(UnreachableError, match="in time"):
        ask(timeout_s=0.2, retries=NO_RETRIES).call(TILE)


@pytest.mark.parametrize(
    "sends", [b"", b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]
)
@pytest.mark.parametrize("hangs", [False, True])
def test_a_link_that_breaks_or_stalls_is_an_unreachable_ledger(ask: Ask, sends: bytes, hangs: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            link, _ = server.accept()
            link.recv(1 << 16)
            link.sendall(sends)
            if hangs:
                held.append(link)
            else:
                link.close()

        thread = Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(UnreachableError):
            ask(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.2, retries=NO_RETRIES).supply()
        thread.join()
        for link in held:
            link.close()


def test_nobody_there_is_an_unreachable_ledger(ask: Ask) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"):
        ask("http://127.0.0.1:1", retries=NO_RETRIES).supply()


@pytest.mark.parametrize(
    "noise",
    [
        b"", b"<html>", b"[" * 100_000, b"null", b'{"items": 5}',
        RedirectResponse("http://127.0.0.1:1/"), Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
        Response(b"", 204), Response(b"<html>", 404),
    ],
)  # fmt: skip
def test_noise_is_not_an_answer(liar: Liar, ask: Ask, noise: Any) -> None:
    liar.tell("/v1/supply", lambda: noise)
    with pytest.raises(AnswerError):
        ask().supply()
    assert len(liar.heard) == 1


def test_a_list_without_an_end_is_left_where_it_goes_round(liar: Liar, ask: Ask) -> None:
    node = {"node": "0" * 64, "payee": "1" * 64, "bound_index": 1, "free_units": 0, "open_batches": 0}
    liar.tell("/v1/nodes", lambda: {"items": [node | {"pending_ucr": "0"}], "next": 7})
    with pytest.raises(AnswerError, match="go on"):
        ask().nodes()
    assert len(liar.heard) == 2


# Asking again


def test_a_busy_ledger_is_asked_again_with_a_new_signature_each_time(liar: Liar, ask: Ask) -> None:
    purse = {"balance_ucr": "5", "credits_ucr": "5", "debits_ucr": "0", "open_holds": 0}
    busy = [lambda: refusal(503, "full", Retry_After="0"), lambda: refusal(429, "too-many-requests", Retry_After="0")]
    liar.tell(f"/v1/accounts/{SESSION.public.hex()}/purse", *busy, lambda: purse)
    assert ask().purse(SESSION).balance_ucr == 5
    inputs = {headers["signature-input"] for _, headers in liar.heard}
    assert len(inputs) == len(liar.heard) == 3


def test_a_ledger_that_stays_busy_is_left(liar: Liar, ask: Ask) -> None:
    liar.tell("/v1/supply", lambda: refusal(503, "full", Retry_After="0"))
    with pytest.raises(BusyError) as busy:
        ask().supply()
    assert (busy.value.retry_after_s, len(liar.heard)) == (0.0, IN_A_HURRY.tries)


def test_a_wait_that_is_too_long_is_the_callers(liar: Liar, ask: Ask) -> None:
    liar.tell("/v1/supply", lambda: refusal(429, "too-many-requests", Retry_After="3600"))
    with pytest.raises(BusyError) as busy:
        ask().supply()
    assert (busy.value.retry_after_s, len(liar.heard)) == (3600.0, 1)


# Events


def events_of(*indices: int) -> bytes:
    return b"".join(b'id: %d\nevent: settle\ndata: {"a": 1}\n\n' % index for index in indices)


def test_events_go_on_where_the_link_broke(liar: Liar, ask: Ask) -> None:
    def stream(*indices: int) -> Callable[[], Response]:
        return lambda: Response(events_of(*indices) + b"id: 9\nev", media_type="text/event-stream")

    liar.tell("/v1/events", stream(3, 4), lambda: refusal(503, "full", Retry_After="0"), stream(4, 5, 6), stream(7))
    assert [event.index for event in ask().events(5)] == [3, 4, 5, 6, 7]
    assert [headers.get("last-event-id") for _, headers in liar.heard] == [None, "4", "4", "6"]


def test_events_of_a_ledger_that_is_gone_end(ask: Ask) -> None:
    with pytest.raises(UnreachableError):
        ask("http://127.0.0.1:1").events(1)


@pytest.mark.parametrize(
    "noise",
    [
        lambda: flood(b"data: " + bytes(1 << 16)), lambda: Response(b"<html>"), lambda: Response(b"", 204),
        lambda: drip(b"data: x\n\n", "text/event-stream"),
    ],
)  # fmt: skip
def test_noise_is_no_stream_of_events(liar: Liar, ask: Ask, noise: Callable[[], Response]) -> None:
    liar.tell("/v1/events", noise)
    with pytest.raises(LedgerClientError) as error:
        ask().events(1)
    assert isinstance(error.value, AnswerError)
