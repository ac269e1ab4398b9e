#!/usr/bin/env bash
# A text spoken by the embedded engine through the whole gateway, as mp3, and PyPI's piper-tts with the same voice in a process
# of its own, which keeps it loaded and makes no mp3: how many seconds of sound each makes in a second, by turns; and when the
# first byte of a stream is there, over the whole answer.
source "$(dirname "$0")/rig.sh"
PIPER=${PIPER:-1.8.0}
export TEXT="The harbour was quiet when the first boats came in. Nobody had expected them before noon, and the market was still closed. A boy ran up the hill to tell the others, who did not believe him. By the time they had come down, the fish was sold and the boats were gone again."
build
machine
python3 -m venv "$RUN/venv"
"$RUN/venv/bin/pip" install --quiet --disable-pip-version-check "piper-tts==$PIPER"
DATA=$RUN/data; DATABASE=
mkdir -p "$DATA"
cat >"$DATA/batchin.toml" <<CONF
[server]
listen = "127.0.0.1:$GATEWAY_PORT"
[engine]
models = ["piper-en-us-joe"]
[[models]]
id = "piper-en-us-joe"
upstreams = ["engine"]
capabilities = ["speech"]
[models.pricing]
characters = 15.0
CONF
batchin models pull piper-en-us-joe >/dev/null
"$BATCHIN" --config "$DATA/batchin.toml" --data "$DATA" serve >"$RUN/gateway.out" 2>"$RUN/gateway.log" &
GATEWAY_PID=$!; pids+=("$GATEWAY_PID")
until_answers $GATEWAY/readyz "$GATEWAY_PID"
batchin user create bench@example.org --name Bench >/dev/null
batchin credits grant bench@example.org 1000000 --reason bench >/dev/null
KEY=$(batchin key create bench@example.org --name bench --rpm 10000000); export KEY GATEWAY
VOICE=$DATA/models/piper-en-us-joe.onnx BLOCKS=$BENCH_BLOCKS "$RUN/venv/bin/python" - <<'PYTHON' >"$RUN/report"
import io, json, os, subprocess, sys, time, urllib.request, wave
from piper import PiperVoice

text = os.environ["TEXT"]
voice = PiperVoice.load(os.environ["VOICE"], config_path=os.environ["VOICE"] + ".json")

def ours(form):
    body = json.dumps({"model": "piper-en-us-joe", "input": text, "response_format": form}).encode()
    call = urllib.request.Request(os.environ["GATEWAY"] + "/v1/audio/speech", body, {"content-type": "application/json", "authorization": "Bearer " + os.environ["KEY"]})
    began = time.perf_counter()
    with urllib.request.urlopen(call) as answer:
        first = answer.read(1)
        at = time.perf_counter() - began
        rest = answer.read()
    return at, time.perf_counter() - began, first + rest

def theirs():
    began = time.perf_counter()
    at, samples = None, 0
    for chunk in voice.synthesize(text):
        at = at or time.perf_counter() - began
        samples += len(chunk.audio_int16_bytes) // 2
        rate = chunk.sample_rate
    return at, time.perf_counter() - began, samples / rate

def seconds(sound):
    found = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", "-i", "pipe:0"], input=sound, capture_output=True, check=True)
    if found.stdout.strip() not in (b"", b"N/A"):
        return float(found.stdout)
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", "pipe:0", "-f", "s16le", "-ac", "1", "-ar", "24000", "-"], input=sound, capture_output=True, check=True)
    return len(raw.stdout) / 48000

ours("mp3"), theirs()
for _ in range(int(os.environ["BLOCKS"])):
    _, whole, sound = ours("mp3")
    _, other, spoken = theirs()
    print("factor", seconds(sound) / whole, spoken / other)
    first, whole, _ = ours("mp3")
    print("first", first, whole)
    first, whole, _ = ours("pcm")
    print("pcm", first, whole)
PYTHON
say "seconds of sound made in a second, as mp3; by piper-tts $PIPER; ratio:"
awk '/^factor/ { print $2, $3 }' "$RUN/report" | numbers "the engine" x "piper-tts"
say "the first byte of an mp3 that is streamed; its whole; ratio:"
awk '/^first/ { print $2, $3 }' "$RUN/report" | numbers "first byte" s "the whole"
say "the same of pcm:"
awk '/^pcm/ { print $2, $3 }' "$RUN/report" | numbers "first byte" s "the whole"
batchin ledger check
