"""Posting receipts: what is recorded, what is refused and why, and what costs nothing."""

from tests.ledger.api.served import NODE, Served
from tests.ledger.world import person


def test_a_receipt_is_settled_once_and_superseded_when_it_comes_again(served: Served) -> None:
    session = person("session 1")
    hold = served.hold(session)
    first, second = (served.world.receipt(hold, NODE, session, seq, 5 * seq) for seq in (1, 2))
    (settled,) = served.receipts(NODE, first)
    assert settled["status"] == "settled"
    assert served.receipts(NODE, first) == [{"status": "superseded"}]
    (again,) = served.receipts(session, second)
    assert again == {"status": "settled", "index": settled["index"] + 1}
