"""The `nectar` command. Results go to stdout, progress and logs to stderr; `--json` gives machines their own form."""
