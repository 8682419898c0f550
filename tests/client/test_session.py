"""A session over nodes made by hand: whatever happens to them, the outputs are those of an undisturbed run."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from nectar import keeper as keeper_module
from nectar import session as session_module
from nectar.connection import Effort
from nectar.errors import NoRouteError, RequestError, SessionError
from nectar.loop import LoopThread
from nectar.routing import Candidate
from nectar.session import Session
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step

BLOCKS, BATCH, WIDTH, VERSION = 6, 2, 4, 2
MODEL = ModelID(b"m" * 32)


@dataclass(eq=False)
class Node:
    """Keeps the protocol as a node does; what it computes depends on all positions so far."""

    network: "Network"
    candidate: Candidate
    alive: bool = True
    refuses: ErrorCode | None = None
    dies_at: int = 0  # when this step comes
    unreachable: set[PeerID] = field(default_factory=set)
    spoil: Callable[[Step], bytes] = Step.pack
    place: Neighbours | None = None
    opened: int = 0

    def take(self, kind: Kind, payload: bytes, sender: PeerID | None = None) -> None:
        if not self.alive:
            return
        match kind:
            case Kind.OPEN:
                request = Open.unpack(payload)
                if self.refuses:
                    self.tell(Kind.ERROR, Error(self.refuses, "not now", request.neighbours.generation).pack(VERSION))
                    return
                assert self.place is None, "the session is open here already"
                self.opened, self.accepted, self.history = self.opened + 1, 0, History()
                self.past = torch.zeros(request.batch, 0, WIDTH)
                self.blocks = request.stop - request.start
                self.settle_in(request.neighbours)
            case Kind.REROUTE:
                self.settle_in(Neighbours.unpack(payload))
            case Kind.STEP if self.place is not None and sender == self.place.prev:
                self.compute(Step.unpack(payload))
            case Kind.CLOSE:
                self.place = None

    def settle_in(self, place: Neighbours) -> None:
        self.place, self.sent = place, place.sent
        if place.next in self.unreachable:
            self.tell(Kind.ERROR, Error(ErrorCode.UNREACHABLE, "no way", place.generation, place.next).pack(VERSION))
            return
        self.tell(Kind.ROUTED, Routed(place.generation).pack())
        self.pump()

    def compute(self, step: Step) -> None:
        if self.dies_at and step.last >= self.dies_at:
            self.network.kill(self)
            return
        if step.last <= self.accepted:
            return
        assert step.first <= self.accepted + 1, "a gap"
        assert step.position <= self.past.shape[1], "positions are missing"
        past = self.past[:, : step.position]
        past = past[list(step.reorder)] if step.reorder else past
        self.past, self.accepted = torch.cat([past, step.hidden], 1), step.last
        out = run_block(self.past, self.blocks)[:, step.position :]
        self.history.append(Step(step.first, step.last, step.position, out, step.reorder))
        self.pump()

    def pump(self) -> None:
        assert self.place is not None
        for step in self.history.after(self.sent, self.place.settled):
            self.sent = step.last
            if self.place.next is None:
                self.tell(Kind.STEP, self.spoil(step))
            else:
                self.network.post(self.network.nodes[self.place.next].take, Kind.STEP, step.pack(), self.candidate.peer)

    def tell(self, kind: Kind, payload: bytes) -> None:
        for session in self.network.sessions:
            self.network.post(session.on_message, self.network.link(self), kind, payload)


class Network:
    """Stands for a connection: nodes in the same loop, and no bytes on any wire."""

    def __init__(self) -> None:
        self.thread = LoopThread("network")
        self.nodes: dict[PeerID, Node] = {}
        self.sessions: list[Session] = []
        self.aside: set[PeerID] = set()

    def join(self, candidate: Candidate) -> Node:
        self.nodes[candidate.peer] = node = Node(self, candidate)
        return node

    def kill(self, node: Node) -> None:
        node.alive = False
        for session in self.sessions:
            self.post(session.on_dead, node.candidate.peer, "closed its link")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        self.thread.loop.call_soon_threadsafe(function, *arguments)

    def link(self, node: Node) -> Any:
        return SimpleNamespace(
            peer=node.candidate.peer,
            version=VERSION,
            busy_ms=0,
            crowded=False,
            send=lambda number, kind, payload=b"": self.post(node.take, kind, payload),
        )

    def settle(self) -> None:
        """Return when all that is on its way has arrived."""
        for _ in range(20):
            self.run(_nothing())

    # What a session needs of its connection

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.thread.run(work)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        self.post(function, *arguments)

    def add(self, session: Session) -> int:
        self.sessions.append(session)
        return 7

    def remove(self, number: int) -> None:
        self.sessions.clear()

    def present_link(self, peer: PeerID) -> Any:
        node = self.nodes.get(peer)
        return self.link(node) if node and node.alive else None

    async def candidates(self, model: ModelID, effort: Effort) -> list[Candidate]:
        willing = [node.candidate for node in self.nodes.values() if node.alive and not node.refuses]
        return [one for one in willing if effort is Effort.FORGIVE or one.peer not in self.aside]

    def set_aside(self, peer: PeerID) -> None:
        self.aside.add(peer)

    def trust_again(self, peer: PeerID) -> None:
        self.aside.discard(peer)


async def _nothing() -> None: ...


def run_block(hidden: torch.Tensor, times: int) -> torch.Tensor:
    """Each position's output is the mean of all up to it, and one more: so it shows if any was lost or doubled."""
    for _ in range(times):
        counts = torch.arange(1, hidden.shape[1] + 1)[None, :, None]
        hidden = hidden.cumsum(1) / counts + 1
    return hidden


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(keeper_module, "RETRY_S", 0.01)
    network = Network()
    yield network
    network.thread.stop()


