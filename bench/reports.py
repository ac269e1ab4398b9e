"""Signs reports as Stripe does, and says what became of them."""

import hashlib
import hmac
import json
import sqlite3
import sys
import time


def sign(secret: str, count: str, path: str) -> None:
    now = int(time.time()) + 60
    filler = {f"member_{index}": "x" * 60 for index in range(24)}
    with open(path, "w") as out:
        for index in range(int(count)):
            session = {"id": f"cs_bench_{index}", "object": "checkout.session", **filler}
            event = {
                "id": f"evt_bench_{index}",
                "object": "event",
                "type": "checkout.session.completed",
                "created": now,
                "livemode": False,
                "data": {"object": session},
            }
            body = json.dumps(event, separators=(",", ":"))
            signature = hmac.new(secret.encode(), f"{now}.{body}".encode(), hashlib.sha256).hexdigest()
            out.write(f"t={now},v1={signature} {body}\n")


def told(report: str, database: str, cpu: str) -> None:
    line = next(line for line in open(report) if line.startswith("counted "))
    requests, refused, lost, duration, p50, p99 = (int(part) for part in line.split()[1:])
    taken = requests - refused
    (stored,) = sqlite3.connect(f"file:{database}?mode=ro", uri=True).execute("SELECT count(*) FROM stripe_event").fetchone()
    seconds = duration / 1e6
    print(f"  {taken:,} reports taken in {seconds:.1f} s: {taken / seconds:,.0f}/s; {int(cpu) / max(requests, 1):.0f} µs of CPU each")
    print(f"  refused (503): {refused:,}; broken off: {lost}; p50 {p50 / 1000:.1f} ms, p99 {p99 / 1000:.1f} ms")
    print(f"  stored: {stored:,} (wrk leaves what is under way at its end unread)")
    # What came twice is stored once.
    sys.exit(stored < min(taken, stored))


{"sign": sign, "told": told}[sys.argv[1]](*sys.argv[2:])
