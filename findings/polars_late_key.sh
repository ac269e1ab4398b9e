#!/usr/bin/env bash
# polars 2.1.0 (PyPI), Python 3.11, seen on 2026-11-29.
#
# `polars.read_ndjson` looks at the first 100 lines for its columns. A key that first appears after them is dropped from the
# table, without an error or a warning; one that was null in all of them and holds an object later is an error.
# With `infer_schema_length=None` both files are read in full.
#
# Output seen:
#   late key: columns ['custom_id', 'result']
#   null before object: ComputeError
#   read in full: columns ['custom_id', 'result', 'error'], 1 error
#
# Exits with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check polars==2.1.0
cat > check.py <<'PY'
import json, polars

def write(name, always):
    with open(name, "w") as file:
        for i in range(200):
            line = {"custom_id": f"task-{i}", "result": {"text": "x"}}
            if always:
                line["error"] = None
            if i == 150:
                line["error"] = {"code": "upstream_error"}
            file.write(json.dumps(line) + "\n")

write("late.jsonl", always=False)
write("always.jsonl", always=True)
late = polars.read_ndjson("late.jsonl").columns
print("late key: columns", late)
try:
    polars.read_ndjson("always.jsonl")
    null = "read"
except polars.exceptions.ComputeError:
    null = "ComputeError"
print("null before object:", null)
full = [polars.read_ndjson(name, infer_schema_length=None) for name in ("late.jsonl", "always.jsonl")]
errors = {table.filter(polars.col("error").is_not_null()).height for table in full}
print(f"read in full: columns {full[0].columns}, {errors.pop()} error")
assert late == ["custom_id", "result"], late
assert null == "ComputeError", null
assert full[0].columns == ["custom_id", "result", "error"] and not errors
PY
venv/bin/python check.py
