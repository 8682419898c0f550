"""What the API shows is what the ledger has: to everybody what is public, to owners what is theirs."""

from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from nectar_ledger.core.accounts import Code
from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import parse_command
from nectar_protocol.entry import SALT_SIZE, entry_hash, parse_entry
from nectar_protocol.identity import Identity
from nectar_protocol.logproof import LogProof
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.note import Kind, Note, NoteKey
from nectar_protocol.policy import Policy
from nectar_protocol.proofs import verify_consistency
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.textual import parse_base64
from nectar_protocol.tiles import unpack_bundle

from tests.ledger.api import served as serving
from tests.ledger.api.served import Served
from tests.ledger.api.visits import visits
from tests.ledger.town import ALICE, BOB, FIRST, NORTH, TOWN_POLICY, Town
from tests.ledger.world import ORIGIN, World, person


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A town's ledger, which is only read here."""
    served, stop = serving.serve(tmp_path_factory.mktemp("ledger"), World(TOWN_POLICY))
    yield served
    stop()


@pytest.fixture(scope="module")
def town(served: Served) -> Town:
    town = Town(served.world, served.service.submit, served.service.log.entry, served.clock)
    town.live_a_day()
    served.service.signer.sign()
    return town


def get(served: Served, path: str, owner: Identity | None = None) -> Any:
    answer = served.http.get(path) if owner is None else served.get(path, owner)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(served: Served, path: str, owner: Identity | None = None) -> tuple[int, str]:
    answer = served.http.get(path) if owner is None else served.get(path, owner)
    return answer.status_code, answer.json()["error"]


def size_of(answer: httpx.Response) -> int:
    return len(answer.content)


def entry_of(served: Served, index: int) -> Any:
    return parse_entry(served.service.log.entry(index)).body


def test_an_account_has_its_balance_and_a_statement(served: Served, town: Town) -> None:
    path = f"/v1/accounts/{ALICE.public.hex()}"
    account, statement = get(served, path), get(served, f"{path}/statement?limit=2")
    assert account == {
        "account": ALICE.public.hex(), "balance_ucr": "10001000", "credits_ucr": "20001000",
        "debits_ucr": "10000000", "opened_index": account["opened_index"],
    }  # fmt: skip
    assert [(line["code"], line["amount_ucr"], line["balance_ucr"]) for line in statement["items"]] == [
        ("withdraw", "1000", "10001000"), ("fund", "-10000000", "10000000"),
    ]  # fmt: skip
    assert statement["items"][0]["other"] == {"kind": "pool", "id": 3, "key": None}
    assert statement["next"] == statement["items"][-1]["id"]
    rest = get(served, f"{path}/statement?before={statement['next']}")
    assert [line["code"] for line in rest["items"]] == ["grant"]
    assert rest["next"] is None
    oldest = get(served, f"{path}/statement?after=0&limit=1")
    assert (oldest["items"], oldest["next"]) == (rest["items"], rest["items"][0]["id"])


def test_a_purse_is_shown_to_its_owner_alone(served: Served, town: Town) -> None:
    path = f"/v1/accounts/{ALICE.public.hex()}"
    for private in ("purse", "purse/statement", "holds"):
        assert refused(served, f"{path}/{private}") == (401, "unsigned-request")
        assert refused(served, f"{path}/{private}", BOB) == (403, "not-authorized")
    purse, lines = get(served, f"{path}/purse", ALICE), get(served, f"{path}/purse/statement", ALICE)["items"]
    assert purse["balance_ucr"] == lines[0]["balance_ucr"] == str(sum(int(line["amount_ucr"]) for line in lines))
    assert purse["open_holds"] == 1
    assert [line["hold"] for line in lines if line["code"] == Code.ESCROW.name.lower()] == [
        town.live.id.hex(), town.live.id.hex(), town.spent.id.hex(),
    ]  # fmt: skip
    holds = get(served, f"{path}/holds", ALICE)
    assert [hold["id"] for hold in holds["items"]] == [town.live.id.hex(), town.spent.id.hex()]


def test_a_hold_is_public_but_for_its_payer(served: Served, town: Town) -> None:
    hold = get(served, f"/v1/holds/{town.spent.id.hex()}")
    assert set(hold) == {
        "id", "account", "session", "model", "model_version", "policy", "weight", "profiles", "revision", "expires_ms",
        "state", "left_ucr", "opened_index", "revised_index", "closed_index", "lines",
    }  # fmt: skip
    assert (hold["session"], hold["state"], hold["left_ucr"]) == (FIRST.public.hex(), "closed", "0")
    assert hold["profiles"] == ["f32", "bf16", "fp16", "int8", "nf4"]
    for line in hold["lines"]:
        signed = SignedReceipt.unpack(b64decode(line["receipt"]))
        assert (signed.receipt.units, signed.receipt.final) == (line["units"], line["final"])
        assert entry_of(served, line["receipt_index"]).receipt == signed
    live = get(served, f"/v1/holds/{town.live.id.hex()}")
    assert (live["state"], live["revision"], live["closed_index"]) == ("open", 2, None)
    settlements = get(served, f"/v1/holds/{town.spent.id.hex()}/settlements")["items"]
    assert sum(settlement["units"] for settlement in settlements) == sum(line["units"] for line in hold["lines"])


