"""Fills a month of an account with requests, past the server, and asks for the month's statement.

  statement.py fill DATABASE ROWS    one charged request stands already: rows like it, in the month before this one
  statement.py ask URL KEY DATABASE PID TIMES
"""

import datetime
import os
import sqlite3
import statistics
import sys
import time
import urllib.request

MODELS = ["mock", "stream", "instant"]
PIECE = 20_000


def month_before():
    """The month before this one: its first day, and both ends in microseconds."""
    first = datetime.datetime.now(datetime.timezone.utc).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = (first - datetime.timedelta(days=1)).replace(day=1)
    return before, int(before.timestamp()) * 1_000_000, int(first.timestamp()) * 1_000_000


def request_id(micros, number):
    """A UUID of version 7 of that time."""
    tail = bytearray(number.to_bytes(10, "big"))
    tail[0], tail[2] = 0x70 | tail[0] & 0x0F, 0x80 | tail[2] & 0x3F
    return (micros // 1_000).to_bytes(6, "big") + bytes(tail)


def row_of(db, table, where):
    cursor = db.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1")
    found = cursor.fetchone()
    return dict(zip([column[0] for column in cursor.description], found))


def insert(db, table, names, rows):
    marks = ",".join("?" * len(names))
    db.executemany(f"INSERT INTO {table} ({','.join(names)}) VALUES ({marks})", rows)


def fill(path, count):
    before, start, end = month_before()
    db = sqlite3.connect(path)
    db.execute("PRAGMA synchronous=OFF")
    usage = row_of(db, "usage_log", "cost_nano > 0")
    charge = row_of(db, "transfer", "movement = 1")
    keys = [row[0] for row in db.execute("SELECT id FROM api_key WHERE account_id = ?", (usage["account_id"],))]
    purse = row_of(db, "purse", "spent > 0")
    win = purse["win"] - 1
    assert purse["kind"] is not None and len(keys) > 1
    for table in ("transfer", "usage_log"):
        db.execute(f"UPDATE {table} SET created_at = ?", (start,))
    db.execute("UPDATE purse SET win = ? WHERE win = ?", (win, purse["win"]))
    for table in ("statement_cursor", "statement_month", "statement_usage", "statement_request"):
        db.execute(f"DELETE FROM {table}")
    (seq,) = db.execute("SELECT last_seq FROM account WHERE id = ?", (usage["account_id"],)).fetchone()
    spent = dict.fromkeys(keys, 0)
    for piece in range(0, count, PIECE):
        requests, charges = [], []
        for number in range(piece, min(piece + PIECE, count)):
            at = start + 1_000_000 + (end - start - 2_000_000) * number // count
            name, key = request_id(at, number), keys[number % len(keys)]
            spent[key] += usage["cost_nano"]
            model = MODELS[number // 7 % len(MODELS)]
            requests.append(tuple({**usage, "request_id": name, "key_id": key, "model": model, "created_at": at}.values()))
            more = {"id": request_id(at, count + number), "seq": seq + 1 + number, "request_id": name, "created_at": at}
            charges.append(tuple({**charge, **more}.values()))
        insert(db, "usage_log", list(usage), requests)
        insert(db, "transfer", list(charge), charges)
    for key, nanos in spent.items():
        db.execute(
            "INSERT INTO purse (kind, owner, win, spent) VALUES (?,?,?,?) ON CONFLICT (kind, owner, win) "
            "DO UPDATE SET spent = purse.spent + excluded.spent",
            (purse["kind"], key, win, nanos),
        )
    db.execute(
        "UPDATE account SET last_seq = last_seq + ?, posted_debit = posted_debit + ? WHERE id = ?",
        (count, count * usage["cost_nano"], usage["account_id"]),
    )
    db.commit()
    print(f"{count:,} requests of {before:%Y-%m}, {len(keys)} keys, {len(MODELS)} models")


def memory(pid, name):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def ask(url, key, path, pid, times):
    began = time.monotonic()
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    while True:
        (left,) = db.execute(
            "SELECT max(a.last_seq - coalesce(c.seq, 0)) FROM account a LEFT JOIN statement_cursor c ON c.account_id = a.id"
        ).fetchone()
        if left == 0:
            break
        time.sleep(0.2)
    print(f"added up behind the ledger in {time.monotonic() - began:.1f} s from the start on")
    month = f"{month_before()[0]:%Y-%m}"

    def get(form):
        request = urllib.request.Request(
            f"{url}/v1/statements/{month}.{form}", headers={"Authorization": f"Bearer {key}"}
        )
        began = time.monotonic()
        with urllib.request.urlopen(request) as reply:
            size = len(reply.read())
        return time.monotonic() - began, size

    worst = 0.0
    for form in ("json", "csv", "pdf"):
        first, size = get(form)
        before = memory(pid, "VmRSS")
        with open(f"/proc/{pid}/clear_refs", "w") as marks:
            marks.write("5")
        took = sorted(get(form)[0] for _ in range(times))
        peak = memory(pid, "VmHWM")
        worst = max(worst, first, took[-1])
        print(
            f"{form}: {size / 1024:.0f} KB; first {first * 1e3:.0f} ms, then median {statistics.median(took) * 1e3:.0f} ms "
            f"({took[0] * 1e3:.0f} to {took[-1] * 1e3:.0f}); memory {before:.1f} MB, at most {peak:.1f} MB"
        )
    print(f"slowest of all: {worst * 1e3:.0f} ms")
    sys.exit(0 if worst <= 1.0 else "slower than a second")


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(sys.argv[2], int(sys.argv[3]))
    else:
        ask(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
