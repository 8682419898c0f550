"""Many parties that do whatever numbers say, right or wrong: orders for a ledger, without end."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.core.orders import Obey, Order, Resume, Tick
from nectar_protocol.commands import ExtendHold, KeyPurpose, KeyState, OpenHold
from nectar_protocol.commands import Outcome as Finding
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import Identity
from nectar_protocol.modelentry import AuditState
from nectar_protocol.policy import Swarm

from tests.ledger.world import HOUR_MS, POLICY, World, person

PAYERS = [person(f"payer {n}") for n in range(3)]
NODES = [person(f"node {n}") for n in range(4)]
OWNERS = [person(f"owner {n}") for n in range(2)]
AUDITORS = [person(f"auditor {n}") for n in range(2)]
SESSIONS = [person(f"session {n}") for n in range(40)]
BY_KEY = {party.public: party for party in (*PAYERS, *NODES, *OWNERS, *AUDITORS, *SESSIONS)}
# Small numbers, so that limits are met: a batch closes, a purse is empty, a grant is too much.
SMALL = replace(
    POLICY, price=700_001, fee_ppm=33_333, hold_least_ucr=500, grants_ucr=900_000, batch_units=2_000, probes_ppm=0,
    free_cap_units=20_000, emission_ucr=15_000, emission_price=900_000, grace_ms=600_000, batch_ms=300_000,
)  # fmt: skip
WAITS_MS = (0, 0, 1, 1_000, 1_000, 10_000, 10_000, 60_000, 60_000, 60_000, 200_000, HOUR_MS)

Numbers = tuple[int, int, int, int]  # which action, and three from 0 to 99 for it


@dataclass
class Session:
    """What a hold's session and its nodes know: the revision they last heard of, and how far each line is."""

    hold: Hold
    payer: Identity
    totals: dict[Identity, tuple[int, int]]  # seq, tokens

    @property
    def key(self) -> Identity:
        return BY_KEY[self.hold.session]


