"""OpenAI's Python package has a sound written down, with nothing but its base URL changed.

crates/api/tests/suite/hearing.rs starts the server with a real recogniser behind it, and runs this.
"""

import os
import re

import openai
from openai import OpenAI

# The recogniser does not say that it is well while it hears, and is then given a pause where the machine is slow.
CLIENT = OpenAI(base_url=os.environ["SDK_URL"] + "/v1", api_key=os.environ["SDK_KEY"], max_retries=8, timeout=120)
SOUND = os.environ["SDK_SOUND"]
MODEL = "hear-model"
WORDS = "good morning please open the window and close the door".split()


def words(text):
    return re.findall("[a-z]+", text.lower())


def ask(**options):
    with open(SOUND, "rb") as file:
        return CLIENT.audio.transcriptions.create(file=file, model=MODEL, language="en", **options)


def main():
    answer = ask()
    assert words(answer.text) == WORDS, answer
    assert answer.usage.type == "duration" and answer.usage.seconds > 2, answer
    verbose = ask(response_format="verbose_json", temperature=0, timestamp_granularities=["segment"])
    assert words(verbose.text) == WORDS and verbose.segments[0].end > 1, verbose
    assert words(ask(response_format="text")) == WORDS
    captions = ask(response_format="srt")
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n", captions), captions

    events = list(ask(stream=True))
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1), events
    assert events[-1].type == "transcript.text.done" and words(events[-1].text) == WORDS, events
    assert words("".join(event.delta for event in events[:-1])) == WORDS, events

    with open(SOUND, "rb") as file:
        translated = CLIENT.audio.translations.create(file=file, model=MODEL)
    assert words(translated.text) == WORDS, translated

    try:
        CLIENT.audio.transcriptions.create(file=("a.wav", b"no sound"), model=MODEL)
    except openai.BadRequestError as error:
        assert error.param == "file" and "flac" in error.message, error
    else:
        raise AssertionError("garbage was heard")


main()
