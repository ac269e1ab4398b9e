#!/usr/bin/env bash
# openai 3.57.0 (PyPI), Python 3.11, seen on 2026-11-29.
#
# The helper `client.chat.completions.stream` puts tool calls together by `index` alone. Two calls with different ids that
# are both `index` 0 become one, whose id, name and arguments are glued together; a first call that is `index` 1 raises.
#
# Output seen:
#   index 0 twice: [('call_acall_b', 'fg', '{"x":1}{"y":2}')]
#   first index 1: IndexError
#   index 0 and 1: [('call_a', 'f', '{"x":1}'), ('call_b', 'g', '{"y":2}')]
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check openai==3.57.0
cat > check.py <<'PY'
import json, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from openai import OpenAI

def chunks(indices):
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for index, (name, function, arguments) in zip(indices, [("call_a", "f", '{"x":1}'), ("call_b", "g", '{"y":2}')]):
        call = {"index": index, "id": name, "type": "function", "function": {"name": function, "arguments": arguments}}
        yield {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}

class Server(BaseHTTPRequestHandler):
    indices = (0, 0)
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(Server.indices)) + "data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="x", max_retries=0)

def calls(*indices):
    Server.indices = indices
    try:
        with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "x"}]) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
    except Exception as error:
        return type(error).__name__
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]

alike, late, right = calls(0, 0), calls(1, 2), calls(0, 1)
print("index 0 twice:", alike)
print("first index 1:", late)
print("index 0 and 1:", right)
assert right == [("call_a", "f", '{"x":1}'), ("call_b", "g", '{"y":2}')], right
assert isinstance(alike, list) and len(alike) == 1 and alike[0][2] == '{"x":1}{"y":2}', alike
assert isinstance(late, str), late
PY
venv/bin/python check.py
