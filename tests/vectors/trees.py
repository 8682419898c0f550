"""Trees, proofs and tiles. The cases that must be refused are those of github.com/transparency-dev/merkle's tests, made
anew over the eight leaves that every implementation of Certificate Transparency is tested with.
"""

from cases import Json, flip, refused
from nectar_protocol.merkle import EMPTY_ROOT, Frontier, Hash, leaf_hash
from nectar_protocol.proofs import leaves_reader, prove_consistency, prove_inclusion
from nectar_protocol.tiles import ENTRIES, Tile, new_tiles, pack_bundle

ENTRIES_OF_CT = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
LEAVES = [leaf_hash(entry) for entry in ENTRIES_OF_CT]
INCLUSIONS = [(0, 1), (0, 8), (5, 8), (2, 3), (1, 5)]
CONSISTENCIES = [(1, 1), (1, 8), (6, 8), (2, 5), (6, 7)]
SHORT, OTHER = Hash(b"too short"), leaf_hash(b"another")
NOTHING = Hash(b"")

Fields = dict[str, int | Hash | list[Hash]]


def grown() -> list[Frontier]:
    """The frontier of every tree over the first leaves, the empty one first."""
    frontiers = [Frontier()]
    for leaf in LEAVES:
        frontier = Frontier.unpack(frontiers[-1].pack())
        frontier.append(leaf)
        frontiers.append(frontier)
    return frontiers


def written(fields: Fields) -> Json:
    def text(value: int | Hash | list[Hash]) -> object:
        match value:
            case int():
                return str(value)
            case list():
                return [node.hex() for node in value]
        return value.hex()

    return {name: text(value) for name, value in fields.items()}


def wrong_proofs(proof: list[Hash], *others: Hash) -> dict[str, list[Hash]]:
    """The proof with something added, changed or left out."""
    wrong = {"an empty hash after the proof": [*proof, NOTHING], "an empty hash before the proof": [NOTHING, *proof]}
    for i, node in enumerate(others):
        wrong[f"root {i + 1} after the proof"] = [*proof, node]
        wrong[f"root {i + 1} before the proof"] = [node, *proof]
    for i, node in enumerate(proof):
        wrong[f"one bit wrong in hash {i}"] = [*proof[:i], Hash(flip(node, 0)), *proof[i + 1 :]]
    if proof:
        wrong |= {
            "without the last hash": proof[:-1],
            "without any hash": [],
            "the first hash twice": [proof[0], *proof],
            "another hash after the first": [proof[0], OTHER, *proof[1:]],
            "a hash of 33 bytes": [*proof[:-1], Hash(proof[-1] + b"\0")],
        }
    return wrong


def refusals(base: Fields, changes: dict[str, Fields], malformed: set[str]) -> list[Json]:
    """Each change of a proof that verifies, in the name of where it came from."""
    source = " of ".join(str(value) for value in base.values() if isinstance(value, int))
    return [
        {"name": f"{source}: {name}"}
        | written(base | change)
        | {"error": "MalformedError" if name in malformed else "ProofError"}
        for name, change in changes.items()
        if base | change != base
    ]


def misshapen(proofs: dict[str, list[Hash]]) -> set[str]:
    return {name for name, proof in proofs.items() if any(len(node) != 32 for node in proof)}