def test_nodes_are_listed_with_their_payees(served: Served, town: Town) -> None:
    south, north = get(served, "/v1/nodes")["items"]
    assert (north["node"], north["payee"], north["open_batches"]) == (NORTH.public.hex(), BOB.public.hex(), 1)
    assert get(served, f"/v1/nodes/{NORTH.public.hex()}") == north
    assert get(served, f"/v1/accounts/{BOB.public.hex()}/nodes")["items"] == [south, north]
    page = get(served, "/v1/nodes?limit=1")
    assert page["items"] == [south]
    assert get(served, f"/v1/nodes?before={page['next']}")["items"] == [north]


def test_verdicts_are_shown_once_their_batch_is_closed(served: Served, town: Town) -> None:
    waiting, judged = get(served, f"/v1/nodes/{NORTH.public.hex()}/batches")["items"]
    assert (waiting["id"], waiting["state"]) == (town.waiting, "open")
    assert (judged["id"], judged["state"]) == (town.judged, "released")
    assert get(served, f"/v1/batches/{town.waiting}") == waiting | {"verdicts": None}
    shown = get(served, f"/v1/batches/{town.judged}")
    (verdict,) = shown.pop("verdicts")
    assert shown == judged
    sealed = b64decode(verdict["sealed"])
    assert entry_hash(sealed) == entry_of(served, verdict["index"]).seal
    signed = parse_command(sealed[SALT_SIZE:])
    signed.verify()
    assert verdict["verdict"]["outcome"] == "passed"
    assert verdict["verdict"]["evidence"] == signed.command.evidence.hex()
    paid = [int(line["paid_ucr"]) for line in get(served, f"/v1/batches/{town.judged}/settlements")["items"]]
    assert str(sum(paid)) == judged["earned_ucr"]


def test_the_supply_and_each_epochs_books_add_up(served: Served, town: Town) -> None:
    (epoch,) = get(served, "/v1/epochs")["items"]
    for sums in (epoch, get(served, "/v1/supply")):
        held = sum(int(sums[f"{kind}_ucr"]) for kind in ("wallets", "pool", "holds", "batches"))
        assert int(sums["emitted_ucr"]) - int(sums["burned_ucr"]) == held
    books = entry_of(served, epoch["index"])
    assert (books.number, books.started_ms, books.free_units) == (
        epoch["number"], epoch["started_ms"], epoch["free_units"],
    )  # fmt: skip


def test_the_ledger_names_its_keys_and_its_policy(served: Served, town: Town) -> None:
    ledger = get(served, "/v1/ledger")
    assert ledger["ledger"] == served.world.ledger.hex()
    assert NoteKey.parse(ledger["log_key"]) == NoteKey(ORIGIN, Kind.NOTE, served.world.keys.log.public)
    assert ledger["holds_key"] == served.world.keys.holds.public.hex()
    assert ledger["size"] >= served.service.log.size()
    policy = get(served, "/v1/policy")
    assert Policy.unpack(b64decode(policy["packed"])) == TOWN_POLICY
    assert policy["id"] == ledger["policy"] == TOWN_POLICY.id.hex()
    assert policy["policy"]["emission_ucr"] == str(TOWN_POLICY.emission_ucr)
    assert (policy["policy"]["swarm"], policy["policy"]["price"]) == ("trusted", TOWN_POLICY.price)
    assert get(served, f"/v1/policies/{policy['id']}") == policy
    assert get(served, "/v1/policies")["items"] == [policy]


def test_models_say_what_their_blocks_cost(served: Served, town: Town) -> None:
    (model,) = get(served, "/v1/models")["items"]
    assert ModelEntry.unpack(b64decode(model["packed"])) == served.world.model
    assert model["entry"]["blocks"] == [0] * 8
    assert model["entry"]["costs"] == [{"token_flops": 20_000_000, "position_flops": 4_000, "window": 0}]
    path = f"/v1/models/{served.world.model.model.hex()}"
    assert get(served, path) == get(served, f"{path}?version=1") == model
    assert refused(served, f"{path}?version=2") == (404, "not-found")


def test_every_entry_can_be_read(served: Served, town: Town) -> None:
    kinds = set()
    for index in range(served.service.log.size()):
        entry = get(served, f"/v1/entries/{index}")
        parsed = parse_entry(b64decode(entry["entry"]))
        kinds.add(entry["kind"])
        assert (entry["index"], entry["time_ms"]) == (index, parsed.time_ms)
        fields = parsed.body.command if isinstance(parsed.body, SignedCommand) else parsed.body
        amounts = {name for name in dir(fields) if name.endswith("_ucr")}
        assert {name: entry["body"][name] for name in amounts} == {name: str(getattr(fields, name)) for name in amounts}
    assert kinds == {
        "genesis", "key", "hold", "settle", "hold-close", "verdict", "batch-close", "emission", "model", "epoch",
        "resume", "purse", "dispute", "grant",
    }  # fmt: skip


