"""A swarm inside one loop, without bytes or clocks: every message, dial and computation is an event of its own.

A seed decides which event comes next, who dies and which link ends; only the order on each link is kept. Time passes
with the events, so that nothing is on its way for longer than half a second, as AGAIN_S and PARKED_S suppose.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from nectar.routing import Candidate
from nectar.scout import Effort
from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.link import WIRE_VERSIONS
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step

CLIENT = PeerID("client")
PARKED_S, DELIVERED_S, EVENT_S = 2.0, 0.5, 0.01
CROWDED = 0.1  # of the times that a sender looks

Event = Callable[[], None]


def run_blocks(hidden: torch.Tensor, count: int) -> torch.Tensor:
    """Each position's output is the mean of all up to it, and one more: so it shows if any was lost or doubled."""
    for _ in range(count):
        hidden = hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[None, :, None] + 1
    return hidden


@dataclass(eq=False)
class NodeSession:
    number: int
    request: Open
    place: Neighbours
    past: torch.Tensor
    history: History = field(default_factory=History)
    accepted: int = 0
    sent: int = 0
    successor: PeerID | None = None


class SimulatedNode:
    """Keeps docs/protocol.md, "A session on a node", computing aside."""

    def __init__(self, swarm: "SimulatedSwarm", candidate: Candidate) -> None:
        self.swarm, self.candidate, self.peer = swarm, candidate, candidate.peer
        self.alive, self.full = True, False
        self.sessions: dict[int, NodeSession] = {}
        self.parked: list[tuple[float, int, PeerID, bytes]] = []
        self.steps: deque[tuple[NodeSession, Step]] = deque()

    def take(self, sender: PeerID, number: int, kind: Kind, payload: bytes) -> None:
        session = self.sessions.get(number)
        match kind:
            case Kind.OPEN:
                self._open(number, Open.unpack(payload))
            case Kind.REROUTE:
                place = Neighbours.unpack(payload)
                if session is None:
                    self._refuse(number, ErrorCode.UNKNOWN_SESSION, place.generation)
                elif place.generation > session.place.generation:
                    self._settle(session, place)
            case Kind.STEP:
                self._step(sender, number, payload)
            case Kind.CLOSE if session is not None:
                del self.sessions[number]

    def _refuse(self, number: int, code: ErrorCode, generation: int = 0, peer: PeerID | None = None) -> None:
        refusal = Error(code, code.name, generation, peer).pack(WIRE_VERSIONS.newest)
        self.swarm.send(self.peer, CLIENT, number, Kind.ERROR, refusal)

    def _open(self, number: int, request: Open) -> None:
        generation = request.neighbours.generation
        if self.full or number in self.sessions:
            self._refuse(number, ErrorCode.BUSY if self.full else ErrorCode.DENIED, generation)
            return
        past = torch.zeros(request.batch, 0, self.swarm.width)
        self.sessions[number] = NodeSession(number, request, request.neighbours, past)
        self._settle(self.sessions[number], request.neighbours)

    def _settle(self, session: NodeSession, place: Neighbours) -> None:
        session.place, session.sent, session.successor = place, place.sent, None
        self.swarm.later.append(lambda: self._join(session, place))
        waiting, self.parked = self.parked, []
        for came_s, number, sender, payload in waiting:
            if came_s > self.swarm.now_s - PARKED_S:
                self._step(sender, number, payload)

    def _join(self, session: NodeSession, place: Neighbours) -> None:
        if self.sessions.get(session.number) is not session or session.place is not place:
            return
        if place.next is not None and not self.swarm.connect(self.peer, place.next):
            self._refuse(session.number, ErrorCode.UNREACHABLE, place.generation, place.next)
            return
        session.successor = place.next or CLIENT
        self.swarm.send(self.peer, CLIENT, session.number, Kind.ROUTED, Routed(place.generation).pack())
        self._pump(session)

    def _step(self, sender: PeerID, number: int, payload: bytes) -> None:
        session = self.sessions.get(number)
        if session is None or sender != (session.place.prev or CLIENT):
            self.parked.append((self.swarm.now_s, number, sender, payload))
            return
        step = Step.unpack(payload)
        if step.last <= session.accepted:
            return
        if step.first > session.accepted + 1:
            self.swarm.gaps.append(f"{step.first} after {session.accepted}")
            self._refuse(number, ErrorCode.FAILED)
            return
        session.accepted = step.last
        self.steps.append((session, step))

    def compute(self) -> None:
        session, step = self.steps.popleft()
        if self.sessions.get(session.number) is not session:
            return
        assert step.position <= session.past.shape[1], "positions are missing"
        past = session.past[:, : step.position]
        session.past = torch.cat([past[list(step.reorder)] if step.reorder else past, step.hidden], 1)
        out = run_blocks(session.past, session.request.stop - session.request.start)[:, step.position :]
        session.history.append(Step(step.first, step.last, step.position, out, step.reorder))
        self._pump(session)

    def _pump(self, session: NodeSession) -> None:
        if session.successor is None or self.sessions.get(session.number) is not session:
            return
        for step in session.history.after(session.sent, session.place.settled):
            if self.swarm.dice.random() < CROWDED:
                self.swarm.later.append(lambda: self._pump(session))
                return
            self.swarm.send(self.peer, session.successor, session.number, Kind.STEP, step.pack())
            session.sent = step.last

    def on_dead(self, peer: PeerID) -> None:
        if peer == CLIENT:
            self.sessions.clear()
            self.swarm.cut(self.peer, CLIENT)  # a node ends all links to a peer at once
            return
        for session in self.sessions.values():
            if session.place.next == peer:
                session.successor = None
                self._refuse(session.number, ErrorCode.LOST, session.place.generation, peer)

    def die(self) -> None:
        self.alive = False
        self.sessions.clear()
        self.parked.clear()
        self.steps.clear()
        for other in (CLIENT, *self.swarm.nodes):
            self.swarm.cut(self.peer, other)


