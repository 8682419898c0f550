"""What will be done to whom, and when: drawn from a seed before the first node starts."""

import random
from dataclasses import dataclass, replace

TINY_SPANS, TINY_REPLICAS = ("0:3", "3:5", "5:8"), 3
MID_SPANS, MID_REPLICAS = ("0:4", "4:8", "8:12", "12:16"), 2
MID_SHARE = 8  # one kill in so many is on the mid model, for the median of its stalls

# Numbers of items without a common divisor, so that in time everything meets everything.
LOSSES = (("node", "SIGKILL"), ("p2pd", "SIGKILL"), ("node", "SIGSTOP"), ("node", "SIGKILL"), ("p2pd", "SIGSTOP"))
TURNS = ("one", "two", "one", "replacement", "one", "one", "other", "one")
WAYS = ("greedy", "drafts", "beams")
PROMPT_EVERY = 7


@dataclass(frozen=True)
class Shot:
    """One process to lose: the node or its p2pd, of which hop of the route, by which signal, and after how long.

    After the step has begun, or, for a shot during a replay, after the first loss was noticed; its `hop` counts from
    the hop that was lost first, so that 0 is the replacement.
    """

    hop: int
    target: str
    signal: str
    delay_ms: float


@dataclass(frozen=True)
class Round:
    """One session. `shots` go off at the step that brings `token` of its second text, 0 being that text's prompt."""

    number: int
    way: str
    token: int
    shots: tuple[Shot, ...]
    during_replay: Shot | None = None

    @property
    def kills(self) -> int:
        return len(self.shots) + (self.during_replay is not None)

    @property
    def copies(self) -> int:
        """How many nodes of each span must be there, for one to be left."""
        return 3 if self.during_replay and not self.during_replay.hop else 2

    def hops(self, count: int) -> set[int]:
        """Which of so many hops lose a process."""
        hops = {shot.hop for shot in self.shots}
        return hops | ({(self.shots[0].hop + self.during_replay.hop) % count} if self.during_replay else set())

    @property
    def dead_peer(self) -> bool:
        """One process ends and none is stopped, while tokens are made."""
        return self.kills == 1 and self.shots[0].signal == "SIGKILL" and self.token > 0

    @property
    def stopped_peer(self) -> bool:
        return self.during_replay is None and any(shot.signal == "SIGSTOP" for shot in self.shots)


@dataclass(frozen=True)
class Scale:
    """How long texts are: the first, what it is continued by, the second, and what that is continued by."""

    prompt: int
    first: int
    more: int
    new: int


@dataclass(frozen=True)
class Campaign:
    """Rounds on one swarm of one model. `restarts`: nodes that have ended are started anew between them."""

    size: str
    spans: tuple[str, ...]
    replicas: int
    scale: Scale
    rounds: tuple[Round, ...]
    restarts: bool = True

    def copies(self, plan: Round) -> dict[str, int]:
        """How many nodes of each span a round begins with; without restarts, one where it does not shoot."""
        aims = plan.hops(len(self.spans))
        return {span: plan.copies if self.restarts or hop in aims else 1 for hop, span in enumerate(self.spans)}


def plan(kills: int, seed: int) -> list[Campaign]:
    """Every kind of loss on the tiny model, with three nodes for each span; dead peers on the mid one."""
    source = random.Random(seed)
    scale = Scale(prompt=16, first=4, more=96, new=24)
    rounds: list[Round] = []
    on_mid = kills // MID_SHARE
    while (left := kills - on_mid - sum(one.kills for one in rounds)) > 0:
        number = len(rounds)
        turn = TURNS[number % len(TURNS)] if left > 1 else "one"
        token = 0 if number % PROMPT_EVERY == 1 else source.randrange(1, scale.new - 4)
        rounds.append(_round(source, number, turn, WAYS[number % len(WAYS)], token, len(TINY_SPANS)))
    mid = tuple(  # hops in turn, since the one before has yet to come back
        _dead_peer(source, number, number % len(MID_SPANS), ("node", "p2pd")[number % 2], MID_SCALE)
        for number in range(on_mid)
    )
    campaigns = [Campaign("tiny", TINY_SPANS, TINY_REPLICAS, scale, tuple(rounds))]
    return [*campaigns, Campaign("mid", MID_SPANS, MID_REPLICAS, MID_SCALE, mid)] if mid else campaigns


def quick_plan(seed: int) -> list[Campaign]:
    """Nine rounds and ten kills on the mid model alone, and no node starts twice: that is what takes time.

    So p2pds end first, which come back by themselves, each some rounds before the next loss at its hop; then each hop's
    node, for the one beside it to take its place.
    """
    source = random.Random(seed)
    scale = replace(MID_SCALE, new=8)
    first, second = (Shot(hop, "p2pd", "SIGKILL", source.uniform(1, 30)) for hop in (1, 2))
    rounds = [Round(0, "greedy", 3, (first,), during_replay=second)]
    rounds.append(_dead_peer(source, 1, 2, "p2pd", scale))
    rounds.append(Round(2, "drafts", 3, (Shot(0, "node", "SIGSTOP", 3.0),)))
    losses = (3, "node"), (1, "p2pd"), (0, "p2pd"), (2, "node"), (1, "node"), (0, "node")
    rounds += [_dead_peer(source, number, *loss, scale) for number, loss in enumerate(losses, 3)]
    return [Campaign("mid", MID_SPANS, MID_REPLICAS, scale, tuple(rounds), restarts=False)]


MID_SCALE = Scale(prompt=12, first=4, more=4, new=24)


def _dead_peer(source: random.Random, number: int, hop: int, target: str, scale: Scale) -> Round:
    """A node or its p2pd ends while a token is made."""
    shot = Shot(hop, target, "SIGKILL", source.uniform(0, 40))
    return Round(number, "greedy", source.randrange(1, scale.new - 4), (shot,))


def _round(source: random.Random, number: int, turn: str, way: str, token: int, hops: int) -> Round:
    hop = source.randrange(hops)
    shots = [Shot(hop, *LOSSES[number % len(LOSSES)], delay_ms=source.uniform(0, 8))]
    other = source.randrange(1, hops)  # counted from the first one's
    if turn == "two":
        loss = LOSSES[source.randrange(len(LOSSES))]
        shots.append(Shot((hop + other) % hops, *loss, delay_ms=source.uniform(0, 8)))
    during = None
    if turn in ("replacement", "other"):
        target = source.choice(["node", "p2pd"])
        during = Shot(other if turn == "other" else 0, target, "SIGKILL", source.uniform(1, 30))
    return Round(number, way, token, tuple(shots), during)
