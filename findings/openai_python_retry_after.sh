#!/usr/bin/env bash
# Package:   openai 3.57.0 (PyPI), run with Python 3.11
# Behaviour: a `retry-after` over 120 s makes the client give up at once: the error is raised without another call, even
#            where the server sends `x-should-retry: true` and retries are left. Up to 120 s it waits as long as it is told.
# Seen on:   2026-11-29
# Output:    retry-after: 2   -> 2 calls, 2.1 s, answered
#            retry-after: 121 -> 1 calls, 0.0 s, RateLimitError
#
# Installs the package into a temporary folder; exits non-zero when the behaviour is another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openai==3.57.0
cat > "$folder/run.py" <<'PY'
import http.server
import json
import sys
import threading
import time

import openai

BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}
ERROR = {"error": {"message": "later", "type": "rate_limit_error", "param": None, "code": "later"}}


def ask(retry_after):
    calls = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            calls.append(time.monotonic())
            first = len(calls) == 1
            text = json.dumps(ERROR if first else BODY).encode()
            self.send_response(429 if first else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            if first:
                self.send_header("retry-after", str(retry_after))
                self.send_header("x-should-retry", "true")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="k", max_retries=3)
    began = time.monotonic()
    try:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        outcome = "answered"
    except openai.RateLimitError as error:
        outcome = type(error).__name__
    took = time.monotonic() - began
    server.shutdown()
    print(f"retry-after: {retry_after:<3} -> {len(calls)} calls, {took:.1f} s, {outcome}")
    return len(calls), outcome


ok = ask(2) == (2, "answered") and ask(121) == (1, "RateLimitError")
sys.exit(0 if ok else 1)
PY
"$folder/venv/bin/python" "$folder/run.py"
