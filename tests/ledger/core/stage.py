"""Who plays in these tests: two nodes of one owner, Alice with credits in her purse, and her session."""

from dataclasses import replace

from nectar_protocol.commands import KeyPurpose
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity

from tests.ledger.world import POLICY, Book, person

ALICE, SESSION, OWNER = person("alice"), person("session"), person("owner")
NODE, OTHER = person("node"), person("other node")
AUDITOR, STRANGER = person("auditor"), person("stranger")
PURSE_UCR = 100_000_000
CAP = 1_000_000  # units; about 1,400 tokens of the world's model
LIFE_MS, GRACE_MS = 900_000, 3_600_000  # of the world's policy
# Ten tokens make a batch that is large enough.
PROBED = replace(POLICY, probes_ppm=3_000_000, batch_units=6_405)
EARNED_UCR = 6_276  # by ten tokens


def stock(book: Book) -> Book:
    world = book.world
    book.do(world.publish_model(), world.bind(NODE, OWNER), world.bind(OTHER, OWNER))
    book.do(world.grant(ALICE, 2 * PURSE_UCR), world.fund(ALICE, PURSE_UCR))
    return book


def paid(book: Book, cap: int = CAP, both: bool = False, weight: int = 1) -> Hold:
    """A hold of Alice's with a line for the node, or for both."""
    caps = {NODE: cap, OTHER: cap} if both else {NODE: cap}
    return book.open(book.world.open_hold(ALICE, SESSION, caps, book.now_ms + LIFE_MS, weight))


def free(book: Book, cap: int = CAP) -> Hold:
    """A hold of nobody's but its session."""
    return book.open(book.world.open_hold(SESSION, SESSION, {NODE: cap}, book.now_ms + LIFE_MS))


def name_auditor(book: Book) -> None:
    book.do(book.world.set_key(AUDITOR, KeyPurpose.AUDITOR))


def earn(book: Book) -> tuple[Hold, int]:
    """A hold that has paid the node for ten tokens, and the number of the batch."""
    hold = paid(book)
    book.do(book.world.receipt(hold, NODE, SESSION, 1, 10))
    return hold, next(iter(book.state.nodes[NODE.public].batches.values())).account.id


def serve_free(book: Book, node: Identity, tokens: int) -> int:
    """Units that a node serves for nothing, to a session of its own each time."""
    session = person(f"free {len(book.log)}")
    hold = book.open(book.world.open_hold(session, session, {node: POLICY.free_cap_units}, book.now_ms + 1_000))
    settle = book.world.receipt(hold, node, session, 1, tokens)
    book.do(settle)
    return settle.receipt.receipt.units
