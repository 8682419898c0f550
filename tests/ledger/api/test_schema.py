"""The whole API as its own description has it: whatever schemathesis makes of that is answered as it says."""

import subprocess
import sys
from pathlib import Path

from tests.ledger.api.served import Served

# It never ends.
NOT_TRIED = "/v1/events"
# Bytes that no key has signed are refused, whatever their schema says; so are two bounds of one page.
NOT_CHECKED = "positive_data_acceptance"
EXAMPLES = 3


def test_every_operation_answers_as_it_says(served: Served, tmp_path: Path) -> None:
    paths = served.http.get("/openapi.json").json()["paths"]
    count = sum(len(operations) for path, operations in paths.items() if path != NOT_TRIED)
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json", "--no-color",
        "--exclude-path", NOT_TRIED, "--exclude-checks", NOT_CHECKED,
        "--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES),
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    # The report has the seed, and how to send the same again.
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"Tested: {count}" in ran.stdout
