"""The official Python package against a running server, with nothing but its base URL changed.

crates/server/tests/sdk.rs starts the server, makes the keys and runs this. Answers are validated strictly: a field
of the wrong type or outside its documented values is an error. The first check that fails ends the run.
"""

import asyncio
import json
import math
import os
import sys
import time
import traceback

import openai
from openai import AsyncOpenAI, OpenAI

URL = os.environ["SDK_URL"]
KEY = os.environ["SDK_KEY"]
POOR_KEY = os.environ["SDK_POOR_KEY"]
LIMITED_KEY = os.environ["SDK_LIMITED_KEY"]
CHAT = "smollm2-135m-instruct"
EMBED = "all-minilm-l6-v2"
BASES = ["", "/v1", "/openai/v1"]


def client(base="/v1", key=KEY, **options):
    options = {"max_retries": 0, "timeout": 120, "_strict_response_validation": True, **options}
    return OpenAI(base_url=URL + base, api_key=key, **options)


def lenient(*arguments, **options):
    """For what the package's types are too narrow for: the base64 that it asks for itself before it decodes it, and
    the chunks of a completion before the last, whose finish_reason is null in OpenAI's own streams too."""
    return client(*arguments, _strict_response_validation=False, **options)


def user(text):
    return [{"role": "user", "content": text}]


def refused(kind, call):
    """The error that `call` raises, which must be of exactly this kind."""
    try:
        answer = call()
    except openai.OpenAIError as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


def told(error, status, code, param=None):
    """An API error carries the documented body, and the id of its request."""
    assert (error.status_code, error.code, error.param) == (status, code, param), (error.status_code, error.body)
    assert error.body["message"] and error.body["type"], error.body
    assert error.request_id == error.response.headers["x-request-id"]


def counts_add_up(usage):
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def check_chat(base):
    answer = client(base).chat.completions.create(
        model=CHAT, messages=user("Name three colours."), max_tokens=24, temperature=0
    )
    assert answer.id.startswith("chatcmpl_") and answer.object == "chat.completion" and answer.model == CHAT
    assert abs(answer.created - time.time()) < 300
    choice = answer.choices[0]
    assert choice.index == 0 and choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    said = choice.message.content.lower()
    assert any(colour in said for colour in ("red", "blue", "green")), said
    counts_add_up(answer.usage)
    assert answer.usage.completion_tokens <= 24
    assert answer._request_id


