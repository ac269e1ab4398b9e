"""How long the official Python package waits before it tries a busy model again.

crates/server/tests/processes/retry_after.rs starts a server whose model server asks for an hour, and runs this. Time is
not waited for: what the package asks for is noted.
"""

import os
import time

import openai
from openai import OpenAI

paused = []
time.sleep = paused.append

client = OpenAI(base_url=os.environ["SDK_URL"] + "/v1", api_key=os.environ["SDK_KEY"], max_retries=1, timeout=60)
try:
    answer = client.chat.completions.create(model="fixed", messages=[{"role": "user", "content": "hi"}], max_tokens=10)
except openai.InternalServerError as error:
    headers = error.response.headers
    assert error.status_code == 503 and headers["retry-after"] == "60", (error.status_code, headers)
else:
    raise AssertionError(answer)
# The package tried again, and no sooner than it was told.
assert len(paused) == 1 and 55 <= paused[0] <= 60, paused
