"""What the official Python packages, openai-agents and LangChain make of tool calls and reasoning.

crates/api/tests/suite/retold.rs runs this, and its model server answers one after the other: a call of `weather`, or
"It rains in Oslo.".
"""

import asyncio
import json
import os

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from anthropic import Anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI

URL, KEY = os.environ["SDK_URL"], os.environ["SDK_KEY"]
OPTIONS = {"api_key": KEY, "max_retries": 0, "timeout": 60}
MODEL = "chat-model"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def openai_whole_and_streamed():
    api = OpenAI(base_url=URL, **OPTIONS)
    tools = [{"type": "function", "name": "weather", "strict": True, "parameters": SCHEMA}]
    talk = [{"role": "user", "content": "What is the weather in Oslo?"}]
    first = api.responses.create(model=MODEL, input=talk, tools=tools)
    reasoning, call = first.output
    talk += [item.model_dump(exclude_none=True) for item in first.output]
    talk.append({"type": "function_call_output", "call_id": call.call_id, "output": "Rain."})
    second = api.responses.create(model=MODEL, input=talk, tools=tools)
    with api.responses.stream(model=MODEL, input="Oslo?", tools=tools) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_response().output
    calls = [[item.name, json.loads(item.arguments)] for item in (call, streamed[-1])]
    return [reasoning.content[0].text, streamed[0].content[0].text, *calls, second.output_text]


def agents():
    set_tracing_disabled(True)
    asked = []

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return "Rain."

    model = OpenAIResponsesModel(model=MODEL, openai_client=AsyncOpenAI(base_url=URL, **OPTIONS))
    agent = Agent(name="a", instructions="Use the tool.", model=model, tools=[weather])

    async def both():
        whole = await Runner.run(agent, "What is the weather in Oslo?")
        run = Runner.run_streamed(agent, "What is the weather in Oslo?")
        async for _ in run.stream_events():
            pass
        return [whole.final_output, run.final_output]

    return [*asyncio.run(both()), asked]


def anthropic_whole_and_streamed():
    api = Anthropic(base_url=URL.removesuffix("/v1"), **OPTIONS)
    tools = [{"name": "weather", "input_schema": SCHEMA}]
    talk = [{"role": "user", "content": "What is the weather in Oslo?"}]
    first = api.messages.create(model=MODEL, max_tokens=50, messages=talk, tools=tools)
    thought, call = first.content
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}
    talk += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = api.messages.create(model=MODEL, max_tokens=50, messages=talk, tools=tools)
    with api.messages.stream(model=MODEL, max_tokens=50, messages=talk[:1], tools=tools) as stream:
        streamed = stream.get_final_message().content
    calls = [[block.name, block.input] for block in (call, streamed[-1])]
    return [thought.thinking, streamed[0].thinking, *calls, second.content[0].text]


def langchain():
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return "Rain."

    chats = [
        ChatOpenAI(model=MODEL, base_url=URL, api_key=KEY, max_retries=0, use_responses_api=True),
        ChatAnthropic(model=MODEL, base_url=URL.removesuffix("/v1"), api_key=KEY, max_retries=0, max_tokens=50),
    ]
    return [chat.bind_tools([weather]).invoke("What is the weather in Oslo?").tool_calls[0]["args"] for chat in chats]


print(json.dumps([openai_whole_and_streamed(), agents(), anthropic_whole_and_streamed(), langchain()]))
