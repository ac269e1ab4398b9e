"""OpenAI's Responses API with the official Python package and LangChain, against a running server whose model server has
chats alone.

crates/server/tests/sdk.rs starts the server, makes the keys and runs this. Answers are validated strictly. The model is
small: what it is made to say is bound by a schema.
"""

import json
import os
import sys
import time
import traceback

import openai
from openai import OpenAI
from pydantic import BaseModel

URL = os.environ["SDK_URL"]
KEY = os.environ["SDK_KEY"]
POOR_KEY = os.environ["SDK_POOR_KEY"]
CHAT = "smollm2-135m-instruct"
BASES = ["", "/v1", "/openai/v1"]


class Cat(BaseModel):
    legs: int
    colour: str


def client(base="/v1", key=KEY):
    options = {"max_retries": 0, "timeout": 120, "_strict_response_validation": True}
    return OpenAI(base_url=URL + base, api_key=key, **options)


def refused(kind, call):
    """The error that `call` raises, which must be of exactly this kind."""
    try:
        answer = call()
    except openai.OpenAIError as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


def check_response(base):
    asked = {"model": CHAT, "input": "Name three colours.", "max_output_tokens": 24, "temperature": 0}
    answer = client(base).responses.create(**asked)
    assert answer.id.startswith("resp_") and answer.object == "response" and answer.model == CHAT
    assert answer.status in ("completed", "incomplete") and abs(answer.created_at - time.time()) < 300
    assert any(colour in answer.output_text.lower() for colour in ("red", "blue", "green")), answer.output_text
    usage = answer.usage
    assert 0 < usage.output_tokens <= 24 and usage.total_tokens == usage.input_tokens + usage.output_tokens
    chat = client(base).chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": asked["input"]}], max_tokens=24, temperature=0
    )
    assert answer.output_text == chat.choices[0].message.content, "the same chat"
    assert (usage.input_tokens, usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)


def check_stream(base):
    asked = {"model": CHAT, "input": "Name three colours.", "max_output_tokens": 24, "temperature": 0}
    events = list(client(base).responses.create(stream=True, **asked))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[1].type] == ["response.created", "response.in_progress"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete") and last.response.output_text == text
    assert last.response.output_text == client(base).responses.create(**asked).output_text
    assert last.response.usage.output_tokens > 0


def check_stream_helper():
    with client().responses.stream(model=CHAT, input="Name three colours.", max_output_tokens=200, temperature=0) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_response()
    assert "response.output_text.done" in kinds and answer.output_text


def check_conversation():
    conversation = [
        {"role": "developer", "content": "Answer in one word."},
        {"role": "user", "content": [{"type": "input_text", "text": "What is the capital of France?"}]},
    ]
    first = client().responses.create(model=CHAT, input=conversation, max_output_tokens=40, temperature=0)
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    conversation.append({"role": "user", "content": "And of Italy?"})
    second = client().responses.create(model=CHAT, input=conversation, max_output_tokens=40, temperature=0)
    assert second.output_text and second.usage.input_tokens > first.usage.input_tokens


def check_parsed():
    answer = client().responses.parse(
        model=CHAT, input="Describe a black cat.", text_format=Cat, max_output_tokens=120, temperature=0
    )
    assert isinstance(answer.output_parsed, Cat), answer.output


def check_refusals():
    ask = lambda key=KEY, **asked: client(key=key).responses.create(**{"model": CHAT, "input": "Hello", **asked})
    for param, wrong in [
        ("previous_response_id", {"previous_response_id": "resp_1"}),
        ("store", {"store": True}),
        ("background", {"background": True}),
        ("tools[0].type", {"tools": [{"type": "web_search"}]}),
        ("max_output_tokens", {"max_output_tokens": 0}),
    ]:
        error = refused(openai.BadRequestError, lambda: ask(**wrong))
        assert (error.code, error.param) == ("invalid_request", param), error.body
        assert error.request_id == error.response.headers["x-request-id"]
    assert refused(openai.NotFoundError, lambda: ask(model="gpt-99")).code == "model_not_found"
    assert refused(openai.APIStatusError, lambda: ask(POOR_KEY)).status_code == 402


def check_batch():
    api = client("/openai/v1")
    body = {"model": CHAT, "input": "Name three colours.", "max_output_tokens": 8}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body}
    file = api.files.create(file=("in.jsonl", (json.dumps(line) + "\n").encode()), purpose="batch")
    batch = api.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    until = time.monotonic() + 60
    while batch.status != "completed":
        assert time.monotonic() < until and batch.status in ("validating", "in_progress", "finalizing"), batch
        time.sleep(0.2)
        batch = api.batches.retrieve(batch.id)
    answer = json.loads(api.files.content(batch.output_file_id).text)["response"]["body"]
    assert answer["object"] == "response" and answer["output"][0]["content"][0]["text"], answer
    assert batch.usage.output_tokens == answer["usage"]["output_tokens"]


def check_langchain():
    from langchain_openai import ChatOpenAI

    options = {"base_url": URL + "/v1", "api_key": KEY, "max_tokens": 16, "temperature": 0}
    model = ChatOpenAI(model=CHAT, use_responses_api=True, **options)
    answer = model.invoke("Name three colours.")
    assert answer.text and answer.usage_metadata["output_tokens"] > 0, answer
    assert "".join(chunk.text for chunk in model.stream("Name three colours.")) == answer.text


def main():
    based = [check_response, check_stream]
    alone = [
        check_stream_helper,
        check_conversation,
        check_parsed,
        check_refusals,
        check_batch,
        check_langchain,
    ]
    checks = [(check, (base,)) for base in BASES for check in based] + [(check, ()) for check in alone]
    for check, arguments in checks:
        try:
            check(*arguments)
        except Exception:
            traceback.print_exc()
            sys.exit(f"{check.__name__}{arguments}")


main()
