"""What a node says of itself to those who ask."""

from dataclasses import dataclass

from nectar_swarm.status import Status

from nectar_node.admission import Admission
from nectar_node.engine import Engine
from nectar_node.pipeline import Pipeline
from nectar_node.stage import Loaded


@dataclass(frozen=True)
class About:
    """What does not change while it serves."""

    name: str
    model_name: str
    blocks: int
    device: str
    version: str

    def status(
        self, loaded: Loaded, engine: Engine | Pipeline, admission: Admission, sessions: int, ledger: bytes
    ) -> Status:
        """And how it is now; `ledger` is the one whose holds are taken, if there is any."""
        return Status(
            kv_free=admission.kv_free,
            kv_total=admission.store.kv_total,
            sessions=sessions,
            queued=engine.queued,
            blocks=self.blocks,
            name=self.name,
            model=self.model_name,
            device=self.device,
            dtype=str(loaded.dtype).removeprefix("torch."),
            version=self.version,
            wait_us=engine.wait_us,
            decode_us=loaded.speed.decode_us,
            ledger=ledger,
        )
