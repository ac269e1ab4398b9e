"""Anthropic's Python package and LangChain's for it, against a running server whose model server has OpenAI's chats.

crates/server/tests/sdk.rs starts the server, makes the keys and runs this. The model is small: what it is made to say is
bound by a schema.
"""

import json
import os
import sys
import traceback

import anthropic
from anthropic import Anthropic

URL = os.environ["SDK_URL"]
KEY = os.environ["SDK_KEY"]
POOR_KEY = os.environ["SDK_POOR_KEY"]
CHAT = "smollm2-135m-instruct"
COLOURS = [{"role": "user", "content": "Name three colours."}]
# The package leaves it to the body.
COLD = {"temperature": 0}


def client(key=KEY, **options):
    options = {"max_retries": 0, "timeout": 120, "_strict_response_validation": True, **options}
    return Anthropic(base_url=URL, api_key=key, **options)


def refused(kind, call):
    """The error that `call` raises, which must be of exactly this kind."""
    try:
        answer = call()
    except anthropic.APIError as error:
        assert type(error) is kind, f"{type(error).__name__} in place of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}, but {answer!r}")


def check_message():
    answer = client().messages.create(model=CHAT, max_tokens=24, system="Be brief.", messages=COLOURS, extra_body=COLD)
    assert answer.id.startswith("msg_") and answer.role == "assistant" and answer.model == CHAT
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.stop_sequence is None
    [block] = answer.content
    assert any(colour in block.text.lower() for colour in ("red", "blue", "green")), block
    assert answer.usage.input_tokens > 0 and 0 < answer.usage.output_tokens <= 24


def check_stream():
    asked = {"model": CHAT, "max_tokens": 24, "messages": COLOURS, "extra_body": COLD}
    whole = client().messages.create(**asked)
    with client().messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        answer = stream.get_final_message()
    assert text == whole.content[0].text == answer.content[0].text
    assert (answer.stop_reason, answer.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    raw = [event.type for event in client().messages.create(stream=True, **asked)]
    assert raw[0] == "message_start" and raw[-2:] == ["message_delta", "message_stop"], raw


def check_structured():
    schema = {
        "type": "object",
        "properties": {"legs": {"type": "integer"}},
        "required": ["legs"],
        "additionalProperties": False,
    }
    answer = client().messages.create(
        model=CHAT,
        max_tokens=60,
        extra_body=COLD,
        messages=[{"role": "user", "content": "How many legs has a cat?"}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert isinstance(json.loads(answer.content[0].text)["legs"], int), answer


def check_stop_sequences():
    asked = {"model": CHAT, "max_tokens": 40, "messages": [{"role": "user", "content": "Count to ten."}], "extra_body": COLD}
    answer = client().messages.create(stop_sequences=[",", "\n", ".", " "], **asked)
    assert answer.stop_reason in ("stop_sequence", "end_turn") and answer.usage.output_tokens < 40, answer


def check_count():
    few = client().messages.count_tokens(model=CHAT, messages=COLOURS).input_tokens
    many = client().messages.count_tokens(model=CHAT, messages=COLOURS * 20).input_tokens
    assert 0 < few < many


def check_models():
    listed = [model.id for model in client().models.list()]
    assert CHAT in listed
    assert client().models.retrieve(CHAT).type == "model"


def check_refusals():
    ask = lambda key=KEY, **asked: client(key).messages.create(
        **{"model": CHAT, "max_tokens": 4, "messages": COLOURS, **asked}
    )
    for kind, status, family, wrong in [
        (anthropic.AuthenticationError, 401, "authentication_error", {"key": "batchin_api_wrong"}),
        (anthropic.NotFoundError, 404, "not_found_error", {"model": "gpt-99"}),
        (anthropic.BadRequestError, 400, "invalid_request_error", {"max_tokens": 0}),
        (anthropic.BadRequestError, 400, "invalid_request_error", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ]:
        error = refused(kind, lambda: ask(**wrong))
        assert (error.status_code, error.body["error"]["type"]) == (status, family), error.body
        assert error.request_id == error.body["request_id"] == error.response.headers["x-request-id"]
    error = refused(anthropic.PaymentRequiredError, lambda: ask(POOR_KEY))
    assert (error.status_code, error.body["error"]["type"]) == (402, "billing_error")


def check_langchain():
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model=CHAT, base_url=URL, api_key=KEY, max_tokens=16, temperature=0, max_retries=0)
    answer = model.invoke("Name three colours.")
    assert answer.text and answer.usage_metadata["output_tokens"] > 0, answer
    assert "".join(chunk.text for chunk in model.stream("Name three colours.")) == answer.text


def main():
    for check in [
        check_message,
        check_stream,
        check_structured,
        check_stop_sequences,
        check_count,
        check_models,
        check_refusals,
        check_langchain,
    ]:
        try:
            check()
        except Exception:
            traceback.print_exc()
            sys.exit(check.__name__)


main()
