"""A model's blocks as they run in a swarm: `model.blocks[2:5](hidden)`.

A slice is an ordinary module without parameters, so that it can stand wherever hidden states go in and come out.
"""

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import torch
from nectar_protocol.errors import IdentityError, MalformedError
from nectar_protocol.hold import WEIGHTS
from nectar_protocol.identity import PeerID, parse_peer_id
from nectar_protocol.manifest import ModelID
from nectar_protocol.money import MAX_UCR, format_credits, parse_credits
from torch import nn

from nectar.connection import Connection
from nectar.errors import RequestError
from nectar.repair import Span
from nectar.route import Route
from nectar.routing import PeerSet
from nectar.session import PATIENCE_S, Session

if TYPE_CHECKING:
    from nectar.purse import Purse

Credits = int | float | str | Decimal


@dataclass(frozen=True)
class RemoteModel:
    """Which model it is, over which connection, and how its sessions are opened unless they say otherwise.

    Its `blocks` pass on hidden states of `width`, in `dtype`. Sessions are paid from `purse`, if there is one.
    """

    connection: Connection
    model: ModelID
    blocks: int
    width: int
    dtype: torch.dtype
    patience_s: float = PATIENCE_S
    trusted: PeerSet | None = None
    purse: "Purse | None" = None


class RemoteBlocks(nn.Module):
    """Some neighbouring blocks of a model. Slices and single blocks of it are RemoteBlocks again."""

    def __init__(self, remote: RemoteModel, part: range | None = None) -> None:
        super().__init__()
        self.remote = remote
        self.part = range(remote.blocks) if part is None else part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, key: int | slice) -> "RemoteBlocks":
        """Raises RequestError for a slice that skips blocks or holds none, IndexError for a block that is not here."""
        if not isinstance(key, slice):
            key = operator.index(key)
            return RemoteBlocks(self.remote, range(self.part[key], self.part[key] + 1))
        part = self.part[key]
        if not part or part.step != 1:
            shown = f"{key.start}:{key.stop}" + (f":{key.step}" if key.step is not None else "")
            raise RequestError(f"{self!r} has no blocks {shown}; a slice is one or more neighbours, in order")
        return RemoteBlocks(self.remote, part)

    def __iter__(self) -> "Iterator[RemoteBlocks]":
        return (self[number] for number in range(len(self)))

    def extra_repr(self) -> str:
        return f"{self.part.start}:{self.part.stop} of {self.remote.blocks}"

    def session(
        self,
        max_length: int = 2048,
        *,
        patience_s: float | None = None,
        trusted_peers: Collection[PeerID] | None = None,
        route: Sequence[Span | tuple[PeerID, int, int]] = (),
        weight: int = 0,
        budget: Credits | None = None,
    ) -> Session:
        """A session through these blocks; use it in a `with` statement.

        It holds at most `max_length` positions on the nodes until it is closed. `patience_s` and `trusted_peers` are
        the model's own if they are not given. `route` names the nodes, (peer, start, stop) for each: then no others
        will do, also when one is lost.

        `weight` 1, 2, 4 or 8 buys priority, from the wallet that the model was given: each unit of work costs so many
        times its price. 0 is the free class and costs nothing. `budget` is the most that the session may set aside, in
        credits. Raises RequestError for what is no route through these blocks, or cannot be paid like that.
        """
        remote = self.remote
        _check_paying(remote, weight, budget)
        route_through = Route(
            remote.blocks,
            remote.trusted if trusted_peers is None else peer_set(trusted_peers),
            part=self.part,
            chosen=_spans(route),
            pays=weight > 0,
        )
        patience_s = remote.patience_s if patience_s is None else patience_s
        settings = remote.connection, remote.model, route_through, remote.dtype, max_length, patience_s
        if remote.purse is None:
            return Session(*settings)
        from nectar.paid import PaidSession

        budget_ucr = MAX_UCR if budget is None else to_ucr(budget)
        return PaidSession(*settings, purse=remote.purse, weight=weight, budget_ucr=budget_ucr)

    def forward(self, hidden: torch.Tensor, *, session: Session | None = None) -> torch.Tensor:
        """Hidden states [batch, tokens, width] through these blocks; the output has the same shape, dtype and device.

        With a `session` of these blocks they go on from what it holds. Nothing flows back: the result has no gradient.
        Raises RequestError, SessionError or NoRouteError.
        """
        if hidden.ndim != 3 or hidden.shape[2] != self.remote.width or not hidden.numel():
            wanted = f"[batch, tokens, {self.remote.width}]"
            raise RequestError(f"blocks of this model take hidden states {wanted}, not {list(hidden.shape)}")
        given = hidden.to(self.remote.dtype)
        if session is not None:
            return session.step(given, session.position).to(hidden)
        with self.session(hidden.shape[1]) as own:
            return own.step(given, 0).to(hidden)


def peer_set(peers: Collection[PeerID] | None) -> PeerSet | None:
    """Raises RequestError for what is no peer ID."""
    try:
        for peer in peers or ():
            parse_peer_id(peer)
    except IdentityError as error:
        raise RequestError(f"trusted_peers takes peer IDs, 12D3KooW…: {error}") from error
    return None if peers is None else frozenset(peers)


def _spans(route: Sequence[Span | tuple[PeerID, int, int]]) -> tuple[Span, ...]:
    """Raises RequestError for what does not name a node and its blocks."""
    try:
        spans = [one if isinstance(one, Span) else Span(*one) for one in route]
        return tuple(Span(one.peer, operator.index(one.start), operator.index(one.stop)) for one in spans)
    except TypeError as error:
        raise RequestError(f"a route is a list of (peer, start, stop), not {route!r}") from error


def _check_paying(remote: RemoteModel, weight: int, budget: Credits | None) -> None:
    """Raises RequestError."""
    if weight not in WEIGHTS:
        raise RequestError(f"weight is one of {', '.join(map(str, WEIGHTS))}, not {weight!r}")
    if weight and (remote.purse is None or remote.purse.wallet is None):
        raise RequestError("weight is paid for: give ledger=URL and wallet=PATH to from_pretrained, or leave it 0")
    if budget is not None and not weight:
        raise RequestError("budget goes with a weight: what has none costs nothing")


def to_ucr(budget: Credits) -> int:
    """Raises RequestError for what is no amount of credits."""
    try:
        return parse_credits(budget if isinstance(budget, str) else f"{Decimal(str(budget)).normalize():f}")
    except (MalformedError, ArithmeticError) as error:
        raise RequestError(f"budget is an amount of credits, as 12 or 0.5: {error}") from error


def share(budget: Credits, parts: int) -> str:
    """The budget of each of so many sessions."""
    return format_credits(to_ucr(budget) // parts)
