"""The description of the API against the server that it describes, with schemathesis.

crates/server/tests/processes/description.rs starts the server, makes the key and runs this. Calls are generated from
/openapi.json, right ones and wrong ones; every check of the package is on, and whatever it finds is an
error. As a module (schemathesis loads it by the variable SCHEMATHESIS_HOOKS) this says what no schema can.
"""

import atexit
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import uuid

URL = os.environ["SDK_URL"]
KEY = os.environ["SDK_KEY"]
KEY_ID = os.environ["SDK_KEY_ID"]
INTERNAL_TOKEN = os.environ["SDK_INTERNAL_TOKEN"]
CHAT = os.environ["SDK_CHAT_MODEL"]
EMBED = os.environ["SDK_EMBED_MODEL"]
RANK = os.environ["SDK_RANK_MODEL"]
SEEN = os.environ.get("SDK_SEEN_FILE")

# A right call may also find that what it asks for is not there. Only a session is logged out.
SETTINGS = """
[headers]
Authorization = "Bearer {key}"
X-Internal-Token = "{token}"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "416"]

[[operations]]
include-path = "/v1/users/logout"
[operations.headers]
Authorization = "Bearer {session}"

# Parts and headers that are not known are passed over: clients of other services send them.
[[operations]]
include-path = "/openai/v1/files"
include-method = "POST"
[operations.checks.negative_data_rejection]
expected-statuses = ["200", "400", "401", "403", "404", "405", "409", "413", "415", "429"]

# What is sent is no sound and no picture, no model here speaks, or makes pictures or films, and a task's members may be at odds:
# no schema says that.
[[operations]]
include-path-regex = "^/v1/audio/|/v1/video|/v1/images/|^/v1/batches$"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""

# Cases of one call in each phase.
EXAMPLES = 6

# Calls that have to succeed for some of what was generated: elsewhere there is nothing to be found by a generated id.
SUCCEED = [
    f"{method} /v1{path}"
    for method, path in [
        ("POST", "/users"),
        ("GET", "/users/me"),
        ("PATCH", "/users/me"),
        ("POST", "/keys"),
        ("GET", "/keys"),
        ("POST", "/chat/completions"),
        ("POST", "/completions"),
        ("POST", "/embeddings"),
        ("POST", "/responses"),
        ("POST", "/messages"),
        ("POST", "/messages/count_tokens"),
        ("POST", "/fim/completions"),
        ("POST", "/rerank"),
        ("GET", "/models"),
        ("POST", "/batches"),
        ("GET", "/batches"),
        ("POST", "/batches/estimate"),
        ("GET", "/usage/logs"),
        ("GET", "/usage/summary"),
        ("GET", "/usage/by-model"),
        ("GET", "/usage/timeseries"),
        ("GET", "/topup/history"),
        ("POST", "/webhooks/secret"),
        ("GET", "/webhooks/deliveries"),
    ]
] + [
    "GET /openai/v1/models",
    "POST /openai/v1/files",
    "GET /openai/v1/files",
    "GET /openai/v1/batches",
]


def main():
    with tempfile.TemporaryDirectory() as folder:
        seen = os.path.join(folder, "seen.json")
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": os.path.abspath(__file__), "SDK_SEEN_FILE": seen}
        settings = os.path.join(folder, "schemathesis.toml")
        with open(settings, "w") as file:
            file.write(SETTINGS.format(key=KEY, token=INTERNAL_TOKEN, session=session()))
        command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={settings}", "run", URL + "/openapi.json", "--checks=all"]
        command += [f"--max-examples={EXAMPLES}", "--generation-deterministic", "--workers=1"]
        command += ["--no-shrink", "--no-color", "--suppress-health-check=all"]
        # What answers under several base URLs is one handler, which is asked under one of them.
        command += ["--include-path-regex=^/(v1|openai|healthz|readyz|metrics|openapi)", "--warnings=off"]
        # Without Stripe, calls of cards are refused whatever they say: cards.rs of the API's suite has them.
        command += ["--exclude-path-regex=^/(v1/files|v1/topup/(stripe|auto|x402)|v1/webhooks/stripe|openai/v1/(chat|completions|embeddings|responses|messages|fim|rerank|audio|images))"]
        command += sys.argv[1:]
        status = subprocess.run(command, env=environment, cwd=folder).returncode
        with open(seen) as file:
            statuses = json.load(file)
    for call, counts in sorted(statuses.items()):
        print(call, counts)
    if status:
        sys.exit("schemathesis found something")
    barren = [call for call in SUCCEED if not any(status.startswith("2") for status in statuses.get(call, {}))]
    if barren:
        sys.exit(f"never accepted: {barren}")


def session():
    """A new session of a new user."""
    user = {"email": f"{uuid.uuid4()}@example.com", "name": "Ada", "password": "correct horse battery"}
    for path, body in [("/v1/users", user), ("/v1/users/login", {**user, "name": None})]:
        body = json.dumps({name: value for name, value in body.items() if value is not None}).encode()
        request = urllib.request.Request(URL + path, body, {"X-Internal-Token": INTERNAL_TOKEN})
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    return answer["access_token"]


def is_without(case):
    """Whether a case is about a header that is not sent."""
    return "MISSING" in str(getattr(case.meta and case.meta.phase.data, "scenario", None)).upper()


def plain(value, name=None):
    """Whole numbers without a fraction, as JSON Schema takes them for the same; and answers of a few tokens."""
    if isinstance(value, dict):
        return {name: plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if name in ("max_tokens", "max_completion_tokens") and type(value) is int and 16 < value < 2**32:
        return 16
    return value


def unique(tasks):
    """Ids are unique in a batch, which JSON Schema cannot say."""
    seen = set()
    for index, task in enumerate(tasks if isinstance(tasks, list) else []):
        if isinstance(task, dict) and isinstance(task.get("custom_id"), str):
            if task["custom_id"] in seen:
                task["custom_id"] = f"{task['custom_id'][:500]}-{index}"
            seen.add(task["custom_id"])


def hooks():
    import schemathesis

    statuses = collections.defaultdict(collections.Counter)

    @schemathesis.hook
    def before_load_schema(context, raw_schema):
        """Which models there are the description cannot say; GET /v1/models does."""
        schemas = raw_schema["components"]["schemas"]
        chats = ["ChatRequest", "CompletionRequest", "ResponsesRequest", "MessagesRequest", "CountTokensRequest", "FimRequest"]
        for name, model in [("EmbeddingsRequest", EMBED), ("RerankRequest", RANK), *((name, CHAT) for name in chats)]:
            schemas[name]["properties"]["model"] = {"enum": [model]}
        for task, model in zip(schemas["CreateTask"]["anyOf"], [CHAT, EMBED, RANK, CHAT]):
            task["properties"]["model"] = {"enum": [model]}

    @schemathesis.hook
    def before_call(context, case, kwargs):
        path, headers, query = case.operation.path, case.headers, case.query or {}
        # The key that is tested with, which the list of keys shows, is not deleted or switched off.
        if KEY_ID in map(str, (case.path_parameters or {}).values()):
            case.path_parameters["id"] = str(uuid.UUID(int=0))
        # Deliveries are asked for after one that there is.
        if path.endswith("/webhooks/deliveries") and str(query.get("after", "")).startswith("evt_"):
            del query["after"]
        # A list goes on after a row or at a number of rows, which a description of parameters cannot say.
        if "after" in query and "offset" in query:
            del query["offset"]
        # Parts that are passed over have names of any letters here, which no form is made of.
        if path.endswith("/files") and isinstance(case.body, dict):
            known = ["file", "purpose", "expires_after[anchor]", "expires_after[seconds]"]
            case.body = {name: part for name, part in case.body.items() if name in known}
        # Under one key only one request can be made.
        if not is_without(case) and re.fullmatch("[!-~]{1,200}", str(headers.get("Idempotency-Key", ""))):
            headers["Idempotency-Key"] += str(uuid.uuid4())
        if isinstance(case.body, dict) and case.media_type == "application/json":
            changed = plain(case.body)
            unique(changed.get("tasks"))
            if repr(changed) != repr(case.body):
                case.body = changed

    @schemathesis.hook
    def after_call(context, case, response):
        statuses[case.operation.label][str(response.status_code)] += 1

    @atexit.register
    def write():
        with open(SEEN, "w") as file:
            json.dump(statuses, file)


if __name__ == "__main__":
    main()
else:
    hooks()
