"""Evidence: kept for auditors alone, under its hash, for as long as the policy says and the disk bears."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from nectar_ledger.errors import FullError, StoreError
from nectar_ledger.evidence import SWEEP_MS, Evidence
from nectar_protocol.commands import KeyPurpose, KeyState

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, NO_LIMITS, Clock, Served
from tests.ledger.world import POLICY, person

AUDITOR = person("auditor")
DATA = b"a step list, and what it was run on" * 10_000


def auditing(serve: Serve, **settings: object) -> Served:
    served = serve(**settings)
    served.record(served.world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    return served


def kept(evidence: Evidence, data: bytes) -> bytes:
    with evidence.draft() as draft:
        draft.write(data)
        draft.keep()
        return draft.sha256


def test_an_auditor_posts_evidence_and_anybody_reads_it(serve: Serve) -> None:
    served = auditing(serve)
    name = hashlib.sha256(DATA).hexdigest()
    for _ in range(2):
        answer = served.post("/v1/evidence", AUDITOR, DATA)
        assert (answer.status_code, answer.json()) == (200, {"evidence": name})
    read = served.http.get(f"/v1/evidence/{name}")
    assert read.content == DATA
    assert "immutable" in read.headers["Cache-Control"]
    assert read.headers["Content-Type"] == "application/octet-stream"
    assert served.service.evidence.total_bytes == len(DATA)


def test_nobody_else_posts_any(serve: Serve) -> None:
    served = auditing(serve)
    served.record(served.world.set_key(AUDITOR, KeyPurpose.AUDITOR, KeyState.REVOKED))
    for sender in (ALICE, AUDITOR):
        answer = served.post("/v1/evidence", sender, DATA)
        assert (answer.status_code, answer.json()["error"]) == (403, "not-authorized")
    assert served.http.post("/v1/evidence", content=DATA).status_code == 401


def test_what_is_not_the_signed_body_leaves_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    served = auditing(serve)
    headers = served.signed(AUDITOR, "POST", "/v1/evidence", DATA)
    answer = served.http.post("/v1/evidence", content=DATA[:-1] + b"!", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "unsigned-request")
    assert served.service.evidence.total_bytes == 0
    assert list((tmp_path / "evidence").iterdir()) == []


def test_a_piece_has_a_size(serve: Serve) -> None:
    served = auditing(serve, limits=replace(NO_LIMITS, evidence_bytes=len(DATA) - 1))
    answer = served.post("/v1/evidence", AUDITOR, DATA)
    assert (answer.status_code, answer.json()["error"]) == (413, "too-large")
    assert served.service.evidence.total_bytes == 0


@pytest.mark.parametrize(
    ("name", "status"), [("00" * 32, 404), ("..%2Fledger.db", 404), ("xyz", 422), ("AA" * 32, 422)]
)
def test_only_what_is_kept_is_found(served: Served, name: str, status: int) -> None:
    answer = served.http.get(f"/v1/evidence/{name}")
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "message"}


def test_all_of_it_together_has_a_size(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path, Clock(), max_total_bytes=10)
    kept(evidence, bytes(6))
    with pytest.raises(FullError), evidence.draft() as draft:
        draft.write(bytes(5))
    assert kept(evidence, bytes(4)) == hashlib.sha256(bytes(4)).digest()
    assert evidence.total_bytes == 10


def test_it_expires_unless_it_is_posted_again(tmp_path: Path) -> None:
    clock = Clock()
    evidence = Evidence(tmp_path, clock)
    old, renewed = kept(evidence, b"old"), kept(evidence, b"renewed")
    clock.now_ms += POLICY.evidence_ms
    kept(evidence, b"renewed")
    evidence.sweep(POLICY.evidence_ms)
    assert evidence.find(old) is not None
    clock.now_ms += SWEEP_MS
    evidence.sweep(POLICY.evidence_ms)
    assert (evidence.find(old), evidence.find(renewed)) == (None, tmp_path / renewed.hex())
    assert evidence.total_bytes == len(b"renewed")


def test_it_outlives_the_process_and_drafts_do_not(tmp_path: Path) -> None:
    name = kept(Evidence(tmp_path, Clock()), b"kept")
    (tmp_path / "0123.draft").write_bytes(b"half")
    again = Evidence(tmp_path, Clock())
    assert again.find(name) is not None
    assert again.total_bytes == len(b"kept")
    assert [path.name for path in tmp_path.iterdir()] == [name.hex()]


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="folder for evidence"):
        Evidence(tmp_path / "file", Clock())
