"""What a swarm looks like from outside: its models, who serves which of their blocks, how fast, and what is missing."""

import asyncio
from dataclasses import dataclass

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.errors import SwarmError
from nectar_swarm.status import Status

from nectar.connection import Connection


@dataclass(frozen=True)
class SeenNode:
    """A node's signed announcement, and what it says of itself; None if it did not answer."""

    announcement: Announcement
    status: Status | None

    @property
    def state(self) -> str:
        if self.announcement.serves and self.status is None:
            return "silent"
        if self.announcement.state is NodeState.PINNED:
            return "serving"
        return self.announcement.state.name.lower()


@dataclass(frozen=True)
class SeenModel:
    """A model with its nodes, by the blocks they serve."""

    model: ModelID
    nodes: tuple[SeenNode, ...]

    @property
    def name(self) -> str:
        """The name that most of its nodes give it; they may lie, the ID does not."""
        names = [node.status.model for node in self.nodes if node.status]
        return max(names, key=names.count) if names else f"{self.model.hex()[:16]}…"

    @property
    def blocks(self) -> int:
        """How many blocks the model has, as its nodes say, and at least up to the last one announced."""
        said = [node.status.blocks for node in self.nodes if node.status]
        return max([*said, *(node.announcement.stop for node in self.nodes)], default=0)

    def coverage(self) -> list[int]:
        """How many nodes that answer serve each block."""
        serving = [node.announcement for node in self.nodes if node.announcement.serves and node.status]
        return [sum(a.start <= block < a.stop for a in serving) for block in range(self.blocks)]


async def take_census(connection: Connection) -> list[SeenModel]:
    """Runs in the connection's loop. Raises SwarmError if the directory cannot be read."""
    models = []
    for model in await connection.scout.models():
        announcements = await connection.scout.nodes(model, fresh=True)
        statuses = await asyncio.gather(*(_status(connection, one) for one in announcements))
        seen = [SeenNode(one, status) for one, status in zip(announcements, statuses, strict=True)]
        seen.sort(key=lambda node: (node.announcement.start, node.announcement.stop, node.announcement.node))
        if seen:
            models.append(SeenModel(model, tuple(seen)))
    return models


async def _status(connection: Connection, node: Announcement) -> Status | None:
    try:
        return await connection.scout.ask(peer_id(node.node), node.addresses)
    except SwarmError:
        return None