def check_stream(base):
    asked = {"model": CHAT, "messages": user("Name three colours."), "max_tokens": 16, "temperature": 0}
    chunks = list(client(base).chat.completions.create(stream=True, **asked))
    assert len({chunk.id for chunk in chunks}) == 1 and chunks[0].id.startswith("chatcmpl_")
    assert all(chunk.model == CHAT and chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert all(chunk.choices and not chunk.usage for chunk in chunks), "usage although nobody asked"
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(deltas) > 3 and "".join(deltas).strip()
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons[-1] in ("stop", "length") and not any(reasons[:-1]), reasons


def check_stream_with_usage(base):
    stream = client(base).chat.completions.create(
        model=CHAT,
        messages=user("Name three colours."),
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert last.choices == [] and chunks and all(chunk.choices for chunk in chunks)
    counts_add_up(last.usage)
    assert last.usage.completion_tokens <= 16


def check_completions(base):
    asked = {"model": CHAT, "max_tokens": 8, "temperature": 0}
    answer = client(base).completions.create(prompt="One, two, three,", **asked)
    assert answer.id.startswith("cmpl_") and answer.object == "text_completion" and answer.model == CHAT
    assert "four" in answer.choices[0].text and answer.choices[0].finish_reason in ("stop", "length")
    counts_add_up(answer.usage)
    several = client(base).completions.create(prompt=["One, two,", "A, B,"], **asked)
    assert [choice.index for choice in several.choices] == [0, 1]
    chunks = list(lenient(base).completions.create(prompt="One, two, three,", stream=True, **asked))
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert "four" in text and chunks[0].id.startswith("cmpl_"), text


def check_embeddings(base):
    texts = ["A kitten sleeps.", "A small cat naps.", "The invoice is due on Monday."]
    # Without encoding_format the package asks for base64 and decodes it itself.
    answer = lenient(base).embeddings.create(model=EMBED, input=texts)
    assert answer.object == "list" and answer.model == EMBED
    assert [item.index for item in answer.data] == [0, 1, 2]
    vectors = [item.embedding for item in answer.data]
    assert all(len(vector) == 384 for vector in vectors)
    assert all(abs(math.hypot(*vector) - 1) < 1e-3 for vector in vectors)
    alike, apart = (sum(a * b for a, b in zip(vectors[0], other)) for other in vectors[1:])
    assert alike > 0.5 > apart, (alike, apart)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    plain = client(base).embeddings.create(model=EMBED, input=texts[0], encoding_format="float")
    assert max(abs(a - b) for a, b in zip(plain.data[0].embedding, vectors[0])) < 1e-3


def check_models(base):
    listed = {model.id: model for model in client(base).models.list()}
    assert {CHAT, EMBED} <= listed.keys()
    one = client(base).models.retrieve(CHAT)
    assert one.id == CHAT and one.object == "model" and one.owned_by == listed[CHAT].owned_by
    told(refused(openai.NotFoundError, lambda: client(base).models.retrieve("no-such-model")), 404, "model_not_found", "model")


def check_refusals(base):
    ask = lambda key=KEY, **asked: client(base, key).chat.completions.create(
        **{"model": CHAT, "messages": user("Hello"), "max_tokens": 4, **asked}
    )
    told(refused(openai.AuthenticationError, lambda: ask("batchin_api_wrong")), 401, "unauthorized")
    unknown = refused(openai.NotFoundError, lambda: ask(model="gpt-99"))
    told(unknown, 404, "model_not_found", "model")
    assert "gpt-99" in unknown.body["message"]
    for param, wrong in [
        ("temperature", {"temperature": "hot"}),
        ("max_tokens", {"max_tokens": -1}),
        ("messages", {"messages": []}),
        ("messages[0].role", {"messages": [{"content": "no role"}]}),
    ]:
        told(refused(openai.BadRequestError, lambda: ask(**wrong)), 400, "invalid_request", param)
    told(refused(openai.BadRequestError, lambda: ask(model=EMBED)), 400, "invalid_request", "model")
    told(refused(openai.APIStatusError, lambda: ask(POOR_KEY)), 402, "payment_required")
    told(refused(openai.APIStatusError, lambda: ask(POOR_KEY, stream=True)), 402, "payment_required")


def check_prompt_over_the_context():
    asked = {"model": CHAT, "messages": user("word " * 9_000), "max_tokens": 4}
    error = refused(openai.BadRequestError, lambda: client().chat.completions.create(**asked))
    told(error, 400, "context_length_exceeded", "messages")


def check_refusals_that_stay_are_not_retried():
    began = time.monotonic()
    error = refused(
        openai.APIStatusError,
        lambda: lenient(key=POOR_KEY, max_retries=5).embeddings.create(model=EMBED, input="Hello"),
    )
    assert error.response.headers["x-should-retry"] == "false"
    assert error.response.request.headers["x-stainless-retry-count"] == "0"
    assert time.monotonic() - began < 5


def check_rate_limit():
    limited = lenient(key=LIMITED_KEY)

    def until_refused():
        # Two a minute: whatever minute it is, one of five is refused.
        for _ in range(5):
            limited.embeddings.create(model=EMBED, input="Hello")

    error = refused(openai.RateLimitError, until_refused)
    told(error, 429, "rate_limit_exceeded")
    headers = error.response.headers
    assert headers["x-ratelimit-limit-requests"] == "2" and headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert 0 < int(headers["retry-after"]) <= 60


def check_request_ids_and_rate_headers():
    raw = lenient().embeddings.with_raw_response.create(model=EMBED, input="Hello")
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    limit, left = (int(raw.headers[f"x-ratelimit-{name}-requests"]) for name in ("limit", "remaining"))
    assert 0 <= left < limit
    named = lenient().embeddings.create(model=EMBED, input="Hello", extra_headers={"X-Request-Id": "mine-1"})
    assert named._request_id == "mine-1"


def check_idempotency_key():
    def ask(text):
        asked = {"model": CHAT, "messages": user(text), "max_tokens": 8, "temperature": 1}
        return client().chat.completions.create(extra_headers={"Idempotency-Key": "python-1"}, **asked)

    first, second = ask("Say anything."), ask("Say anything.")
    assert first.id == second.id and first.choices == second.choices
    told(refused(openai.ConflictError, lambda: ask("Say something else.")), 409, "conflict")


def check_passed_through():
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"type": "integer"}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    answer = client().chat.completions.create(
        model=CHAT,
        messages=user("Describe a cat as JSON."),
        max_tokens=80,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "cat", "schema": schema}},
    )
    cat = json.loads(answer.choices[0].message.content)
    assert cat.keys() == {"name", "legs"} and isinstance(cat["legs"], int), cat
    answer = client().chat.completions.create(
        model=CHAT, messages=user("Hello"), max_tokens=4, logprobs=True, top_logprobs=2, n=2, seed=7
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in answer.choices[0].logprobs.content)


