"""Pictures and films through the official Python package: made, listed, fetched, deleted. Prints what came, as JSON.

crates/api/tests/suite/makers.rs starts the server with a fake maker of both behind it, and runs this.
"""

import base64
import hashlib
import json
import os
import urllib.request
import warnings

import openai
from openai import OpenAI

# The package says of all of its films that OpenAI's own model of them ends.
warnings.simplefilter("ignore", DeprecationWarning)

URL = os.environ["SDK_URL"]
client = OpenAI(base_url=URL, api_key=os.environ["SDK_KEY"], max_retries=0)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def fetched(url):
    # The server's own address is not known when it starts.
    with urllib.request.urlopen(url.replace("http://batchin.test", URL.removesuffix("/v1"))) as response:
        return response.read()


asked = {"model": "draw-model", "prompt": "A red kite.", "size": "96x64"}
by_url = client.images.generate(**asked, n=2, response_format="url")
raw = client.images.with_raw_response.generate(**asked, response_format="b64_json")
by_bytes = raw.parse()
assert raw.headers["x-request-id"] and by_bytes.created > 0 and by_bytes.data[0].url is None, by_bytes
pictures = [fetched(picture.url) for picture in by_url.data] + [base64.b64decode(by_bytes.data[0].b64_json)]
try:
    client.images.generate(**{**asked, "size": "9x9999999"})
    refused = None
except openai.BadRequestError as error:
    refused = error.param

film = {"model": "film-model", "prompt": "A kite.", "seconds": "4", "size": "480x848"}
made = client.videos.create_and_poll(**film, poll_interval_ms=20)
begun = client.videos.create(**film)
assert begun.status in ("queued", "in_progress", "completed") and begun.object == "video", begun
ended = client.videos.poll(begun.id, poll_interval_ms=20)
again = client.videos.retrieve(begun.id)
listed = [video.id for video in client.videos.list(limit=1)]
content = client.videos.download_content(made.id).content
deleted = client.videos.delete(begun.id)
left = [video.id for video in client.videos.list()]
try:
    client.videos.retrieve(begun.id)
    gone = False
except openai.NotFoundError:
    gone = True

print(
    json.dumps(
        {
            "pictures": [sha(picture) for picture in pictures],
            "refused": refused,
            "statuses": [made.status, ended.status, again.status],
            "film": [made.seconds, made.size, made.progress, made.error],
            "listed": listed == [begun.id, made.id],
            "content": sha(content),
            "deleted": [deleted.deleted, deleted.id == begun.id, left == [made.id], gone],
        }
    )
)
