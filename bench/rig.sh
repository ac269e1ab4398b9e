# What the measurements share: the machine in words, building, and starting what is measured and what surrounds it.
# Sourced, not run. Everything that is started ends with the script; all files lie in bench/out/run.XXXXXX.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${BENCH_BLOCKS:=5}"    # interleaved blocks of each side
: "${BENCH_SECONDS:=8}"   # length of a block
: "${CONNECTIONS:=32}"
CORES=$(nproc)
GATEWAY_CORE=0            # the measured side has this core for itself
LOAD_CORES=1-$((CORES - 1)); [ "$CORES" -gt 2 ] || LOAD_CORES=$((CORES - 1))
SIM_PORT=19999 NGINX_PORT=19998 GATEWAY_PORT=19997 ABSENT_PORT=19996
GATEWAY=http://127.0.0.1:$GATEWAY_PORT NGINX=http://127.0.0.1:$NGINX_PORT
: "${BATCHIN:=$PWD/target/release/batchin}" "${SIM:=$PWD/target/release/sim}" "${LOAD:=$PWD/target/release/examples/load}"
MESSAGES='[{"role":"system","content":"You answer in one short paragraph, in plain words, without lists."},{"role":"user","content":"Why does the moon look larger near the horizon than high in the sky, although nothing about the moon itself has changed? Say in your answer which of the explanations is generally thought to be the best one today."}]'
CHAT_BODY='{"model":"mock","messages":'$MESSAGES',"max_tokens":256,"temperature":0.7}'
export LC_ALL=C

mkdir -p bench/out
RUN=$(mktemp -d "$PWD/bench/out/run.XXXXXX")
chmod 755 "$RUN"
pids=() databases=()

finish() {
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  for folder in "${databases[@]}"; do scripts/test-postgres.sh stop "$folder" || true; done
  [ -n "${BENCH_KEEP:-}" ] || rm -rf "$RUN"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*"; }

machine() { # the machine, in one line
  local model memory
  model=$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs)
  memory=$(awk '/MemTotal/ { printf "%.0f GB", $2 / 1e6 }' /proc/meminfo)
  say "machine: $model, $CORES cores, $memory, Linux $(uname -r); commit $(git rev-parse --short HEAD); $(date -u +%Y-%m-%dT%H:%MZ); load $(cut -d' ' -f1 /proc/loadavg)"
}