def check_files():
    files = client("/openai/v1").files
    text = b'{"custom_id": "a"}\n' * 1_000
    made = files.create(
        file=("input \u00fc.jsonl", text), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3_600}
    )
    assert made.id.startswith("file-") and made.object == "file" and made.bytes == len(text), made
    assert made.filename == "input \u00fc.jsonl" and made.purpose == "batch" and made.status == "processed"
    assert made.expires_at == made.created_at + 3_600 and abs(made.created_at - time.time()) < 300
    other = files.create(file=b"plain", purpose="user_data")
    assert other.expires_at is None
    assert files.retrieve(made.id) == made
    assert [file.id for file in files.list(limit=1)] == [other.id, made.id], "pages follow each other"
    assert [file.id for file in files.list(purpose="batch", order="asc")] == [made.id]
    content = files.content(made.id)
    assert content.read() == text and content.response.headers["content-length"] == str(len(text))
    told(refused(openai.BadRequestError, lambda: files.create(file=b"x", purpose="fun")), 400, "invalid_request", "purpose")
    told(refused(openai.BadRequestError, lambda: files.create(file=b"", purpose="batch")), 400, "invalid_request", "file")
    strange = client("/openai/v1", POOR_KEY).files
    told(refused(openai.NotFoundError, lambda: strange.retrieve(made.id)), 404, "not_found")
    assert list(strange.list()) == []
    for file in files.list():
        gone = files.delete(file.id)
        assert gone.id == file.id and gone.deleted and gone.object == "file"
    told(refused(openai.NotFoundError, lambda: files.content(made.id)), 404, "not_found")


