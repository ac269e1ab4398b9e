"""A text spoken through the official Python package: whole, as it comes, and refused. Prints what came, as JSON.

crates/api/tests/suite/speech.rs runs this.
"""

import hashlib
import json
import os

import openai
from openai import OpenAI

client = OpenAI(base_url=os.environ["SDK_URL"], api_key=os.environ["SDK_KEY"], max_retries=0)
asked = {"model": "voice-model", "voice": "alloy", "input": "Twenty letters here.", "response_format": "pcm"}

whole = client.audio.speech.create(**asked)
pieces = []
with client.audio.speech.with_streaming_response.create(**asked) as response:
    kind = response.headers["content-type"]
    pieces = list(response.iter_bytes())
with client.audio.speech.with_streaming_response.create(**asked, stream_format="sse") as response:
    events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
try:
    client.audio.speech.create(**{**asked, "voice": "nobody"})
    refused = None
except openai.BadRequestError as error:
    refused = error.param

print(
    json.dumps(
        {
            "whole": hashlib.sha256(whole.content).hexdigest(),
            "streamed": hashlib.sha256(b"".join(pieces)).hexdigest(),
            "kind": kind,
            "events": sorted({event["type"] for event in events}),
            "refused": refused,
        }
    )
)
