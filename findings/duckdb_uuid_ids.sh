#!/usr/bin/env bash
# duckdb 2.0.1 (PyPI), Python 3.11, seen on 2026-11-29.
#
# `read_json` takes a column of texts that all look like UUIDs for UUIDs and writes them in lower case. What was written in
# upper case is not found again when it is compared as text. With `columns = {custom_id: 'VARCHAR'}` the ids stay.
#
# Output seen:
#   guessed: UUID 0 of 2 found
#   named: VARCHAR 2 of 2 found
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check duckdb==2.0.1
cat > check.py <<'PY'
import duckdb, json

ids = ["0190F6A2-7C3E-7B1A-9D2F-5A6B7C8D9E0F", "0190F6A2-7C3E-7B1A-9D2F-5A6B7C8D9E1F"]
with open("results.jsonl", "w") as file:
    file.writelines(json.dumps({"custom_id": name, "status": "completed"}) + "\n" for name in ids)

def read(options):
    rows = duckdb.sql(f"SELECT custom_id, typeof(custom_id) FROM read_json('results.jsonl'{options})").fetchall()
    return rows[0][1], sum(str(name) in ids for name, _ in rows)

guessed = read("")
named = read(", columns = {custom_id: 'VARCHAR', status: 'VARCHAR'}")
print("guessed: %s %d of 2 found" % guessed)
print("named: %s %d of 2 found" % named)
assert guessed == ("UUID", 0), guessed
assert named == ("VARCHAR", 2), named
PY
venv/bin/python check.py