def request(custom_id, **body):
    """A line of a batch's file."""
    body = {"model": CHAT, "messages": user("Name three colours."), "max_tokens": 8, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def lines_of(api, file_id):
    return [json.loads(line) for line in api.files.content(file_id).text.splitlines()]


def ended(api, batch, status):
    """The batch when it has come to where it is to be."""
    until = time.monotonic() + 60
    while batch.status != status:
        assert time.monotonic() < until and batch.status in ("validating", "in_progress", "finalizing", "cancelling"), batch
        time.sleep(0.2)
        batch = api.batches.retrieve(batch.id)
    return batch


def check_batches():
    api = client("/openai/v1")

    def submit(*lines, **options):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        file = api.files.create(file=("in.jsonl", text.encode()), purpose="batch")
        asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **options}
        return api.batches.create(input_file_id=file.id, **asked)

    # Whole: results, errors, usage, files.
    made = submit(
        request("a"),
        request("too long", messages=user("word " * 9_000)),
        request("b"),
        metadata={"team": "a"},
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    assert made.id.startswith("batch_") and made.object == "batch" and made.status in ("validating", "in_progress")
    assert made.metadata == {"team": "a"} and made.completion_window == "24h" and made.errors is None
    assert made.expires_at == made.created_at + 86_400 and abs(made.created_at - time.time()) < 300
    batch = ended(api, made, "completed")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1), batch
    assert made.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at, batch
    assert batch.model == CHAT and batch.cancelled_at is None
    good = lines_of(api, batch.output_file_id)
    assert {line["custom_id"] for line in good} == {"a", "b"}
    answers = [line["response"]["body"] for line in good]
    assert all(answer["object"] == "chat.completion" and answer["choices"][0]["message"]["content"] for answer in answers)
    usage = batch.usage
    assert usage.input_tokens == sum(answer["usage"]["prompt_tokens"] for answer in answers)
    assert usage.output_tokens == sum(answer["usage"]["completion_tokens"] for answer in answers)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    [bad] = lines_of(api, batch.error_file_id)
    assert bad["custom_id"] == "too long" and bad["response"]["status_code"] == 400, bad
    assert bad["response"]["body"]["error"]["code"] == "context_length_exceeded", bad
    output = api.files.retrieve(batch.output_file_id)
    assert output.purpose == "batch_output" and output.expires_at == output.created_at + 3_600

    # At fault: every line is told, and nothing runs.
    batch = ended(api, submit(request("a", model="gpt-99"), request("a"), request("b", stream=True)), "failed")
    faults = [(fault.line, fault.code, fault.param) for fault in batch.errors.data]
    assert faults[0] == (1, "model_not_found", "body.model"), faults
    assert {line for line, _, _ in faults} == {1, 2, 3}, faults
    assert batch.request_counts.total == 0 and batch.failed_at and batch.output_file_id is None

    # Cancelled: each request stands in one of the files.
    made = ended(api, submit(*(request(str(number), max_tokens=1_500, ignore_eos=True) for number in range(40))), "in_progress")
    error = refused(openai.ConflictError, lambda: api.files.delete(made.input_file_id))
    assert error.response.headers["x-should-retry"] == "false"
    stopped = api.batches.cancel(made.id)
    assert stopped.status in ("cancelling", "cancelled") and stopped.cancelling_at, stopped
    batch = ended(api, stopped, "cancelled")
    good = lines_of(api, batch.output_file_id) if batch.output_file_id else []
    bad = lines_of(api, batch.error_file_id)
    assert sorted(int(line["custom_id"]) for line in good + bad) == list(range(40))
    assert all(line["error"]["code"] == "batch_cancelled" for line in bad)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (40, len(good), len(bad)), batch
    assert api.files.delete(made.input_file_id).deleted

    # Pages follow each other, newest first.
    listed = [batch.id for batch in api.batches.list(limit=2)]
    assert len(listed) == 3 and listed[0] == batch.id, listed
    strange = client("/openai/v1", POOR_KEY)
    told(refused(openai.NotFoundError, lambda: strange.batches.retrieve(batch.id)), 404, "not_found")
    assert list(strange.batches.list()) == []


def check_batches_under_every_base():
    """Below /v1 and at the root the documented batches have another shape, and this client still has OpenAI's."""
    for base in BASES:
        api = client(base)
        text = (json.dumps(request("a")) + "\n").encode()
        file = api.files.create(file=("in.jsonl", text), purpose="batch")
        assert api.files.retrieve(file.id) == file and file.id in [one.id for one in api.files.list()]
        asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        made = api.batches.create(input_file_id=file.id, **asked)
        assert made.id.startswith("batch_") and made.object == "batch", made
        batch = ended(api, made, "completed")
        assert [line["custom_id"] for line in lines_of(api, batch.output_file_id)] == ["a"]
        assert api.batches.cancel(batch.id) == batch, "one that has ended stays as it is"
        assert [one.id for one in api.batches.list(limit=1)][0] == batch.id, "pages follow each other"
        wrong = lambda: api.batches.create(input_file_id="file-none", **asked)
        told(refused(openai.NotFoundError, wrong), 404, "not_found", "input_file_id")
        assert api.files.delete(file.id).deleted
        # What is ours is still there for who asks for it, with this client too.
        task = {"custom_id": "a", "model": CHAT, "request_body": {"messages": user("Hello"), "max_tokens": 2}}
        if base != "/openai/v1":
            ours = api.post("/batches", body={"tasks": [task]}, cast_to=object)
            shown = api.get(f"/batches/{ours['id']}", cast_to=object)
            assert shown["id"] == ours["id"] and shown["tasks"][0]["custom_id"] == "a", shown


