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
from nectar_protocol.announcement import MAX_LIFE_MS, MAX_SIZE, Announcement
from nectar_protocol.identity import PeerID, peer_id
from nectar_protocol.manifest import ModelID

INDEX_KEY = "nectar.models.v1"
CLOCK_SKEW_MS = 10_000


def model_key(model: ModelID) -> str:
    """The DHT key under which a model's nodes announce themselves."""
    return f"nectar.model.v1.{model.hex()}"


class AnnouncementValidator(RecordValidatorBase):
    """With `allowed`, only these nodes' announcements are kept or believed."""

    def __init__(self, allowed: frozenset[PeerID] | None = None) -> None:
        self.allowed = allowed

    def validate(self, record: DHTRecord) -> bool:
        try:
            return self._good(record)
        except Exception:  # whatever a stranger can make a parser raise
            return False

    def _good(self, record: DHTRecord) -> bool:
        if len(record.value) > MAX_SIZE + 16 or len(record.subkey) > 128:
            return False
        announcement = Announcement.unpack(MSGPackSerializer.loads(record.value))
        subkey, node = MSGPackSerializer.loads(record.subkey), peer_id(announcement.node)
        if self.allowed is not None and node not in self.allowed:
            return False
        places = {model_key(announcement.model): node, INDEX_KEY: announcement.model.hex()}
        right_place = any(
            record.key == DHTID.generate(source=key).to_bytes() and subkey == owner for key, owner in places.items()
        )
        now_ms = get_dht_time() * 1000
        return (
            right_place
            and abs(record.expiration_time * 1000 - announcement.expires_ms) < 1
            and announcement.issued_ms <= now_ms + CLOCK_SKEW_MS
            and announcement.expires_ms <= now_ms + MAX_LIFE_MS + CLOCK_SKEW_MS
        )

    def merge_with(self, other: RecordValidatorBase) -> bool:
        return isinstance(other, AnnouncementValidator)
