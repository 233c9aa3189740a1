"""A submitting client that may be killed: says `ready`, submits when told to, says the run's id, waits for its end.

Run as `python -m tests.chaos.client` with the document as JSON in its first line of input and anything in its second.
"""

from __future__ import annotations

import json
import sys

from scheduler.submit import submit_yaml


def main() -> None:
    document = json.loads(sys.stdin.readline())
    print("ready", flush=True)
    sys.stdin.readline()
    print(submit_yaml(document).id, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
