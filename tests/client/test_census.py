"""What a census makes of announcements and of what nodes say of themselves."""

from nectar.census import SeenModel, SeenNode
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import PublicKey
from nectar_protocol.manifest import ModelID
from nectar_swarm.status import Status

MODEL = ModelID(b"\xab" * 32)


def seen(start: int, stop: int, name: str | None, state: NodeState = NodeState.SERVING, blocks: int = 0) -> SeenNode:
    announcement = Announcement(PublicKey(bytes(32)), MODEL, 0, 1, start, stop, Profile.F32, state, 1, 1, ())
    status = None if name is None else Status(1, 2, 0, 0, blocks, "bee", name, "cpu", "float32", "0")
    return SeenNode(announcement, status)


def test_blocks_are_covered_by_nodes_that_serve_and_answer() -> None:
    nodes = (seen(0, 3, "m"), seen(2, 4, "m"), seen(3, 5, None), seen(4, 6, "m", NodeState.JOINING))
    model = SeenModel(MODEL, nodes)
    assert [node.state for node in nodes] == ["serving", "serving", "silent", "joining"]
    assert model.blocks == 6
    assert model.coverage() == [1, 1, 2, 1, 0, 0]


def test_nodes_that_are_pinned_or_ask_to_move_cover_their_blocks() -> None:
    nodes = (seen(0, 2, "m", NodeState.PINNED), seen(1, 3, "m", NodeState.MOVING), seen(0, 3, None, NodeState.MOVING))
    assert [node.state for node in nodes] == ["serving", "moving", "silent"]
    assert SeenModel(MODEL, nodes).coverage() == [1, 2, 1]


def test_blocks_that_nobody_announces_are_missing_when_nodes_say_that_they_exist() -> None:
    model = SeenModel(MODEL, (seen(0, 2, "m", blocks=4), seen(0, 1, None)))
    assert model.coverage() == [1, 1, 0, 0]


def test_a_model_is_called_what_most_of_its_nodes_call_it() -> None:
    assert SeenModel(MODEL, (seen(0, 1, "liar"), seen(0, 1, "m"), seen(1, 2, "m"))).name == "m"
    assert SeenModel(MODEL, (seen(0, 1, None),)).name == "abababababababab…"


def test_a_model_without_nodes_has_no_blocks() -> None:
    assert SeenModel(MODEL, ()).coverage() == []
