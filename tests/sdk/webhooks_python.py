"""Webhooks as a receiver checks them in Python: with OpenAI's package and with the one of Standard Webhooks.

crates/server/tests/sdk.rs starts the server and runs this. The first check that fails ends the run.
"""

import json
import os
import queue
import sys
import threading
import traceback
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
from openai import OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

URL = os.environ["SDK_URL"]
KEY = os.environ["SDK_KEY"]
CHAT = "smollm2-135m-instruct"
WAIT = 60

received = queue.Queue()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()
        received.put((body, dict(self.headers.items())))

    def log_message(self, *_):
        pass


def call(path, body=None):
    data = json.dumps(body if body is not None else {}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(URL + path, data=data, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return json.load(answer)


def batch_and_its_event(receiver, stopped=False):
    """Runs or stops a batch; gives its id and the request that tells of its end."""
    task = {"custom_id": "a", "model": CHAT, "request_body": {"messages": [{"role": "user", "content": "Hi"}]}}
    task["request_body"]["max_tokens"] = 200 if stopped else 2
    made = call("/v1/batches", {"tasks": [task], "webhook_url": receiver, "priority": "low"})
    if stopped:
        call(f"/v1/batches/{made['id']}/cancel")
    return made["id"], *received.get(timeout=WAIT)


def refused(kind, check):
    try:
        check()
    except kind:
        return
    raise AssertionError(f"no {kind.__name__}")


def verifies(secret, body, headers):
    """Both packages take it, and neither takes another secret, body or id."""
    client = OpenAI(api_key="unused", webhook_secret=secret)
    event = client.webhooks.unwrap(body, headers)
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    other = "whsec_" + "A" * 43 + "="
    changed = {name: "evt_x" if name.lower() == "webhook-id" else value for name, value in headers.items()}
    for wrong in [(other, body, headers), (secret, body + b" ", headers), (secret, body, changed)]:
        wrong_secret, wrong_body, wrong_headers = wrong
        unwrap = OpenAI(api_key="unused", webhook_secret=wrong_secret).webhooks.unwrap
        refused(openai.InvalidWebhookSignatureError, lambda: unwrap(wrong_body, wrong_headers))
        refused(WebhookVerificationError, lambda: Webhook(wrong_secret).verify(wrong_body, wrong_headers))
    return event


def main():
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    receiver = f"http://127.0.0.1:{server.server_port}/hook"

    secret = call("/v1/webhooks/secret")["secret"]
    batch, body, headers = batch_and_its_event(receiver)
    event = verifies(secret, body, headers)
    assert type(event).__name__ == "BatchCompletedWebhookEvent", type(event)
    assert (event.type, event.object, event.data.id) == ("batch.completed", "event", batch), event
    assert event.id == {name.lower(): value for name, value in headers.items()}["webhook-id"]

    # While two secrets count, whoever knows either of them can check.
    newer = call("/v1/webhooks/secret")["secret"]
    batch, body, headers = batch_and_its_event(receiver, stopped=True)
    for known in (secret, newer):
        event = verifies(known, body, headers)
        assert event.type in ("batch.cancelled", "batch.completed") and event.data.id == batch, event


try:
    main()
except Exception:
    traceback.print_exc()
    sys.exit(f"failed (openai {openai.__version__})")
