#!/usr/bin/env bash
# Memory of the server while large media pass: a sound of 100 MB that is uploaded to be written down, and a film of 200 MB that is
# fetched from its server and downloaded. Each begins with the peak reset.
source "$(dirname "$0")/rig.sh"
FILM_BYTES=${FILM_BYTES:-200000000} SOUND_BYTES=${SOUND_BYTES:-100000000}
build
machine
start_sim --film-bytes "$FILM_BYTES"
EXTRA_CONFIG='[audio]
max_upload_bytes = 200000000
[[upstreams]]
name = "media"
kind = "openai"
base_url = "http://127.0.0.1:'$SIM_PORT'/v1"
[[models]]
id = "hear"
upstreams = ["media"]
capabilities = ["transcription"]
[models.pricing]
audio_second = 0.00001
[[models]]
id = "film"
upstreams = ["media"]
capabilities = ["video"]
[models.pricing]
video_second = 0.01'
start_gateway
sleep 1
python3 - "$RUN/sound.wav" "$SOUND_BYTES" <<'PYTHON'
import struct, sys
path, size = sys.argv[1], int(sys.argv[2]) - 44
with open(path, "wb") as out:
    out.write(b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 48000, 96000, 2, 16) + b"data" + struct.pack("<I", size))
    out.write(bytes(size))
PYTHON
peak() { # peak COMMAND…: prints the peak of the server's memory meanwhile, over what it had before, in MB
  echo 5 >"/proc/$GATEWAY_PID/clear_refs"
  local before; before=$(rss_kb "$GATEWAY_PID")
  "$@"
  awk -v b="$before" '/VmHWM/ { printf "%.1f MB beside %.1f\n", ($2 - b) / 1024, b / 1024 }' "/proc/$GATEWAY_PID/status"
}
hear() { curl -fsS -o "$RUN/heard" -H "Authorization: Bearer $KEY" -F model=hear -F file=@"$RUN/sound.wav" $GATEWAY/v1/audio/transcriptions; }
film() {
  local id status
  id=$(curl -fsS -H "Authorization: Bearer $KEY" -H 'content-type: application/json' -d '{"model":"film","prompt":"A kite."}' $GATEWAY/v1/video/generate |
    python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
  until [ "${status:-}" = completed ]; do
    sleep 0.2
    status=$(curl -fsS -H "Authorization: Bearer $KEY" "$GATEWAY/v1/video/$id" | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"])')
    [ "$status" != failed ] || { say "the film failed" >&2; exit 1; }
  done
  curl -fsS -o "$RUN/film.mp4" -H "Authorization: Bearer $KEY" "$GATEWAY/v1/video/$id/content"
}
say "memory while a sound of $((SOUND_BYTES / 1000000)) MB is uploaded and written down: $(peak hear)"
say "while a film of $((FILM_BYTES / 1000000)) MB is fetched, stored and downloaded: $(peak film)"
say "bytes of the film: $(stat -c %s "$RUN/film.mp4")"
batchin ledger check
