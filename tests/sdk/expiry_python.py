"""A batch whose window passes, as the official Python package sees it.

`create` makes one and prints its id; `check ID` runs against a server whose clock is hours ahead.
crates/server/tests/processes/expiry.rs starts the servers and runs this.
"""

import json
import os
import sys
import time

from openai import OpenAI

CLIENT = OpenAI(base_url=os.environ["SDK_URL"] + "/openai/v1", api_key=os.environ["SDK_KEY"], max_retries=0, timeout=60)


def line(custom_id, model):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


def create():
    lines = "\n".join([line("quick", "fixed"), line("never", "endless")]).encode()
    file = CLIENT.files.create(file=("input.jsonl", lines), purpose="batch")
    # A low batch waits behind its own request that hangs; a high one has a place for each.
    order = {"endpoint": "/v1/chat/completions", "completion_window": "1h", "extra_body": {"priority": "high"}}
    print(CLIENT.batches.create(input_file_id=file.id, **order).id)


def lines_of(file_id):
    return [json.loads(text) for text in CLIENT.files.content(file_id).text.splitlines()]


def check(batch_id):
    deadline = time.monotonic() + 30
    while (batch := CLIENT.batches.retrieve(batch_id)).status != "expired":
        assert batch.status in ("in_progress", "finalizing") and time.monotonic() < deadline, batch
        time.sleep(0.05)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (2, 1, 1), batch
    assert batch.expired_at >= batch.expires_at and batch.completed_at is None, batch
    (done,) = lines_of(batch.output_file_id)
    assert done["custom_id"] == "quick" and done["response"]["status_code"] == 200, done
    (late,) = lines_of(batch.error_file_id)
    assert (late["custom_id"], late["error"]["code"], late["response"]) == ("never", "batch_expired", None), late


if __name__ == "__main__":
    {"create": create, "check": check}[sys.argv[1]](*sys.argv[2:])
