"""The wire's own words for what they are not meant for: padded steps, feigned replays, bills ahead of their outputs."""

from collections.abc import Sequence
from contextlib import suppress

from nectar_node.errors import StepError
from nectar_protocol.hold import Hold
from nectar_protocol.receipt import SignedReceipt, Work

from benchmarks.economy.gain import Gain
from benchmarks.economy.market import HOUR_MS, Market, decoded
from benchmarks.economy.session import Serving, Step, Using
from benchmarks.economy.spending import CAP, CLIENT, NODE, PURSE_UCR, SESSION, open_market, steps

TOKENS = 200


def pad_steps() -> Gain:
    """A client has each token computed with a junk token behind it, which it rolls back: as a draft that is wrong."""
    return _decode([Step(n + 1, n + 1, n, 2) for n in range(TOKENS)])


def feign_replays() -> Gain:
    """A client numbers each token as two steps in one, as if it came again."""
    return _decode([Step(2 * n + 1, 2 * n + 2, n, 1) for n in range(TOKENS)])


def _decode(plan: Sequence[Step]) -> Gain:
    """What is decoded that way, and what it costs."""
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    serving = Serving(NODE, hold, market.meter)
    for step in plan:
        serving.run(step)
        _sign(serving)
    _settle(market, serving)
    worth_ucr = market.price_ucr(market.meter.units(decoded(TOKENS)))
    return Gain(worth_ucr, PURSE_UCR - market.wealth_ucr(CLIENT))


def _sign(serving: Serving) -> None:
    """Whatever the node bills."""
    if bill := serving.bill():
        serving.take(SignedReceipt(bill.receipt, bill.signature, bill.receipt.sign(SESSION)))


def _settle(market: Market, serving: Serving) -> None:
    if serving.line.receipt:
        market.post(serving.line.receipt.pack())
    market.pass_time(3 * HOUR_MS)


def refuse_replay(tokens: int = 16_384) -> Gain:
    """A client sends its whole prompt as if it came again, which needs not fit into the window, and signs nothing."""
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: 10 * CAP})
    serving = Serving(NODE, hold, market.meter)
    with suppress(StepError):
        serving.run(Step(1, 2, 0, tokens))
    _settle(market, serving)
    window = market.meter.units(Work(prefill_tokens=1_024, prefill_context=1_024 * tokens))
    return Gain(market.price_ucr(serving.units), PURSE_UCR - market.wealth_ucr(CLIENT), market.price_ucr(window))


def bill_unheard() -> Gain:
    """A node bills a step whose output it keeps, and leaves with the receipt."""
    market = open_market()
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    heard, unheard = steps(2, 0)
    serving, using = Serving(NODE, hold, market.meter), Using(SESSION, hold, NODE, market.meter)
    for step in (heard, unheard):
        using.ask(step)
        serving.run(step)
        if step is heard:
            using.hear(step)
        bill = serving.bill()
        if signed := bill and using.sign(bill):
            serving.take(signed)
    _settle(market, serving)
    return Gain(PURSE_UCR - market.wealth_ucr(CLIENT), _worth_ucr(market, hold, heard))


def _worth_ucr(market: Market, hold: Hold, step: Step) -> int:
    alone = Serving(NODE, hold, market.meter)
    alone.run(step)
    return market.price_ucr(alone.units)
