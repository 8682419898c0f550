"""Which records this swarm's DHT keeps: signed announcements under the right keys, and nothing else.

    model's key   one per model, named by its ID; subkey: the node's peer ID; value: the node's announcement
    index key     one per swarm; subkey: a model's ID in hex; value: the announcement of any node of that model

The validator runs where a record is stored and where it is read, so the DHT cannot serve strangers as storage, and
nobody can overwrite another node's word or prolong its life.
"""

from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.utils.serializer import MSGPackSerializer
from hivemind.utils.timed_storage import get_dht_time
from nectar_protocol.announcement import MAGIC, MAX_LIFE_MS, MAX_SIZE, Announcement
from nectar_protocol.codec import Reader
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import PUBLIC_KEY_SIZE, PeerID, PublicKey, peer_id
from nectar_protocol.manifest import MODEL_ID_SIZE, ModelID

INDEX_KEY = "nectar.models.v1"
CLOCK_SKEW_MS = 10_000
MAX_SUBKEY = 128  # bytes


def model_key(model: ModelID) -> str:
    """The DHT key under which a model's nodes announce themselves."""
    return f"nectar.model.v1.{model.hex()}"


class AnnouncementValidator(RecordValidatorBase):
    """With `allowed`, only these nodes' announcements are kept or believed."""

    def __init__(self, allowed: frozenset[PeerID] | None = None) -> None:
        self.allowed = allowed

    def validate(self, record: DHTRecord) -> bool:
        return self.read(record) is not None

    def read(self, record: DHTRecord) -> Announcement | None:
        """The announcement in a record; None if it is not a good one."""
        try:
            self._check(record)
            return Announcement.unpack(MSGPackSerializer.loads(record.value))
        except Exception:  # whatever a stranger can make a parser raise
            return None

    def _check(self, record: DHTRecord) -> None:
        """All but the signature, which takes ten times as long. Raises MalformedError, or what a parser raises."""
        if len(record.value) > MAX_SIZE + 16 or len(record.subkey) > MAX_SUBKEY:
            raise MalformedError("a record that is too large")
        reader = Reader(MSGPackSerializer.loads(record.value))
        if reader.take(len(MAGIC)) != MAGIC:
            raise MalformedError("not an announcement of version 1")
        node = peer_id(PublicKey(reader.take(PUBLIC_KEY_SIZE)))
        model = ModelID(reader.take(MODEL_ID_SIZE))
        issued_ms, expires_ms = reader.uint(8), reader.uint(8)
        if self.allowed is not None and node not in self.allowed:
            raise MalformedError(f"{node} is not on this swarm's list of allowed peers")
        subkey = MSGPackSerializer.loads(record.subkey)
        places = {model_key(model): node, INDEX_KEY: model.hex()}
        if not any(
            subkey == owner and record.key == DHTID.generate(source=key).to_bytes() for key, owner in places.items()
        ):
            raise MalformedError("an announcement in a place that is not its own")
        now_ms = get_dht_time() * 1000
        if not abs(record.expiration_time * 1000 - expires_ms) < 1:
            raise MalformedError("a record that lives longer or shorter than its announcement")
        if issued_ms > now_ms + CLOCK_SKEW_MS or expires_ms > now_ms + MAX_LIFE_MS + CLOCK_SKEW_MS:
            raise MalformedError("an announcement from the future")

    def merge_with(self, other: RecordValidatorBase) -> bool:
        return isinstance(other, AnnouncementValidator)