install() { # install COMMAND PACKAGE…: brings what is missing
  command -v "$1" >/dev/null 2>&1 && return
  local sudo=""; [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${@:2}" >/dev/null
}

build() { # the release binaries; BENCH_NO_BUILD=1 takes what is there
  scripts/setup.sh build
  install wrk wrk; PATH=$PATH:/usr/sbin install nginx nginx-light; install curl curl; install taskset util-linux
  [ -n "${BENCH_NO_BUILD:-}" ] && return
  # Apart: together, the tests' features would be on in the server.
  scripts/build.sh --quiet -p batchin-server
  scripts/build.sh --quiet -p batchin-sim --bins --example load
}

# The arguments of a later start win over those of an earlier one.
until_answers() { # until_answers URL PID
  until curl -fsS -o /dev/null --max-time 1 "$1" 2>/dev/null; do
    kill -0 "$2" 2>/dev/null || { say "what should answer at $1 ended:" >&2; tail -5 "$RUN"/*.log >&2; exit 1; }
    sleep 0.05
  done
}

start_sim() { # start_sim [ARGUMENT…]: the simulated model server, on the load's cores
  taskset -c "$LOAD_CORES" "$SIM" --port $SIM_PORT "$@" >"$RUN/sim.log" 2>&1 &
  SIM_PID=$!; pids+=("$SIM_PID")
  until_answers http://127.0.0.1:$SIM_PORT/health "$SIM_PID"
}

start_nginx() { # one worker as a plain reverse proxy, on the gateway's core
  cat >"$RUN/nginx.conf" <<CONF
worker_processes 1; daemon off; pid $RUN/nginx.pid; error_log $RUN/nginx.log warn;
events { worker_connections 4096; }
http {
  access_log off; client_body_temp_path $RUN; proxy_temp_path $RUN; fastcgi_temp_path $RUN; uwsgi_temp_path $RUN; scgi_temp_path $RUN;
  keepalive_requests 1000000000; tcp_nodelay on; client_max_body_size 100m; client_body_buffer_size 64k;
  upstream model { server 127.0.0.1:$SIM_PORT; keepalive 512; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:$NGINX_PORT backlog=4096;
    location / { proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering ${NGINX_BUFFERING:-on}; }
  }
}
CONF
  PATH=$PATH:/usr/sbin taskset -c $GATEWAY_CORE nginx -p "$RUN" -e "$RUN/nginx.log" -c "$RUN/nginx.conf" &
  NGINX_PID=$!; pids+=("$NGINX_PID")
  until_answers $NGINX/health "$NGINX_PID"
}

write_config() { # write_config FILE: everything on; the log says what a server's log says
  cat >"$1" <<CONF
[server]
listen = "127.0.0.1:$GATEWAY_PORT"
[log]
level = "${BENCH_LOG:-info}"
[engine]
enabled = false
[[upstreams]]
name = "sim"
kind = "${SIM_KIND:-vllm}"
base_url = "http://127.0.0.1:$SIM_PORT/v1"
slots = ${SIM_SLOTS:-4096}
[[models]]
id = "mock"
upstreams = ["sim"]
capabilities = ["chat", "completions", "embeddings"]
context_length = 8192
max_output_tokens = 4096
[models.pricing]
std_input = 0.02
std_output = 0.08
[[models]]
id = "stream"
upstreams = ["sim"]
upstream_model = "sim:tokens=${STREAM_TOKENS:-200},gap_ms=${STREAM_GAP_MS:-5}"
capabilities = ["chat"]
context_length = 8192
max_output_tokens = 4096
[models.pricing]
std_input = 0.02
std_output = 0.08
[[models]]
id = "instant"
upstreams = ["sim"]
upstream_model = "sim:tokens=${ANSWER_TOKENS:-8}"
capabilities = ["chat"]
context_length = 8192
max_output_tokens = 4096
[models.pricing]
std_input = 0.02
std_output = 0.08
[[upstreams]]
name = "absent"
kind = "vllm"
base_url = "http://127.0.0.1:$ABSENT_PORT/v1"
[[models]]
id = "absent"
upstreams = ["absent"]
capabilities = ["chat"]
context_length = 8192
max_output_tokens = 4096
[models.pricing]
std_input = 0.02
std_output = 0.08
[[models]]
id = "long"
upstreams = ["sim"]
upstream_model = "sim:tokens=${LONG_TOKENS:-350000}"
capabilities = ["chat"]
context_length = 10000000
max_output_tokens = 9000000
[models.pricing]
std_input = 0.02
std_output = 0.08
${EXTRA_CONFIG:-}
CONF
}

batchin() { "$BATCHIN" --config "$DATA/batchin.toml" --data "$DATA" ${DATABASE:+--database-url "$DATABASE"} "$@"; }

# start_gateway [DATABASE_URL]: on its own core, with a user, credit, and a key with limits that are counted but never
# reached. Without a URL: SQLite with synchronous=FULL, the default.
start_gateway() {
  DATABASE=${1:-}
  DATA=$(mktemp -d "$RUN/data.XXXXXX")
  write_config "$DATA/batchin.toml"
  taskset -c "${GATEWAY_CORES:-$GATEWAY_CORE}" "$BATCHIN" --config "$DATA/batchin.toml" --data "$DATA" ${DATABASE:+--database-url "$DATABASE"} \
    serve >"$RUN/gateway.out" 2>"$RUN/gateway.log" &
  GATEWAY_PID=$!; pids+=("$GATEWAY_PID")
  until grep -q '^listening on' "$RUN/gateway.out" 2>/dev/null; do
    kill -0 "$GATEWAY_PID" 2>/dev/null || { cat "$RUN/gateway.log" >&2; exit 1; }
    sleep 0.05
  done
  batchin user create bench@example.org --name Bench >/dev/null
  batchin credits grant bench@example.org 100000000 --reason bench >/dev/null
  KEY=$(batchin key create bench@example.org --name bench --rpm 10000000 --budget-cents 90000000)
  export KEY
  until_answers $GATEWAY/readyz "$GATEWAY_PID"
}

end() { # end PID: and wait until it has gone
  kill -TERM "$1"; wait "$1" 2>/dev/null || true
  local kept=(); for pid in "${pids[@]}"; do [ "$pid" = "$1" ] || kept+=("$pid"); done; pids=("${kept[@]}")
}

start_postgres() { # a private PostgreSQL with fsync on, on the load's cores; sets POSTGRES_URL, POSTGRES_PID
  local folder; folder=$(mktemp -d /tmp/batchin-bench.XXXXXX); chmod 755 "$folder"
  databases+=("$folder")
  POSTGRES_URL=$(taskset -c "$LOAD_CORES" scripts/test-postgres.sh start "$folder")
  POSTGRES_PID=$(head -1 "$folder/data/postmaster.pid")
}

cpu_us() { # cpu_us PID: microseconds of CPU of a process, its children and those of them that have ended
  local total=0 pid ticks
  for pid in "$1" $(pgrep -P "$1" || true); do
    ticks=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{ print $12 + $13 }') || continue
    total=$((total + ${ticks:-0}))
  done
  ticks=$(sed 's/.*) //' "/proc/$1/stat" | awk '{ print $14 + $15 }')
  say $(((total + ticks) * 1000000 / $(getconf CLK_TCK)))
}

rss_kb() { awk '/VmRSS/ { print $2 }' "/proc/$1/status"; }

load() { taskset -c "$LOAD_CORES" "$LOAD" "$@"; }

blast() { # blast URL SECONDS [CONNECTIONS]: wrk with a POST; prints "2xx other p50_us p99_us"
  taskset -c "$LOAD_CORES" wrk -t1 -c "${3:-$CONNECTIONS}" -d "${2}s" -s bench/chat.lua --timeout 20s "$1/v1/chat/completions" |
    awk '/^counted/ { print $2, $3, $4, $5 }'
}

usage_requests() { # how many requests the key's account has been charged for
  curl -fsS -H "Authorization: Bearer $KEY" $GATEWAY/v1/usage/summary | python3 -c 'import json,sys; print(json.load(sys.stdin)["total_requests"])'
}

# numbers NAME UNIT: reads pairs "ours baseline" or single numbers; prints the median and the range, and of the ratio.
numbers() { python3 bench/spread.py "$@"; }
