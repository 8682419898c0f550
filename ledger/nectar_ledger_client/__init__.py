"""A client of a ledger: reads it, sends it what was signed, and checks what it answers.

    with LedgerClient("https://ledger.example", ledger_id) as client:      # or AsyncLedgerClient, method by method
        hold = client.send_command(request).hold                          # verified, and what was asked for
        answers = client.send_receipts(node, receipts)
        follower = LogFollower(client, client.known().log, path)          # of a log that only grows
        follower.settled(receipts[0], answers[0].index)                   # returns once that is so for good

`client` and `aclient` send what `calls` and `logcalls` say; `log` follows the log; `verifier` checks proofs offline.
Whatever goes wrong is a LedgerClientError.
"""