def test_a_closing_entry_shows_its_verdicts(served: Served, town: Town) -> None:
    batch = get(served, f"/v1/batches/{town.judged}")
    body = get(served, f"/v1/entries/{batch['closed_index']}")["body"]
    (verdict,) = body["verdicts"]
    assert (body["outcome"], verdict["command"], verdict["outcome"]) == ("released", "verdict", "passed")
    assert verdict["index"] == batch["verdicts"][0]["index"]


def test_the_log_is_served_with_proofs(served: Served, town: Town) -> None:
    key = NoteKey(ORIGIN, Kind.NOTE, served.world.keys.log.public)
    answer = served.http.get("/log/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=1"
    checkpoint = open_checkpoint(Note.unpack(answer.content), key).checkpoint
    bundle = served.http.get(f"/log/tile/entries/000.p/{checkpoint.size}")
    assert "immutable" in bundle.headers["cache-control"]
    entries = unpack_bundle(bundle.content, checkpoint.size)
    hashes = served.http.get(f"/log/tile/0/000.p/{checkpoint.size}")
    assert hashes.headers["content-type"] == "application/octet-stream"
    assert hashes.content == b"".join(map(leaf_hash, entries))
    for index, entry in enumerate(entries):
        LogProof.unpack(served.http.get(f"/log/proof/{index}").content).verify(entry, key)
    lines = served.http.get(f"/log/consistency?old=7&new={checkpoint.size}").text.splitlines()
    proof = [parse_base64(line, "a hash") for line in lines]
    verify_consistency(7, checkpoint.size, proof, served.service.log.root(7), checkpoint.root)


def test_nothing_is_served_beyond_the_checkpoint(served: Served, town: Town) -> None:
    note = served.service.checkpoint
    assert note is not None
    size = Checkpoint.parse(note.text).size
    for path in (
        f"/log/tile/0/000.p/{size + 1}", f"/log/tile/entries/000.p/{size + 1}", "/log/tile/1/000", "/log/tile/0/001",
        f"/log/proof/{size}", f"/log/consistency?old=1&new={size + 1}", "/log/checkpoint?witnesses=1",
        "/log/proof/0?witnesses=1",
    ):  # fmt: skip
        assert refused(served, path) == (404, "not-found"), path


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/accounts/{person('stranger').public.hex()}",
        f"/v1/accounts/{person('stranger').public.hex()}/statement",
        f"/v1/nodes/{ALICE.public.hex()}",
        f"/v1/nodes/{ALICE.public.hex()}/batches",
        f"/v1/holds/{'00' * 32}",
        f"/v1/policies/{'00' * 32}",
        f"/v1/models/{'00' * 32}",
        "/v1/batches/1",
        "/v1/batches/9223372036854775807",
        "/v1/batches/1/settlements",
        "/v1/entries/100000",
    ],
)
def test_what_is_not_there_is_not_found(served: Served, town: Town, path: str) -> None:
    assert refused(served, path) == (404, "not-found")


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/accounts/{ALICE.public.hex().upper()}",
        "/v1/accounts/alice",
        f"/v1/holds/{'00' * 31}",
        "/v1/nodes?limit=0",
        "/v1/nodes?limit=201",
        "/v1/nodes?before=1&after=1",
        "/v1/nodes?before=9223372036854775808",
        "/v1/batches/-1",
        "/v1/entries/9223372036854775808",
        f"/v1/models/{'00' * 32}?version=0",
        "/log/proof/-1",
        "/log/consistency?old=0&new=1",
        "/log/checkpoint?witnesses=33",
    ],
)
def test_what_nobody_can_mean_is_refused(served: Served, town: Town, path: str) -> None:
    assert refused(served, path) == (422, "wrong-parameter")


@pytest.mark.parametrize("path", ["/log/tile/0/0", "/log/tile/9/000", "/log/tile/0/000.p/256", "/log/tile/entries/x"])
def test_a_path_of_no_tile_is_malformed(served: Served, town: Town, path: str) -> None:
    assert refused(served, path) == (400, "malformed")


def test_a_consistency_proof_backwards_is_malformed(served: Served, town: Town) -> None:
    assert refused(served, "/log/consistency?old=3&new=2") == (400, "malformed")


def test_every_answer_is_as_openapi_says(served: Served, town: Town) -> None:
    schema = schemathesis.openapi.from_dict(served.http.get("/openapi.json").json())
    longest: dict[str, httpx.Response] = {}
    for visit in visits(served, town):
        longest[visit.template] = max(longest.get(visit.template, visit.answer), visit.answer, key=size_of)
    for template, answer in longest.items():
        schema[template]["GET"].validate_response(answer)
    for private in ("purse", "purse/statement", "holds"):
        answer = served.get(f"/v1/accounts/{ALICE.public.hex()}/{private}", ALICE)
        schema[f"/v1/accounts/{{key}}/{private}"]["GET"].validate_response(answer)
