"""A node's request to be bound: a line of text that its owner alone can complete."""

import pytest
from nectar_ledger_client.binding import complete_request, make_request, parse_request
from nectar_protocol.commands import BindPayee
from nectar_protocol.errors import IdentityError, MalformedError, SignatureError

from tests.ledger.world import START_MS, World, person

NODE, OWNER, MALLORY = person("a new node"), person("its owner"), person("mallory")


def test_a_completed_request_binds_the_node(world: World) -> None:
    request = make_request(NODE, OWNER.public, world.ledger, START_MS)
    signed = complete_request(f" {request}\n", OWNER)
    signed.verify()
    command = signed.command
    assert isinstance(command, BindPayee)
    assert (command.ledger, command.node, command.payee) == (world.ledger, NODE.public, OWNER.public)


def test_requests_of_one_node_have_ids_of_their_own(world: World) -> None:
    ids = {parse_request(make_request(NODE, OWNER.public, world.ledger, START_MS))[0].id for _ in range(5)}
    assert len(ids) == 5


def test_nobody_else_can_complete_it(world: World) -> None:
    with pytest.raises(IdentityError):
        complete_request(make_request(NODE, OWNER.public, world.ledger, START_MS), MALLORY)


def test_what_the_node_did_not_sign_is_refused(world: World) -> None:
    request = bytearray.fromhex(make_request(NODE, OWNER.public, world.ledger, START_MS))
    for at in (40, 60, len(request) - 1):
        altered = bytes(request[:at]) + bytes([request[at] ^ 1]) + bytes(request[at + 1 :])
        with pytest.raises(SignatureError):
            complete_request(altered.hex(), OWNER)


@pytest.mark.parametrize("text", ["", "zz", "00", "ab" * 400])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_request(text)


def test_a_node_is_not_its_own_payee(world: World) -> None:
    with pytest.raises(MalformedError):
        make_request(NODE, NODE.public, world.ledger, START_MS)


@pytest.fixture
def world() -> World:
    return World()
