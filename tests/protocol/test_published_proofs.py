"""Proofs that others published over the eight leaves of Certificate Transparency's reference tree.

The hashes are those of the valid cases in github.com/transparency-dev/merkle, `testdata`; the cases that must be
refused are made anew in our own vectors (`tests/vectors/trees.py`). Where that library takes a proof from the empty
tree to the empty tree, whatever the roots, ours refuses: nothing is proved by it.
"""

import json
from base64 import b64decode
from pathlib import Path

import pytest
from nectar_protocol.errors import MalformedError
from nectar_protocol.merkle import EMPTY_ROOT, Hash, leaf_hash, tree_root
from nectar_protocol.proofs import (
    leaves_reader,
    prove_consistency,
    prove_inclusion,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "merkle.json").read_text())
LEAVES = [leaf_hash(bytes.fromhex(entry)) for entry in VECTORS["entries"]]

ROOTS = {
    1: "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
    2: "+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU=",
    3: "rra8/idLcKFPsGel5VeCZNsPqbUa9eC6FZFY8yngbnc=",
    5: "Tju7H3tHjc/nH7YxYxUZo7yhLJrvyhYSv85ME6hiZNQ=",
    6: "duZ9rbzfHhDht03cYIq9L5jfsW+851J3tSMqEn8gh+8=",
    7: "3bib5AOAnjJXUNPSY814kpwpQreUKjS3fhIslZSnTIw=",
    8: "XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=",
}
FIRST_FOUR = "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc="
INCLUSIONS = {
    (0, 1): [],
    (0, 8): [
        "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=",
    ],
    (5, 8): [
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        FIRST_FOUR,
    ],
    (2, 3): ["+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU="],
    (1, 5): [
        "bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ],
}
CONSISTENCIES = {
    (1, 1): [],
    (1, 8): [
        "lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=",
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ=",
    ],
    (6, 8): [
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=",
        FIRST_FOUR,
    ],
    (2, 5): [
        "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=",
        "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=",
    ],
    (6, 7): [
        "DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=",
        "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=",
        FIRST_FOUR,
    ],
}


def hashes(texts: list[str]) -> list[Hash]:
    return [Hash(b64decode(text)) for text in texts]


@pytest.mark.parametrize("size", ROOTS)
def test_the_roots_are_those(size: int) -> None:
    assert [tree_root(LEAVES[:size])] == hashes([ROOTS[size]])


@pytest.mark.parametrize("place", INCLUSIONS)
def test_the_inclusion_proofs_are_those_and_verify(place: tuple[int, int]) -> None:
    index, size = place
    proof = hashes(INCLUSIONS[place])
    assert prove_inclusion(leaves_reader(LEAVES), index, size) == proof
    verify_inclusion(LEAVES[index], index, size, proof, tree_root(LEAVES[:size]))


@pytest.mark.parametrize("sizes", CONSISTENCIES)
def test_the_consistency_proofs_are_those_and_verify(sizes: tuple[int, int]) -> None:
    old, new = sizes
    proof = hashes(CONSISTENCIES[sizes])
    assert prove_consistency(leaves_reader(LEAVES), old, new) == proof
    verify_consistency(old, new, proof, tree_root(LEAVES[:old]), tree_root(LEAVES[:new]))


@pytest.mark.parametrize("new", [0, 1])
@pytest.mark.parametrize("proof", [[], [EMPTY_ROOT]], ids=["no proof", "a proof"])
def test_nothing_is_proved_from_the_empty_tree(new: int, proof: list[Hash]) -> None:
    with pytest.raises(MalformedError, match="nothing can be proved"):
        verify_consistency(0, new, proof, EMPTY_ROOT, EMPTY_ROOT)


def test_our_own_vectors_are_over_the_same_places() -> None:
    assert {(int(case["index"]), int(case["size"])) for case in VECTORS["inclusion"]} == set(INCLUSIONS)
    assert {(int(case["old_size"]), int(case["new_size"])) for case in VECTORS["consistency"]} == set(CONSISTENCIES)
