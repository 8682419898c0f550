"""One end of a link, written and read byte by byte."""

import asyncio
from dataclasses import dataclass

from nectar_swarm.frames import Kind, encode
from nectar_swarm.messages import Hello

HELLO = b"".join(encode(0, Kind.HELLO, Hello(1, 3).pack()))


@dataclass
class ByHand:
    """The other end of a link, written and read byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def greet(self) -> None:
        self.writer.write(HELLO)
        assert await self.reader.readexactly(len(HELLO)) == HELLO

    def send(self, session: int, kind: Kind, payload: bytes = b"") -> None:
        self.writer.write(b"".join(encode(session, kind, payload)))
