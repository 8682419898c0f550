"""What a node says of itself when it is asked: the answer to an ASK."""

from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint

from nectar_swarm.messages import NOBODY, pack_text, read_text


@dataclass(frozen=True)
class Status:
    """All of it is a claim. KV is counted in positions of one row; `blocks` is the number of the whole model's.

    From version 2 on: `wait_us` is how long a decode step has lately waited on the node before it ran, `decode_us` how
    long one token takes through the node's span at present; 0 is what a node of version 1 says of both.
    From version 3 on: `ledger` is the one whose holds the node takes, if there is any.
    """

    kv_free: int
    kv_total: int
    sessions: int
    queued: int
    blocks: int
    name: str
    model: str
    device: str
    dtype: str
    version: str
    wait_us: int = 0
    decode_us: int = 0
    ledger: bytes = b""

    def pack(self, version: int) -> bytes:
        texts = (self.name, self.model, self.device, self.dtype, self.version)
        return b"".join(
            (
                uint(self.kv_free, 8, "kv_free"),
                uint(self.kv_total, 8, "kv_total"),
                uint(self.sessions, 4, "sessions"),
                uint(self.queued, 4, "queued"),
                uint(self.blocks, 2, "blocks"),
                uint(self.wait_us, 4, "wait_us") + uint(self.decode_us, 4, "decode_us") if version >= 2 else b"",
                (self.ledger or NOBODY) if version >= 3 else b"",
                *map(pack_text, texts),
            )
        )

    @classmethod
    def unpack(cls, data: bytes, version: int) -> "Status":
        """What a later version appends is not ours to read. Raises MalformedError."""
        reader = Reader(data)
        numbers = reader.uint(8), reader.uint(8), reader.uint(4), reader.uint(4), reader.uint(2)
        times = (reader.uint(4), reader.uint(4)) if version >= 2 else (0, 0)
        ledger = reader.take(len(NOBODY)) if version >= 3 else NOBODY
        name, model, device, dtype, software = (read_text(reader) for _ in range(5))
        return cls(*numbers, name, model, device, dtype, software, *times, b"" if ledger == NOBODY else ledger)
