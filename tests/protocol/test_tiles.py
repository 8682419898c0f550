"""Tiles hold what the tree needs, have one path each, and change only at the right edge."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import Frontier, Hash, leaf_hash, tree_root
from nectar_protocol.proofs import leaves_reader, prove_consistency, prove_inclusion, subtree_root
from nectar_protocol.tiles import (
    ENTRIES,
    MAX_ENTRY_BYTES,
    WIDTH,
    Tile,
    grow,
    new_tiles,
    pack_bundle,
    tiles_reader,
    unpack_bundle,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tile.json").read_text())

LEAVES = [leaf_hash(number.to_bytes(4, "big")) for number in range(1000)]
# 70,000 leaves have a second and a third level of tiles, and are not worth hashing one by one.
MANY = [Hash(number.to_bytes(32, "big")) for number in range(70_000)]

LIKE_A_PATH = r"tile/([0-9]{1,2}|entries)/(x?[0-9]{3}/){0,3}[0-9]{3}(\.p/[0-9]{1,3})?"

tiles = st.builds(Tile, st.integers(ENTRIES, 4), st.integers(0, 2**20), st.integers(1, WIDTH))
sizes = st.integers(0, len(LEAVES))
growths = sizes.flatmap(lambda new: st.tuples(st.integers(0, new), st.just(new)))


def grown(leaves: list[Hash], *cuts: int) -> dict[tuple[int, int], bytes]:
    """The tiles of a log that grew in steps."""
    frontier, store = Frontier(), dict[tuple[int, int], bytes]()
    for start, stop in zip([0, *cuts], [*cuts, len(leaves)], strict=True):
        for tile, hashes in grow(frontier, leaves[start:stop]).items():
            store[tile] = store.get(tile, b"") + hashes
    return store


STORE = grown(LEAVES)
MANY_STORE = grown(MANY)


def fetch(tile: Tile) -> bytes:
    return STORE[tile.level, tile.index]


# Vectors


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["path"])
def test_a_tile_vector_has_its_path_and_is_read_from_it(case: dict[str, Any]) -> None:
    level = ENTRIES if case["level"] == "entries" else int(case["level"])
    tile = Tile(level, int(case["index"]), case["width"])
    assert tile.path == case["path"]
    assert Tile.parse(case["path"]) == tile


@pytest.mark.parametrize("case", VECTORS["growth"], ids=lambda case: f"{case['old_size']} to {case['new_size']}")
def test_a_tree_that_grows_has_the_new_tiles_of_the_vector(case: dict[str, Any]) -> None:
    assert [tile.path for tile in new_tiles(int(case["old_size"]), int(case["new_size"]))] == case["tiles"]


@pytest.mark.parametrize("case", VECTORS["bundles"], ids=lambda case: str(len(case["entries"])))
def test_a_bundle_vector_is_packed_and_unpacked(case: dict[str, Any]) -> None:
    entries = [bytes.fromhex(entry) for entry in case["entries"]]
    assert pack_bundle(entries).hex() == case["bundle"]
    assert unpack_bundle(bytes.fromhex(case["bundle"]), len(entries)) == entries


@pytest.mark.parametrize("case", VECTORS["invalid_paths"], ids=lambda case: case["name"])
def test_an_invalid_path_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Tile.parse(case["path"])


@pytest.mark.parametrize("case", VECTORS["invalid_bundles"], ids=lambda case: case["name"])
def test_an_invalid_bundle_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        unpack_bundle(bytes.fromhex(case["bundle"]), case["width"])


def test_the_example_of_the_specification_has_its_tiles() -> None:
    """273 full and one of width 112, one full and one of width 17, one of width 1."""
    widths = [(tile.level, tile.width) for tile in new_tiles(0, 70_000)]
    assert widths == [(0, 256)] * 273 + [(0, 112), (1, 256), (1, 17), (2, 1)]


# Properties


@given(tiles)
def test_a_path_is_read_as_the_tile_that_has_it(tile: Tile) -> None:
    assert Tile.parse(tile.path) == tile


@given(st.text(max_size=70) | st.from_regex(LIKE_A_PATH, fullmatch=True))
def test_any_text_is_the_path_of_one_tile_or_a_malformed_error(text: str) -> None:
    with contextlib.suppress(MalformedError):
        assert Tile.parse(text).path == text


@given(growths)
def test_new_tiles_are_those_that_the_smaller_tree_has_not(growth: tuple[int, int]) -> None:
    old, new = growth
    assert set(new_tiles(old, new)) == set(new_tiles(0, new)) - set(new_tiles(0, old))


@given(sizes)
def test_the_tiles_of_a_tree_hold_each_hash_once(size: int) -> None:
    store = grown(LEAVES[:size])
    assert {(tile.level, tile.index): 32 * tile.width for tile in new_tiles(0, size)} == {
        tile: len(hashes) for tile, hashes in store.items()
    }


@given(st.lists(sizes, max_size=5).map(sorted))
def test_tiles_do_not_depend_on_the_steps_in_which_a_log_grew(cuts: list[int]) -> None:
    assert grown(LEAVES, *cuts) == STORE


@given(growths, st.data())
def test_proofs_from_tiles_are_those_from_leaves(growth: tuple[int, int], data: st.DataObject) -> None:
    """Also for a tree smaller than what the tiles hold by now."""
    old, new = growth
    read, leaves = tiles_reader(fetch, new), leaves_reader(LEAVES)
    assert subtree_root(read, 0, new) == tree_root(LEAVES[:new])
    if new:
        index = data.draw(st.integers(0, new - 1))
        assert prove_inclusion(read, index, new) == prove_inclusion(leaves, index, new)
    if old:
        assert prove_consistency(read, old, new) == prove_consistency(leaves, old, new)


@pytest.mark.parametrize("index", [0, 255, 256, 65_535, 65_536, 69_999])
def test_proofs_cross_three_levels_of_tiles(index: int) -> None:
    read = tiles_reader(lambda tile: MANY_STORE[tile.level, tile.index], len(MANY))
    assert prove_inclusion(read, index, len(MANY)) == prove_inclusion(leaves_reader(MANY), index, len(MANY))


def test_tiles_are_asked_for_in_the_width_that_the_tree_has() -> None:
    asked = []

    def recorded(tile: Tile) -> bytes:
        asked.append(tile)
        return fetch(tile)

    prove_inclusion(tiles_reader(recorded, 600), 599, 600)
    assert set(asked) <= set(new_tiles(0, 600))


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=WIDTH))
def test_unpacking_undoes_packing_a_bundle(entries: list[bytes]) -> None:
    assert unpack_bundle(pack_bundle(entries), len(entries)) == entries


@given(st.binary(max_size=40), st.integers(1, 8))
def test_any_bytes_are_a_bundle_or_a_malformed_error(data: bytes, width: int) -> None:
    with contextlib.suppress(MalformedError):
        assert pack_bundle(unpack_bundle(data, width)) == data


# Bounds


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(32 * 3), bytes(32 * 3 + 31), bytes(32 * 257)])
def test_a_tile_that_is_too_short_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="instead of 128"):
        subtree_root(tiles_reader(lambda tile: data, 4), 0, 4)


def test_a_hash_outside_of_the_tree_is_refused() -> None:
    read = tiles_reader(fetch, 300)
    with pytest.raises(MalformedError, match="not whole"):
        read(0, 300)
    with pytest.raises(MalformedError, match="not whole"):
        read(8, 1)


@pytest.mark.parametrize(("level", "index", "width"), [(-2, 0, 1), (8, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_a_tile_that_no_tree_has_is_refused(level: int, index: int, width: int) -> None:
    with pytest.raises(MalformedError, match="no tree has"):
        Tile(level, index, width)


@pytest.mark.parametrize(("old", "new"), [(-1, 0), (2, 1), (0, 2**63)])
def test_a_tree_does_not_shrink_and_has_a_largest_size(old: int, new: int) -> None:
    with pytest.raises(MalformedError):
        list(new_tiles(old, new))


def test_a_bundle_has_1_to_256_entries_of_at_most_65535_bytes() -> None:
    assert unpack_bundle(pack_bundle([bytes(MAX_ENTRY_BYTES)]), 1) == [bytes(MAX_ENTRY_BYTES)]
    with pytest.raises(MalformedError, match="entry length = 65536"):
        pack_bundle([bytes(MAX_ENTRY_BYTES + 1)])
    for entries in ([], [b""] * 257):
        with pytest.raises(MalformedError, match="1 to 256 entries"):
            pack_bundle(entries)
