"""Plays the rounds of a campaign: sessions under fire, one after the other, on a swarm that heals between them."""

import statistics
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nectar.connection import Connection
from nectar.model import AutoDistributedModelForCausalLM
from nectar.session import Session
from transformers import AutoModelForCausalLM

from benchmarks.models import VOCABULARY, make_llama
from benchmarks.survival.attack import Attack
from benchmarks.survival.plan import Campaign, Round, Scale
from benchmarks.survival.swarm import Swarm, swarm
from benchmarks.survival.verdict import Verdict, judge_beams, judge_greedy

HANG_S = 60.0
PATIENCE_S = 30.0  # replacements exist, but may be on their way
EDITED = 2  # tokens at the end of the first text that the second changes, so that the session rolls back
WAYS: dict[str, dict[str, Any]] = {"greedy": {}, "drafts": {"prompt_lookup_num_tokens": 3}, "beams": {"num_beams": 3}}


@dataclass(frozen=True)
class Result:
    """How a round went. `stall_ms` is its longest step from the one that was shot at on, `step_ms` its median one after
    the prompt; `replayed` is the number of positions that a replacement had to be given."""

    round: Round
    size: str
    kills: int
    verdict: Verdict
    hung: bool
    repaired: bool
    error: str
    stall_ms: float
    step_ms: float
    replayed: int


@dataclass
class Texts:
    """What a session generates: a first text, and a second one that goes on from it while nodes die."""

    plan: Round
    scale: Scale
    session: Session
    attack: Attack
    second: torch.Tensor | None = None
    out: torch.Tensor | None = None
    error: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = {"do_sample": False, **WAYS[self.plan.way]}

    def generate(self, model: Any) -> None:
        generator = torch.Generator().manual_seed(self.plan.number)
        prompt, more = (
            torch.randint(2, VOCABULARY, (1, length), generator=generator)
            for length in (self.scale.prompt, self.scale.more)
        )
        try:
            first = model.generate(prompt, session=self.session, max_new_tokens=self.scale.first, **self.settings)
            self.second = torch.cat([first[:, :-EDITED], more], 1)
            self.attack.begin()
            self.out = model.generate(self.second, session=self.session, max_new_tokens=self.scale.new, **self.settings)
        except Exception as error:  # whatever it is, the round has failed and says so
            self.error = f"{type(error).__name__}: {error}"

    def judge(self, local: Any) -> Verdict:
        if self.out is None or self.second is None:
            return Verdict.SAME
        prompt = self.second.shape[1]
        if self.out.shape[1] != prompt + self.scale.new:
            return Verdict.WRONG
        if self.plan.way != "beams":
            return judge_greedy(local, self.out, prompt)
        expected = local.generate(self.second, max_new_tokens=self.scale.new, **self.settings)
        return judge_beams(local, self.out, expected, prompt)


def play_round(plan: Round, size: str, scale: Scale, nodes: Swarm, model: Any, local: Any) -> Result:
    """One session under fire; in a thread of its own, so that a hang is seen and not suffered."""
    session = model.session(2 * (scale.prompt + scale.first + scale.more + scale.new))
    attack = Attack(plan, session, nodes)
    texts = Texts(plan, scale, session, attack)
    thread = threading.Thread(target=texts.generate, args=[model], daemon=True)
    thread.start()
    thread.join(HANG_S)
    hung = thread.is_alive()
    attack.end()
    repaired = bool(session.repairs)
    session.close()
    times_ms = [1e3 * time_s for time_s in attack.times_s] or [0.0]
    return Result(
        round=plan,
        size=size,
        kills=attack.sent,
        verdict=Verdict.SAME if hung else texts.judge(local),
        hung=hung,
        repaired=repaired,
        error=texts.error,
        stall_ms=round(max(times_ms[plan.token :] or times_ms), 1),
        step_ms=round(statistics.median(times_ms[1:] or times_ms), 2),
        replayed=attack.replayed,
    )


def play(
    campaign: Campaign, on_result: Callable[[Result], None] = lambda result: None, *, credits: bool = False
) -> list[Result]:
    """All rounds of a campaign, with `credits` under holds. Raises DemoError if its swarm does not come back."""
    torch.set_num_threads(1)
    results = []
    with tempfile.TemporaryDirectory(prefix="nectar-models-") as folder:
        path = make_llama(campaign.size, Path(folder))
        with swarm(path, campaign.spans, campaign.replicas, credits=credits) as nodes:
            local = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
            connection = Connection.open(nodes.addresses)
            try:
                model = AutoDistributedModelForCausalLM.from_pretrained(
                    str(path), connection=connection, patience_s=PATIENCE_S, ledger=nodes.ledger
                )
                for plan in campaign.rounds:
                    nodes.heal(connection, model.blocks.remote.model, campaign.copies(plan), restart=campaign.restarts)
                    result = play_round(plan, campaign.size, campaign.scale, nodes, model, local)
                    on_result(result)
                    results.append(result)
            finally:
                connection.close()
    return results
