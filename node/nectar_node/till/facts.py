"""What a node knows of its ledger: who signs holds, what work is worth, whether it is bound to a payee.

All of it is kept with the receipts, so that a node starts, and takes holds, while the ledger is down.
"""

from collections.abc import Callable

from nectar_ledger_client.errors import LedgerClientError
from nectar_ledger_client.known import KnownLedger
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PublicKey, public_key
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy

from nectar_node.errors import TillError

Save = Callable[[str, bytes], None]


class Facts:
    """`save` keeps a fact on disk, by name. `payee` is the account that this node's earnings go to."""

    def __init__(self, save: Save) -> None:
        self._save = save
        self.ledger: KnownLedger | None = None
        self.model: ModelEntry | None = None
        self.payee: PublicKey | None = None
        self.binding = ""
        self.policies: dict[bytes, Policy] = {}

    @classmethod
    def load(cls, kept: dict[str, bytes], save: Save, model: bytes) -> "Facts":
        """Facts as they were saved. Raises TillError."""
        facts = cls(save)
        try:
            for name, data in kept.items():
                if name == "genesis":
                    facts.ledger = KnownLedger.of(data)
                elif name == "payee":
                    facts.payee = public_key(data)
                elif name == "binding":
                    facts.binding = data.decode()
                elif name == f"model/{model.hex()}":
                    facts.model = ModelEntry.unpack(data)
                elif name.startswith("policy/"):
                    policy = Policy.unpack(data)
                    facts.policies[policy.id] = policy
        except (ProtocolError, LedgerClientError, UnicodeDecodeError) as error:
            raise TillError(f"what this node knew of its ledger cannot be read ({error}): put it back") from error
        return facts

    def learn_ledger(self, genesis: bytes) -> None:
        """Raises LedgerClientError if this is another ledger than before."""
        self.ledger = KnownLedger.of(genesis, None if self.ledger is None else self.ledger.ledger)
        self._save("genesis", genesis)

    def learn_policy(self, policy: Policy) -> None:
        if policy.id not in self.policies:
            self.policies[policy.id] = policy
            self._save(f"policy/{policy.id.hex()}", policy.pack())

    def learn_model(self, entry: ModelEntry) -> None:
        if entry != self.model:
            self.model = entry
            self._save(f"model/{entry.model.hex()}", entry.pack())

    def learn_payee(self, payee: PublicKey) -> None:
        if payee != self.payee:
            self.payee = payee
            self._save("payee", payee)

    def ask_for_binding(self, request: str) -> None:
        """What the owner is asked to sign."""
        self.binding = request
        self._save("binding", request.encode())