def check_early_answers_are_read():
    """What is wrong with a request is told although its body is still on its way, whatever its size."""
    wrong, large = "batchin_api_" + "A" * 43, "x" * 3_000_000
    upload = {"file": ("a.jsonl", b'{"a": "bcd"}'), "purpose": "batch"}
    chat = {"model": CHAT, "messages": user(large)}
    for _ in range(5):
        told(refused(openai.AuthenticationError, lambda: client("/openai/v1", wrong).files.create(**upload)), 401, "unauthorized")
        told(refused(openai.AuthenticationError, lambda: client(key=wrong).chat.completions.create(**chat)), 401, "unauthorized")
        told(refused(openai.NotFoundError, lambda: client("/v9").chat.completions.create(**chat)), 404, "not_found")

    async def asked(call):
        try:
            await call
        except openai.APIStatusError as error:
            return error.status_code
        raise AssertionError("nothing was wrong")

    async def all_of_it():
        options = {"max_retries": 0, "timeout": 120}
        async with AsyncOpenAI(base_url=URL + "/openai/v1", api_key=wrong, **options) as api:
            for _ in range(10):
                assert await asked(api.files.create(**upload)) == 401
                assert await asked(api.chat.completions.create(**chat)) == 401
        async with AsyncOpenAI(base_url=URL + "/v9", api_key=KEY, **options) as api:
            assert await asked(api.chat.completions.create(**chat)) == 404

    asyncio.run(all_of_it())


def check_langchain():
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=CHAT, base_url=URL + "/openai/v1", api_key=KEY, max_tokens=16, temperature=0)
    answer = model.invoke("Name three colours.")
    assert answer.content and answer.usage_metadata["output_tokens"] > 0, answer
    assert "".join(chunk.content for chunk in model.stream("Name three colours.")) == answer.content


def check_timeouts():
    long = {"model": CHAT, "messages": user("Tell a long story."), "max_tokens": 1_500, "extra_body": {"ignore_eos": True}}
    began = time.monotonic()
    refused(openai.APITimeoutError, lambda: client(timeout=0.3).chat.completions.create(**long))
    assert time.monotonic() - began < 5
    # A stream that is left in the middle does not hold anything up either.
    stream = client().chat.completions.create(stream=True, **long)
    next(iter(stream))
    stream.close()
    assert lenient().embeddings.create(model=EMBED, input="Hello").data


def check_async():
    async def ask(asking, number):
        text = ""
        stream = await asking.chat.completions.create(
            model=CHAT, messages=user(f"Count to {number}."), max_tokens=12, stream=True
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        return text

    async def all_at_once():
        async with AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=120) as asking:
            return await asyncio.gather(*(ask(asking, number) for number in range(4)))

    assert all(text.strip() for text in asyncio.run(all_at_once()))


ON_EVERY_BASE = [
    check_chat,
    check_stream,
    check_stream_with_usage,
    check_completions,
    check_embeddings,
    check_models,
    check_refusals,
]
ONCE = [
    check_prompt_over_the_context,
    check_refusals_that_stay_are_not_retried,
    check_rate_limit,
    check_request_ids_and_rate_headers,
    check_idempotency_key,
    check_passed_through,
    check_files,
    check_early_answers_are_read,
    check_batches,
    check_batches_under_every_base,
    check_langchain,
    check_timeouts,
    check_async,
]


def main():
    runs = [(check, [base]) for base in BASES for check in ON_EVERY_BASE] + [(check, []) for check in ONCE]
    for check, arguments in runs:
        name = " ".join([check.__name__, *arguments])
        try:
            check(*arguments)
        except Exception:
            traceback.print_exc()
            sys.exit(f"{name} failed (openai {openai.__version__})")
        print(f"{name}: fine", flush=True)


main()
