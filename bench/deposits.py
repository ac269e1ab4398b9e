"""Pays on anvil, counts what is asked of it, and says when everything was credited."""

import http.server
import json
import os
import pathlib
import sqlite3
import sys
import time
import urllib.request
import uuid

USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
CODE = pathlib.Path(__file__).parent.parent / "crates/sim/src/chain/dollar.hex"
CONFIRMATIONS = 4


def count(chain: str, port: str, path: str) -> None:
    """An endpoint in front of the chain that writes down how many calls and requests it had."""
    told = {"calls": 0, "requests": 0}

    class Counting(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = json.loads(body)
            told["calls"] += len(asked) if isinstance(asked, list) else 1
            told["requests"] += 1
            request = urllib.request.Request(f"http://127.0.0.1:{chain}", body, {"content-type": "application/json"})
            answer = urllib.request.urlopen(request).read()
            pathlib.Path(path + ".new").write_text(json.dumps(told))
            os.replace(path + ".new", path)
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Counting).serve_forever()


def pay(chain: str, payments: str, addresses: str, database: str, calls: str) -> None:
    def call(*asked: tuple[str, list]) -> list:
        body = [{"jsonrpc": "2.0", "id": place, "method": method, "params": params} for place, (method, params) in enumerate(asked)]
        request = urllib.request.Request(
            f"http://127.0.0.1:{chain}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        answers = sorted(json.load(urllib.request.urlopen(request)), key=lambda answer: answer["id"])
        return [answer["result"] for answer in answers]

    # Addresses of nobody: nothing is ever paid out of them.
    db = sqlite3.connect(database, timeout=30)
    now = int(time.time() * 1e6)
    watched = []
    with db:
        for index in range(int(addresses)):
            account, address = uuid.uuid4(), f"0x{index + 1:040x}"
            watched.append(address)
            db.execute("INSERT INTO account (id) VALUES (?)", [account.bytes])
            db.execute(
                "INSERT INTO deposit_address (account_id, xpub, idx, address, created_at) VALUES (?, 'bench', ?, ?, ?)",
                [account.bytes, index, address, now],
            )
    [[payer]] = call(("eth_accounts", []))
    call(("anvil_setCode", [USDC, "0x" + CODE.read_text().strip()]))
    mint = f"0x40c10f19{payer[2:]:0>64}{1 << 80:064x}"
    call(("eth_sendTransaction", [{"from": payer, "to": USDC, "data": mint}]), ("anvil_mine", ["0x40"]))
    time.sleep(5)
    transfers = [
        ("eth_sendTransaction", [{"from": payer, "to": USDC, "data": f"0xa9059cbb{address[2:]:0>64}{5_000_000:064x}", "gas": "0x30000"}])
        for address in watched[: int(payments)]
    ]
    for first in range(0, len(transfers), 100):
        call(*transfers[first : first + 100])
    call(("evm_mine", []))
    blocks = CONFIRMATIONS - 2
    for _ in range(blocks):
        call(("evm_mine", []))
    time.sleep(5)
    before = json.loads(pathlib.Path(calls).read_text())
    credited = "SELECT count(*), max(credited_at) FROM deposit WHERE status = 2"
    assert db.execute(credited).fetchone()[0] == 0
    call(("evm_mine", []))
    final = int(time.time() * 1e6)
    while (found := db.execute(credited).fetchone())[0] < int(payments):
        if time.time() * 1e6 - final > 60e6:
            sys.exit(f"{found[0]} of {payments} were credited within a minute")
        time.sleep(0.05)
    after = json.loads(pathlib.Path(calls).read_text())
    # An idle look asks for the heads alone; those are none of a block's.
    print(f"  {payments} payments to {int(addresses):,} watched addresses: the last credit {(found[1] - final) / 1e6:.2f} s after the block that makes them final")
    print(f"  for that block {after['calls'] - before['calls']} calls in {after['requests'] - before['requests']} requests, idle looks in between among them")


{"count": count, "pay": pay}[sys.argv[1]](*sys.argv[2:])
