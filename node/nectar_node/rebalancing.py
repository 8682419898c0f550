"""Which nodes should take other blocks: a plan that all make alike from the same announcements. Pure functions.

A plan names new places for some nodes, each with as many blocks as it serves now. Moves that each help by themselves
are not enough: most swarms in which no single one helps are far from their best. A plan is worth its price if the
bottleneck clearly gains, the more the more nodes must move; and if they can go one after the other, none of them
leaving a block that nobody else serves.
"""

import math
from collections.abc import Iterable

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PublicKey

from nectar_node.annealing import Annealing
from nectar_node.layout import Layout, Moves

GAIN = 1.1  # a swarm at nine tenths of what it could do is left alone
MOVE_COST = 0.01  # what each move must bring beyond that
MIN_MEANWHILE = 0.5  # of the present bottleneck, while a plan is carried out


def find_moves(layout: Layout, before: Moves) -> dict[PublicKey, int]:
    """The best plan that is worth its price; empty when the nodes should stay.

    What is left of the plan `before`, made last time, is kept unless a better one is found: a swarm in the middle of a
    plan must not set out on another.
    """
    best: dict[PublicKey, int] = {}
    best_value = (-layout.blocks - 1, 0.0)
    found = Annealing(layout, MOVE_COST).run(lambda moves: bool(order(layout, moves)))
    for moves in (_what_is_left(layout, before), found):
        if moves and is_worth(layout, moves) and order(layout, moves) and _value(layout, moves) > best_value:
            best, best_value = moves, _value(layout, moves)
    return best


def _what_is_left(layout: Layout, before: Moves) -> dict[PublicKey, int]:
    left = {}
    for node, start in before.items():
        seat = layout.seats.get(node)
        if seat is not None and seat.movable and seat.start != start <= layout.blocks - seat.length:
            left[node] = start
    return left


def _value(layout: Layout, moves: Moves) -> tuple[int, float]:
    gaps, bottleneck = layout.after(moves).quality
    return gaps, bottleneck * math.exp(-MOVE_COST * len(moves))


def is_worth(layout: Layout, moves: Moves) -> bool:
    """Does a plan close a gap, or raise the bottleneck clearly?"""
    (gaps, bottleneck), (gaps_then, bottleneck_then) = layout.quality, layout.after(moves).quality
    if gaps_then != gaps:
        return gaps_then > gaps
    return bottleneck > 0 and bottleneck_then >= bottleneck * GAIN * math.exp(MOVE_COST * len(moves))


def order(layout: Layout, moves: Moves) -> list[PublicKey]:
    """The nodes of a plan one after the other, the best move first; empty if some can never go without leaving a gap,
    or only while the bottleneck falls too far.
    """
    least = layout.quality[1] * MIN_MEANWHILE
    going: list[PublicKey] = []
    left = dict(moves)
    while left:
        steps = [(node, layout.after({node: left[node]})) for node in left if layout.may_leave(node)]
        steps = [(node, after) for node, after in steps if after.quality[1] >= least]
        if not steps:
            return []
        node, layout = max(steps, key=lambda step: (step[1].quality[0], sorted(step[1].throughput), step[0]))
        going.append(node)
        del left[node]
    return going


def may_begin(layout: Layout, moves: Moves, node: PublicKey) -> bool:
    """Is it this node's turn? Whoever makes nothing worse need not wait for others, which may never go; if every move
    makes something worse at first, the best one begins.
    """

    def harmless(one: PublicKey) -> bool:
        return layout.may_leave(one) and layout.after({one: moves[one]}).quality >= layout.quality

    if node not in moves:
        return False
    return harmless(node) or (not any(map(harmless, moves)) and order(layout, moves)[:1] == [node])


def relieved(others: Iterable[Announcement], span: tuple[int, int]) -> bool:
    """Does each block of a span have one of these nodes that serves it and means to stay?"""
    steady = [range(a.start, a.stop) for a in others if a.state in (NodeState.SERVING, NodeState.PINNED)]
    return all(any(block in one for one in steady) for block in range(*span))