class SimulatedSwarm:
    """Stands for a connection to `nodes`. `happen` makes one event happen; False if there is none."""

    def __init__(self, seed: int, width: int) -> None:
        self.dice, self.width, self.now_s = random.Random(seed), width, 0.0
        self.nodes: dict[PeerID, SimulatedNode] = {}
        self.met: set[PeerID] = set()  # whom the client has a link to, as far as it knows
        self.aside: set[PeerID] = set()
        self.apart: set[frozenset[PeerID]] = set()  # pairs that cannot meet
        self.later: list[Event] = []
        self.gaps: list[str] = []
        self._links: set[frozenset[PeerID]] = set()
        self._moving: dict[tuple[PeerID, PeerID], deque[tuple[float, Event]]] = {}
        self._session: Any = None
        self._number = 0
        self.scout = self.view = self

    def join(self, candidate: Candidate) -> None:
        self.nodes[candidate.peer] = SimulatedNode(self, candidate)
        self.connect(CLIENT, candidate.peer)
        self.met.add(candidate.peer)

    def monotonic(self) -> float:
        """Stands for the clock that the keeper reads."""
        return self.now_s

    # Links

    def connect(self, one: PeerID, other: PeerID) -> bool:
        if not self.nodes[other].alive or frozenset((one, other)) in self.apart:
            return False
        self._links.add(frozenset((one, other)))
        return True

    def send(self, sender: PeerID, receiver: PeerID, number: int, kind: Kind, payload: bytes) -> None:
        if frozenset((sender, receiver)) in self._links:
            self._post(sender, receiver, lambda: self._deliver(sender, receiver, number, kind, payload))

    def cut(self, one: PeerID, other: PeerID) -> None:
        """End a link: each side gets some of what is on its way to it, and then the end, if it lives."""
        pair = frozenset((one, other))
        if pair not in self._links:
            return
        self._links.remove(pair)
        for sender, receiver in ((one, other), (other, one)):
            moving = self._moving.setdefault((sender, receiver), deque())
            for _ in range(self.dice.randint(0, len(moving))):
                moving.pop()
            self._post(sender, receiver, lambda sender=sender, receiver=receiver: self._end(sender, receiver))

    def _post(self, sender: PeerID, receiver: PeerID, event: Event) -> None:
        self._moving.setdefault((sender, receiver), deque()).append((self.now_s, event))

    def _deliver(self, sender: PeerID, receiver: PeerID, number: int, kind: Kind, payload: bytes) -> None:
        if receiver != CLIENT:
            if self.nodes[receiver].alive:
                self.nodes[receiver].take(sender, number, kind, payload)
        elif number == self._number:
            self._session.on_message(SimpleNamespace(peer=sender, version=WIRE_VERSIONS.newest), kind, payload)

    def _end(self, dead: PeerID, receiver: PeerID) -> None:
        if receiver != CLIENT:
            if self.nodes[receiver].alive:
                self.nodes[receiver].on_dead(dead)
            return
        self.aside.add(dead)
        self.met.discard(dead)
        self._session.on_dead(dead, "closed its link")

    def happen(self) -> bool:
        self.now_s += EVENT_S
        moving = [queue for queue in self._moving.values() if queue]
        overdue = [queue for queue in moving if queue[0][0] < self.now_s - DELIVERED_S]
        computing = [node for node in self.nodes.values() if node.steps]
        if not moving and not computing and not self.later:
            return False
        source = self.dice.choice(overdue or [*moving, *computing, *self.later])
        if isinstance(source, deque):
            source.popleft()[1]()
        elif isinstance(source, SimulatedNode):
            source.compute()
        else:
            self.later.remove(source)
            source()
        return True

    # What a session needs of its connection

    def add(self, session: Any) -> int:
        self._session, self._number = session, self._number + 1
        return self._number

    def remove(self, number: int) -> None: ...

    def present_link(self, peer: PeerID) -> Any:
        if peer not in self.met:
            return None
        return SimpleNamespace(
            peer=peer,
            busy_ms=0,
            suspected=False,
            crowded=self.dice.random() < CROWDED,
            when_clear=self.later.append,
            send=lambda number, kind, payload=b"": self.send(CLIENT, peer, number, kind, payload),
        )

    async def candidates(self, model: Any, effort: Effort, **others: Any) -> Sequence[Candidate]:
        if effort > Effort.AT_HAND:
            for peer in self.nodes:
                if peer not in self.met and not self._moving.get((peer, CLIENT)) and self.connect(CLIENT, peer):
                    self.met.add(peer)
        known = [node.candidate for node in self.nodes.values() if node.peer in self.met]
        return [one for one in known if effort is Effort.FORGIVE or one.peer not in self.aside]

    def set_aside(self, peer: PeerID) -> None:
        self.aside.add(peer)

    def trust_again(self, peer: PeerID) -> None:
        self.aside.discard(peer)

    def leave_alone(self, peer: PeerID, seconds: float, positions: int = 0) -> None:
        self.aside.add(peer)
