"""A node meets its ledger, is bound to its owner's account, and takes holds from then on, ledger or no ledger."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nectar_ledger_client.binding import complete_request
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import UnreachableError, UntrustedError
from nectar_node.errors import TillError
from nectar_node.till.registrar import Registrar
from nectar_node.till.till import Till
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.manifest import ModelID

from tests.ledger.api.served import ALICE, NODE, OWNER, Served, serve, usual
from tests.ledger.world import START_MS, World, person
from tests.node.till.town import client_of, new_till

NEWCOMER = person("a node without a payee")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world = World()
    ledger, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=usual(world))
    yield ledger
    stop()


class Desk:
    """A registrar with its till, and what its operator was told."""

    def __init__(
        self,
        folder: Path,
        served: Served,
        node: Identity = NODE,
        owner: PublicKey | None = None,
        owner_key: Identity | None = None,
    ) -> None:
        self.till: Till = new_till(folder, served.world, owner, node)
        self.told: list[str] = []
        self.word: Announcement | None = None
        self.client = client_of(served.url)
        self.registrar = Registrar(self.client, self.till, lambda: self.word, self.told.append, owner_key)

    async def round(self, times: int = 1) -> bytes:
        """The ledger whose holds are taken then."""
        for _ in range(times):
            await self.registrar.round()
        return self.till.ledger

    async def close(self) -> None:
        await self.client.aclose()
        self.till.spool.close()


async def test_a_bound_node_takes_holds_once_it_has_met_its_ledger_and_knows_it_when_it_starts_again(
    served: Served, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, served, owner=OWNER.public)
    assert desk.till.ledger == b""
    assert await desk.round() == served.world.ledger
    assert not desk.told
    await desk.close()
    again = Desk(tmp_path, served, owner=OWNER.public)  # which asks nobody
    assert again.till.ledger == served.world.ledger
    facts = again.till.facts
    assert facts.ledger is not None
    assert facts.ledger.holds == served.world.keys.holds.public
    assert facts.policies == {served.world.policy.id: served.world.policy}
    assert (facts.model, facts.payee) == (served.world.model, OWNER.public)
    await again.close()


async def test_whoever_names_no_owner_takes_holds_for_the_one_it_has(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served)
    assert await desk.round() == served.world.ledger
    await desk.close()


async def test_a_node_of_another_owner_takes_none_and_says_why_once(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served, owner=ALICE.public)
    assert await desk.round(times=3) == b""
    assert len(desk.told) == 1
    assert OWNER.public.hex() in desk.told[0]
    await desk.close()


async def test_a_node_without_owner_or_payee_says_what_is_missing(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served, NEWCOMER)
    assert await desk.round() == b""
    assert ["--owner" in text for text in desk.told] == [True]
    await desk.close()


async def test_with_the_owners_key_at_hand_it_binds_itself(served: Served, tmp_path: Path) -> None:
    node = person("binds itself")
    desk = Desk(tmp_path, served, node, ALICE.public, ALICE)
    assert await desk.round() == served.world.ledger
    with LedgerClient(served.url) as client:
        assert client.node(node.public).payee == ALICE.public
    assert await desk.round() == served.world.ledger
    await desk.close()


async def test_else_it_prints_a_request_the_same_each_time_that_its_owner_completes(
    served: Served, tmp_path: Path
) -> None:
    node = person("asks its owner")
    desk = Desk(tmp_path, served, node, ALICE.public)
    assert await desk.round(times=2) == b""
    (told,) = desk.told
    await desk.close()
    again = Desk(tmp_path, served, node, ALICE.public)
    await again.round()
    assert again.told == [told]
    command = complete_request(told.split()[-1], ALICE)
    with LedgerClient(served.url, clock_s=lambda: START_MS / 1000) as client:
        client.send_command(command)
    assert await again.round() == served.world.ledger
    await again.close()


async def test_another_owner_is_asked_anew(served: Served, tmp_path: Path) -> None:
    node = person("changes its mind")
    for owner in (ALICE, OWNER):
        desk = Desk(tmp_path, served, node, owner.public)
        await desk.round()
        assert complete_request(desk.told[0].split()[-1], owner).command.payee == owner.public  # type: ignore[attr-defined]
        await desk.close()


async def test_a_policy_that_a_hold_named_is_fetched(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served)
    await desk.round()
    old = served.world.policy
    new = replace(old, version=old.version + 1, fee_ppm=1)
    served.record(served.world.publish_policy(new))
    fresh = Desk(tmp_path / "fresh", served)
    await fresh.round()
    assert set(fresh.till.facts.policies) == {new.id}
    fresh.till._want(old.id)
    assert fresh.till.curious.is_set()
    await fresh.round()
    assert set(fresh.till.facts.policies) == {old.id, new.id}
    await desk.round()
    assert set(desk.till.facts.policies) == {old.id, new.id}
    await desk.close()
    await fresh.close()


async def test_a_model_that_the_ledger_does_not_know_is_served_unmetered(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served)
    desk.till.model = bytes(32)
    assert await desk.round() == b""
    assert "no entry for this model" in desk.told[0]
    await desk.close()


async def test_it_tells_the_ledger_what_it_serves(served: Served, tmp_path: Path) -> None:
    model = ModelID(served.world.model.model)
    desk = Desk(tmp_path, served)
    await desk.round()
    with LedgerClient(served.url) as client:
        assert not list(client.directory(model))
        desk.word = Announcement(
            NODE.public, model, START_MS, START_MS + 75_000, 0, 8, Profile.F32, NodeState.SERVING, 1, 1, ()
        ).signed(NODE)
        await desk.round()
        assert list(client.directory(model)) == [desk.word]
    await desk.close()


async def test_another_ledger_at_the_address_is_not_believed(served: Served, tmp_path: Path) -> None:
    desk = Desk(tmp_path, served)
    await desk.round()
    known = desk.till.facts.ledger
    world = World(policy=replace(served.world.policy, version=99))
    (tmp_path / "other").mkdir()
    other, stop = serve(tmp_path / "other", world, orders=usual(world))
    moved = Registrar(client_of(other.url), desk.till, lambda: None, desk.told.append)
    with pytest.raises(UntrustedError, match="the ledger at this address"):
        await moved.round()
    assert desk.till.facts.ledger == known
    stop()
    with pytest.raises(UnreachableError):
        await moved.round()
    await moved._client.aclose()
    await desk.close()


def test_facts_that_were_damaged_are_refused(tmp_path: Path, served: Served) -> None:
    till = new_till(tmp_path, served.world)
    till.spool.save("genesis", b"nonsense")
    till.spool.close()
    with pytest.raises(TillError, match="cannot be read"):
        new_till(tmp_path, served.world)