@pytest.fixture
def three(network: Network, candidate: Callable[..., Candidate]) -> list[Node]:
    """Nodes of two blocks each, and for each a slower twin that the route does not take at first."""
    spans = [(0, 2), (2, 4), (4, 6)]
    chosen = [network.join(candidate(at, *span, decode_s=0.001)) for at, span in enumerate(spans)]
    for at, span in enumerate(spans, 10):
        network.join(candidate(at, *span, decode_s=0.1))
    return chosen


@pytest.fixture
def session(network: Network) -> Session:
    return Session(network, MODEL, BLOCKS, torch.float32, 64, patience_s=20.0)  # type: ignore[arg-type]


class Run:
    """Steps through a session beside the same steps done here; they must agree all along."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.past = torch.zeros(BATCH, 0, WIDTH)
        self.dice = torch.Generator().manual_seed(0)

    def step(self, tokens: int, back: int = 0, reorder: Sequence[int] = ()) -> None:
        position = self.past.shape[1] - back
        hidden = torch.randn(BATCH, tokens, WIDTH, generator=self.dice)
        past = self.past[:, :position]
        self.past = torch.cat([past[list(reorder)] if reorder else past, hidden], 1)
        out = self.session.step(hidden, position, reorder)
        torch.testing.assert_close(out, run_block(self.past, BLOCKS)[:, position:])
        assert self.session.position == self.past.shape[1]


def test_steps_run_through_the_cheapest_nodes_until_the_session_is_closed(
    network: Network, three: list[Node], session: Session
) -> None:
    assert session.route == ()
    with session:
        run = Run(session)
        for tokens in (5, 1, 1):
            run.step(tokens)
        assert [(span.peer, span.start, span.stop) for span in session.route] == [
            (node.candidate.peer, node.candidate.start, node.candidate.stop) for node in three
        ]
        assert [node.opened for node in network.nodes.values()] == [1, 1, 1, 0, 0, 0]
    network.settle()
    assert all(node.place is None for node in three)
    assert session.repairs == []


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_nodes_that_die_between_steps_are_replaced(
    network: Network, three: list[Node], session: Session, lost: tuple[int, ...]
) -> None:
    run = Run(session)
    for step in ((5,), (1,), (2, 1), (1, 0, (1, 0)), (1,)):
        run.step(*step)
    before = session.route
    for at in lost:
        network.kill(three[at])
    network.settle()
    for step in ((1,), (1, 2), (1, 0, (1, 1)), (3,)):
        run.step(*step)
    changed = [at for at in range(3) if before[at] != session.route[at]]
    assert tuple(changed) == lost
    assert session.repairs[0].before == before
    assert session.repairs[-1].after == session.route
    assert "closed its link" in session.repairs[0].lost[0]


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("dies_at", [1, 2, 4])
def test_a_node_that_dies_in_a_step_is_replaced_within_it(
    three: list[Node], session: Session, at: int, dies_at: int
) -> None:
    three[at].dies_at = dies_at
    run = Run(session)
    for step in ((5,), (1,), (2, 1), (1, 0, (1, 0)), (1,), (1,)):
        run.step(*step)
    assert three[at].candidate.peer not in {span.peer for span in session.route}


def test_a_replacement_that_dies_too_is_replaced(
    network: Network, three: list[Node], session: Session, candidate: Callable[..., Candidate]
) -> None:
    third = network.join(candidate(20, 2, 4, decode_s=1.0))
    network.nodes[candidate(11, 2, 4, decode_s=0.1).peer].dies_at = 1
    run = Run(session)
    run.step(5)
    run.step(1)
    network.kill(three[1])
    run.step(1)
    run.step(1)
    assert session.route[1].peer == third.candidate.peer


def test_a_busy_node_is_passed_over(three: list[Node], session: Session) -> None:
    three[1].refuses = ErrorCode.BUSY
    Run(session).step(3)
    assert session.route[1].peer != three[1].candidate.peer


def test_nodes_that_cannot_meet_are_joined_through_the_client(three: list[Node], session: Session) -> None:
    three[0].unreachable.add(three[1].candidate.peer)
    run = Run(session)
    for tokens in (3, 1, 1):
        run.step(tokens)
    assert [span.peer for span in session.route] == [node.candidate.peer for node in three]


def test_a_leaving_node_is_left_without_a_break(network: Network, three: list[Node], session: Session) -> None:
    run = Run(session)
    run.step(3)
    three[1].tell(Kind.ERROR, Error(ErrorCode.LEAVING, "this node is about to leave").pack(VERSION))
    network.settle()
    three[1].refuses = ErrorCode.LEAVING
    run.step(1)
    assert session.route[1].peer != three[1].candidate.peer
    network.settle()
    assert three[1].place is None
    run.step(1)


def test_a_leaving_node_that_nobody_can_replace_is_used_until_it_goes(
    network: Network, three: list[Node], session: Session, candidate: Callable[..., Candidate]
) -> None:
    network.nodes[candidate(11, 2, 4, decode_s=0.1).peer].alive = False
    run = Run(session)
    run.step(3)
    three[1].tell(Kind.ERROR, Error(ErrorCode.LEAVING, "this node is about to leave").pack(VERSION))
    network.settle()
    three[1].refuses = ErrorCode.LEAVING
    run.step(1)
    assert session.route[1].peer == three[1].candidate.peer


@pytest.mark.parametrize(
    "spoil",
    [
        lambda step: b"garbage",
        lambda step: Step(step.first, step.last, 0, torch.zeros(BATCH, 1, WIDTH + 1)).pack(),
        lambda step: Step(step.first, step.last, 0, step.hidden.half()).pack(),
    ],
    ids=["garbage", "shape", "dtype"],
)
def test_a_node_that_answers_nonsense_is_replaced(
    three: list[Node], session: Session, spoil: Callable[[Step], bytes]
) -> None:
    run = Run(session)
    run.step(3)
    three[2].spoil = spoil
    run.step(1)
    assert session.route[2].peer != three[2].candidate.peer


def test_blocks_that_nobody_serves_are_named_and_the_session_goes_on_when_somebody_does(
    network: Network, three: list[Node], session: Session, candidate: Callable[..., Candidate]
) -> None:
    run = Run(session)
    run.step(4)
    network.nodes[candidate(11, 2, 4, decode_s=0.1).peer].alive = False
    network.kill(three[1])
    session.patience_s = 0.05
    with pytest.raises(NoRouteError, match=r"nobody serves blocks 2:4 .*waited 0.05 s; lost: ") as lost:
        session.step(torch.zeros(BATCH, 1, WIDTH), 4)
    assert lost.value.missing == ((2, 4),)
    network.join(candidate(30, 1, 5))
    session.patience_s = 20.0
    run.step(1)
    run.step(1)


def test_nobody_at_all_is_an_error_that_names_all_blocks(session: Session) -> None:
    session.patience_s = 0.05
    with pytest.raises(NoRouteError) as lost:
        session.step(torch.zeros(BATCH, 1, WIDTH), 0)
    assert lost.value.missing == ((0, BLOCKS),)


def test_a_refused_step_ends_with_the_nodes_reason(network: Network, three: list[Node], session: Session) -> None:
    run = Run(session)
    run.step(2)
    refusal = Error(ErrorCode.OUT_OF_RANGE, "too wide").pack(VERSION)
    three[0].compute = lambda step: three[0].tell(Kind.ERROR, refusal)  # type: ignore[method-assign]
    with pytest.raises(SessionError, match="refused a step: too wide"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 2)


def test_a_long_step_is_cut_into_several(three: list[Node], session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_STEP_BYTES", 3 * BATCH * WIDTH * 4)
    run = Run(session)
    run.step(8)
    assert three[0].accepted == 3
    run.step(4, 1, (1, 0))
    assert three[0].accepted == 5


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    network: Network, three: list[Node], session: Session
) -> None:
    hidden = torch.zeros(BATCH, 3, WIDTH)
    with pytest.raises(RequestError, match="max_length"):
        session.step(hidden, 1)
    with pytest.raises(RequestError, match="larger max_length"):
        session.step(torch.zeros(BATCH, 65, WIDTH), 0)
    session.step(hidden, 0)
    with pytest.raises(RequestError, match="padding of a session cannot change"):
        session.step(hidden, 3, pads=(1, 0))
    with pytest.raises(RequestError, match="cannot change"):
        session.step(torch.zeros(BATCH + 1, 1, WIDTH), 3, pads=(0, 0, 0))
    with pytest.raises(RequestError, match="at least 1"):
        Session(network, MODEL, BLOCKS, torch.float32, 0)  # type: ignore[arg-type]


def test_a_closed_session_is_closed(three: list[Node], session: Session) -> None:
    Run(session).step(2)
    session.close()
    session.close()
    with pytest.raises(SessionError, match="this session is closed"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 2)
