"""What the official Python package's helper makes of the tool calls in a stream, one after the other.

crates/api/tests/suite/odd_servers.rs runs this.
"""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["SDK_URL"], api_key=os.environ["SDK_KEY"], max_retries=0, timeout=60)
with client.chat.completions.stream(model="chat-model", messages=[{"role": "user", "content": "x"}], max_tokens=50) as stream:
    for _ in stream:
        pass
    calls = stream.get_final_completion().choices[0].message.tool_calls
print(json.dumps([[call.id, call.function.name, call.function.arguments] for call in calls]))