class Play:
    """`act` makes an order of numbers; `hear` is told what became of it."""

    def __init__(self, world: World) -> None:
        self.world, self.now_ms = world, 0
        self.sessions: list[Session] = []
        self.sent: list[Order] = []
        self.batches: Sequence[tuple[int, Identity]] = ()  # number and node of those that are open
        actions: list[tuple[int, Callable[[int, int, int], Order]]] = [
            (30, self._receipt), (6, self._open_paid), (4, self._open_free), (6, self._extend), (8, self._again),
            (5, self._close), (5, self._fund), (2, self._withdraw), (3, self._grant), (2, self._bind),
            (2, self._set_key), (8, self._verdict), (1, self._dispute), (1, self._policy), (1, self._model),
            (12, self._tick), (2, self._resume),
        ]  # fmt: skip
        self.actions = [action for count, action in actions for _ in range(count)]

    def act(self, numbers: Numbers) -> Order:
        action, a, b, c = numbers
        order = self.actions[action % len(self.actions)](a, b, c)
        self.sent.append(order)
        return order

    def hear(self, order: Order, outcome: Outcome) -> None:
        if not isinstance(order, Obey) or not isinstance(outcome, Answer) or not outcome.response:
            return
        hold, command = SignedHold.unpack(outcome.response).hold, order.signed.command
        known = next((session for session in self.sessions if session.hold.id == hold.id), None)
        if known is not None:
            known.hold = max(known.hold, hold, key=lambda hold: hold.revision)
        elif isinstance(command, OpenHold | ExtendHold):
            self.sessions.append(Session(hold, BY_KEY[command.payer], {}))

    def prologue(self) -> Iterator[Order]:
        world = self.world
        yield world.publish_model()
        yield from (world.bind(node, OWNERS[n % 2]) for n, node in enumerate(NODES[:3]))
        yield from (world.grant(payer, 200_000) for payer in PAYERS)
        yield from (world.fund(payer, 150_000) for payer in PAYERS)
        yield world.set_key(AUDITORS[0], KeyPurpose.AUDITOR)

    def _session(self, a: int) -> Session | None:
        """Most often a young one."""
        return self.sessions[-1 - a % min(len(self.sessions), 8 if a % 4 else 99)] if self.sessions else None

    def _caps(self, b: int, c: int) -> dict[Identity, int]:
        chosen = [node for n, node in enumerate(NODES) if c >> n & 1] or [NODES[c % 3]]
        return {node: 1_000 + 97 * b for node in chosen}

    def _open_paid(self, a: int, b: int, c: int) -> Order:
        payer, session = PAYERS[a % 3], SESSIONS[b % len(SESSIONS)]
        life_ms = (900_000, 60_000, 900_001, 10)[a % 4 if a > 80 else b % 2]
        return self.world.open_hold(payer, session, self._caps(b, c), self.now_ms + life_ms, (1, 2, 4, 8)[c % 4])

    def _open_free(self, a: int, b: int, c: int) -> Order:
        session = SESSIONS[a % len(SESSIONS)]
        return self.world.open_hold(session, session, self._caps(3 * b, c), self.now_ms + 900_000)

    def _extend(self, a: int, b: int, c: int) -> Order:
        session = self._session(a)
        if session is None:
            return self._open_paid(a, b, c)
        hold = session.hold
        caps = {BY_KEY[line.server]: line.cap_units + 50 * (b % 5) for line in hold.lines}
        caps |= {node: caps.get(node, 0) + 100 for node in [NODES[c % 4]] if c % 2}
        expires_ms = hold.expires_ms if b % 3 else self.now_ms + 900_000
        payer = session.payer if c < 90 else PAYERS[c % 3]
        return self.world.extend(payer, hold, caps, max(expires_ms, hold.expires_ms))

    def _receipt(self, a: int, b: int, c: int) -> Order:
        session = self._session(a)
        if session is None:
            return self._open_free(a, b, c)
        hold = session.hold
        node = BY_KEY[hold.lines[b % len(hold.lines)].server] if b < 95 else NODES[b % 4]
        seq, tokens = session.totals.get(node, (0, 0))
        seq, tokens = seq + 1 + (b > 80), tokens + c % 7
        if c != 98:
            session.totals[node] = seq, tokens
        changes = {"units": c} if c == 99 else {}
        return self.world.receipt(hold, node, session.key, seq, tokens, final=60 < c < 67, **changes)

    def _again(self, a: int, b: int, c: int) -> Order:
        """Anything, late or twice."""
        if not self.sent:
            return Tick()
        return self.sent[-1 - (a * 100 + b) % len(self.sent)] if c % 2 else self.sent[-1 - a % min(len(self.sent), 9)]

    def _close(self, a: int, b: int, c: int) -> Order:
        session = self._session(a)
        return Tick() if session is None else self.world.close(session.key if b < 90 else PAYERS[0], session.hold)

    def _fund(self, a: int, b: int, c: int) -> Order:
        return self.world.fund(PAYERS[a % 3] if a < 80 else OWNERS[a % 2], 1_000 * (1 + b) + (c == 99))

    def _withdraw(self, a: int, b: int, c: int) -> Order:
        return self.world.withdraw(PAYERS[a % 3], 1_000 * (1 + b))

    def _grant(self, a: int, b: int, c: int) -> Order:
        return self.world.grant(PAYERS[a % 3], 1 + 1_000 * b * (1 + c % 3))

    def _bind(self, a: int, b: int, c: int) -> Order:
        node, owner, other = NODES[a % 4], OWNERS[b % 2], OWNERS[1 - b % 2]
        return self.world.bind(node, owner) if c < 30 else self.world.change_payee(node, owner, other)

    def _set_key(self, a: int, b: int, c: int) -> Order:
        state = KeyState.REVOKED if c < 30 else KeyState.ACTIVE
        return self.world.set_key(AUDITORS[a % 2], KeyPurpose.AUDITOR, state)

    def _verdict(self, a: int, b: int, c: int) -> Order:
        session = self._session(a)
        if session is None or not self.batches:
            return Tick()
        number, node = self.batches[b % len(self.batches)]
        outcome = Finding(1 + (c % 4 if c < 40 else 0))
        auditor = AUDITORS[a % 2]
        return self.world.verdict(auditor, node, number + (b > 95), session.hold, outcome, bytes([c % 3]))

    def _dispute(self, a: int, b: int, c: int) -> Order:
        session = self._session(a)
        return Tick() if session is None else self.world.dispute(session.key, session.hold, NODES[b % 4])

    def _policy(self, a: int, b: int, c: int) -> Order:
        """Half of them in a trusted swarm, where nobody waits for verdicts."""
        swarm, probes_ppm = ((Swarm.OPEN, 1), (Swarm.TRUSTED, 1), (Swarm.TRUSTED, 0), (Swarm.TRUSTED, 0))[a % 4]
        last, fee_ppm = self.world.policy, 33_333 * (c % 3)
        changes = {"swarm": swarm, "probes_ppm": probes_ppm, "price": 700_001 + b, "fee_ppm": fee_ppm}
        return self.world.publish_policy(replace(last, version=last.version + 1, **changes))

    def _model(self, a: int, b: int, c: int) -> Order:
        last = self.world.model
        self.world.model = replace(last, version=last.version + 1, state=AuditState(1 + a % 2))
        return self.world.publish_model()

    def _tick(self, a: int, b: int, c: int) -> Order:
        self.now_ms += WAITS_MS[a % len(WAITS_MS)]
        return Tick()

    def _resume(self, a: int, b: int, c: int) -> Order:
        self.now_ms += WAITS_MS[b % len(WAITS_MS)]
        return Resume()


def draw(random: Random) -> Numbers:
    return random.randrange(1000), random.randrange(100), random.randrange(100), random.randrange(100)