def wrong_inclusions(index: int, size: int, base: Fields, proof: list[Hash], root: Hash) -> list[Json]:
    proofs = wrong_proofs(proof, root)
    changes: dict[str, Fields] = {
        "index + 1": {"index": index + 1},
        "index ^ 2": {"index": index ^ 2},
        "the size as index": {"index": size},
        "size * 2": {"size": size * 2},
        "size // 2": {"size": size // 2},
        "size 0": {"size": 0},
        "size 2^63": {"size": 2**63},
        "another leaf": {"leaf": OTHER},
        "a leaf of 9 bytes": {"leaf": SHORT},
        "no leaf": {"leaf": NOTHING},
        "another root": {"root": OTHER},
        "the root of the empty tree": {"root": EMPTY_ROOT},
        "no root": {"root": NOTHING},
    } | {name: {"proof": wrong} for name, wrong in proofs.items()}
    malformed = misshapen(proofs) | {
        "the size as index", "size 0", "size 2^63", "a leaf of 9 bytes", "no leaf", "no root",
        *(["index + 1"] if index + 1 >= size else []),
        *(["index ^ 2"] if index ^ 2 >= size else []),
        *(["size // 2"] if index >= size // 2 else []),
    }  # fmt: skip
    return refusals(base, changes, malformed)


def wrong_consistencies(old: int, new: int, base: Fields, proof: list[Hash], roots: tuple[Hash, Hash]) -> list[Json]:
    proofs = wrong_proofs(proof, *roots)
    changes: dict[str, Fields] = {
        "old size - 1": {"old_size": old - 1},
        "old size + 1": {"old_size": old + 1},
        "old size ^ 2": {"old_size": old ^ 2},
        "old size 0": {"old_size": 0},
        "new size * 2": {"new_size": new * 2},
        "new size // 2": {"new_size": new // 2},
        "new size 2^63": {"new_size": 2**63},
        "another old root": {"old_root": OTHER},
        "another new root": {"new_root": OTHER},
        "an old root of 9 bytes": {"old_root": SHORT},
        "a new root of 9 bytes": {"new_root": SHORT},
        "swapped roots": {"old_root": roots[1], "new_root": roots[0]},
    } | {name: {"proof": wrong} for name, wrong in proofs.items()}
    malformed = misshapen(proofs) | {
        "old size 0", "new size 2^63", "an old root of 9 bytes", "a new root of 9 bytes",
        *(["old size - 1"] if old == 1 else []),
        *(["old size + 1"] if old + 1 > new else []),
        *(["old size ^ 2"] if not 0 < old ^ 2 <= new else []),
        *(["new size // 2"] if old > new // 2 else []),
    }  # fmt: skip
    return refusals(base, changes, malformed)


def merkle_vectors() -> Json:
    frontiers, read = grown(), leaves_reader(LEAVES)
    roots = [frontier.root() for frontier in frontiers]
    inclusion, consistency, bad_inclusion, bad_consistency = [], [], [], []
    for index, size in INCLUSIONS:
        proof = prove_inclusion(read, index, size)
        base: Fields = {"index": index, "size": size, "leaf": LEAVES[index], "proof": proof, "root": roots[size]}
        inclusion.append(written(base))
        bad_inclusion += wrong_inclusions(index, size, base, proof, roots[size])
    for old, new in CONSISTENCIES:
        proof, pair = prove_consistency(read, old, new), (roots[old], roots[new])
        base = {"old_size": old, "new_size": new, "proof": proof, "old_root": pair[0], "new_root": pair[1]}
        consistency.append(written(base))
        bad_consistency += wrong_consistencies(old, new, base, proof, pair)
    six = frontiers[6].pack()
    bad_frontiers = {
        "empty": b"",
        "one byte short": six[:-1],
        "one byte long": six + b"\0",
        "a peak too few for its size": b"\0" * 7 + b"\7" + six[8:],
        "a peak too many for its size": b"\0" * 7 + b"\4" + six[8:],
        "size 2^63": b"\x80" + bytes(7) + LEAVES[0],
    }
    return {
        "entries": [entry.hex() for entry in ENTRIES_OF_CT],
        "leaves": [leaf.hex() for leaf in LEAVES],
        "trees": [{"size": str(f.size), "root": f.root().hex(), "frontier": f.pack().hex()} for f in frontiers],
        "inclusion": inclusion,
        "consistency": consistency,
        "invalid_inclusion": bad_inclusion,
        "invalid_consistency": bad_consistency,
        "invalid_frontiers": refused(bad_frontiers, "frontier"),
    }


def tile_vectors() -> Json:
    tiles = [
        Tile(0, 0), Tile(0, 0, 1), Tile(0, 999, 255), Tile(0, 1000), Tile(1, 1_234_067), Tile(2, 0, 17),
        Tile(7, 0, 127), Tile(0, (1 << 55) - 1, 255), Tile(ENTRIES, 5), Tile(ENTRIES, 1_234_067, 8),
    ]  # fmt: skip
    growths = [(0, 0), (0, 1), (0, 256), (255, 256), (256, 256), (256, 257), (0, 70_000), (69_999, 70_001)]
    bad_paths = {
        "empty": "",
        "a leading slash": "/tile/0/000",
        "no index": "tile/0",
        "an index of two digits": "tile/0/00",
        "an index of four digits": "tile/0/1000",
        "an x before the last group": "tile/0/x001",
        "no x before another group": "tile/0/001/000",
        "a group of zeros too many": "tile/0/x000/000",
        "level 8": "tile/8/000",
        "level 63": "tile/63/000",
        "a level with a leading zero": "tile/00/000",
        "level -1": "tile/-1/000",
        "another name for entries": "tile/data/000",
        "width 0": "tile/0/000.p/0",
        "width 256": "tile/0/000.p/256",
        "a width with a leading zero": "tile/0/000.p/01",
        "a width with a sign": "tile/0/000.p/+1",
        "digits that are not ASCII": "tile/0/00\u0663",
        "a line end": "tile/0/000\n",
        "a path that climbs": "tile/0/../000",
        "beyond the largest tree": Tile(0, (1 << 55) - 1, 255).path.replace(".p/255", ""),
        "beyond the largest tree at level 7": "tile/7/000.p/128",
        "65 characters": "tile/0/" + "x000/" * 11 + "000",
    }
    bundles = [[b""], [b"entry"], [b"a", b"", b"bc"], [bytes([i]) for i in range(256)]]
    three = pack_bundle(bundles[2])
    bad_bundles = [
        ("empty", b"", 1),
        ("one byte short", three[:-1], 3),
        ("one byte long", three + b"\0", 3),
        ("an entry too few", three, 4),
        ("an entry too many", three, 2),
        ("a length beyond the end", b"\xff\xff" + bytes(16), 1),
        ("width 0", b"", 0),
        ("width 257", bytes(514), 257),
    ]
    return {
        "valid": [
            {
                "path": tile.path,
                "level": "entries" if tile.level == ENTRIES else str(tile.level),
                "index": str(tile.index),
                "width": tile.width,
            }
            for tile in tiles
        ],
        "growth": [
            {"old_size": str(old), "new_size": str(new), "tiles": [tile.path for tile in new_tiles(old, new)]}
            for old, new in growths
        ],
        "bundles": [{"entries": [e.hex() for e in some], "bundle": pack_bundle(some).hex()} for some in bundles],
        "invalid_paths": refused(bad_paths, "path"),
        "invalid_bundles": [
            {"name": name, "bundle": data.hex(), "width": width, "error": "MalformedError"}
            for name, data, width in bad_bundles
        ],
    }
