#!/usr/bin/env bash
# A private PostgreSQL for tests: `start DIR` prints its URL, `stop DIR` ends it and removes DIR. `crash DIR` ends it as
# if the power had failed; the next start finds it at the same URL.
set -euo pipefail

usage() {
    echo "usage: $0 start|crash|stop DIR" >&2
    exit 2
}
[ $# -eq 2 ] || usage
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

bin=$(command -v pg_ctl || true)
if [ -n "$bin" ]; then
    bin=$(dirname "$(readlink -f "$bin")")
else
    bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
fi
if [ -z "$bin" ] || [ ! -x "$bin/initdb" ]; then
    echo "$0: no PostgreSQL server programs; install the package postgresql" >&2
    exit 1
fi

# PostgreSQL refuses to run as root.
as_owner() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@")
    else
        "$@"
    fi
}

start() {
    if as_owner "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; then
        cat "$dir/url"
        return
    fi
    if [ "$(id -u)" -eq 0 ]; then
        chown postgres: "$dir"
        chmod 0755 "$dir"
    fi
    if [ ! -d "$dir/data" ]; then
        as_owner "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C >"$dir.initdb.log" 2>&1 ||
            { cat "$dir.initdb.log" >&2; exit 1; }
        rm -f "$dir.initdb.log"
    fi
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((20000 + RANDOM % 12000))
        if [ -f "$dir/url" ]; then
            port=$(sed 's/.*:\([0-9]*\)\/.*/\1/' "$dir/url")
        fi
        if as_owner "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 30 start -o \
            "-p $port -k $dir -c listen_addresses=127.0.0.1 -c max_connections=300 -c fsync=on" >/dev/null 2>&1; then
            echo "postgres://postgres@127.0.0.1:$port/postgres" | tee "$dir/url"
            return
        fi
    done
    cat "$dir/server.log" >&2
    exit 1
}

crash() {
    as_owner "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null
}

stop() {
    if [ -d "$dir/data" ]; then
        crash 2>&1 || true
    fi
    rm -rf "$dir"
}

case $verb in
start) start ;;
crash) crash ;;
stop) stop ;;
*) usage ;;
esac
