"""A ledger's log with an entry of every kind in it."""

from dataclasses import replace

from nectar_ledger.core.orders import Resume
from nectar_protocol.commands import KeyPurpose, Outcome
from nectar_protocol.entry import Kind, parse_entry

from tests.ledger.world import HOUR_MS, POLICY, Book, World, person

NODE, OWNER, ALICE = person("node"), person("owner"), person("alice")
SESSION, GUEST, AUDITOR = person("session"), person("guest"), person("auditor")
CAP, LIFE_MS = 1_000_000, 900_000
PROBED = replace(POLICY, probes_ppm=3_000_000, batch_units=0)


def write_history() -> Book:
    world = World(PROBED)
    book = Book(world)
    book.do(world.publish_model(), world.bind(NODE, OWNER), world.grant(ALICE, 10**9), world.fund(ALICE, 10**8))
    book.do(world.set_key(AUDITOR, KeyPurpose.AUDITOR), Resume())
    gift = book.open(world.open_hold(GUEST, GUEST, {NODE: CAP}, book.now_ms + LIFE_MS))
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: CAP}, book.now_ms + LIFE_MS))
    hold = book.open(world.extend(ALICE, hold, {NODE: 2 * CAP}, hold.expires_ms))
    book.do(world.receipt(gift, NODE, GUEST, 1, 3), world.receipt(hold, NODE, SESSION, 1, 10))
    batch = next(iter(book.state.nodes[NODE.public].batches.values())).account.id
    book.do(world.verdict(AUDITOR, NODE, batch, hold, Outcome.PASSED), world.dispute(GUEST, gift, NODE))
    book.do(world.receipt(hold, NODE, SESSION, 2, 12, final=True))
    book.do(world.receipt(gift, NODE, GUEST, 2, 4, final=True), world.publish_policy(replace(PROBED, version=2)))
    book.tick(HOUR_MS)
    book.tick()
    kinds = {parse_entry(draft.entry).kind for draft in book.log}
    assert kinds == set(Kind), set(Kind) - kinds
    return book


def find(book: Book, kind: Kind) -> int:
    """The first entry of a kind."""
    return next(index for index, draft in enumerate(book.log) if parse_entry(draft.entry).kind is kind)
