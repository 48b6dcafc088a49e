#!/usr/bin/env bash
# Run a server in var/ and say how to point Nx at it. Ctrl-C stops it.
set -euo pipefail
cd "$(dirname "$0")/.."

port=${PORT:-8642}
directory=${DIRECTORY:-var}
config=$directory/secure-cache.toml
command=.venv/bin/secure-cache

if [ ! -e "$config" ]; then
    "$command" init "$directory"
fi

# The server's ready line comes through a pipe, so that nobody is told of an address that does not
# answer yet.
scratch=$(mktemp -d)
mkfifo "$scratch/out"
server=
stop() {
    trap '' INT TERM
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$scratch"
}
trap 'stop; exit 0' INT TERM
trap stop EXIT

# A process group of its own: Ctrl-C then reaches the server once, through `stop`, and not a second
# time from the terminal, which would cut its drain short.
set -m
"$command" serve --config "$config" --host 127.0.0.1 --port "$port" >"$scratch/out" </dev/null &
server=$!
set +m
exec 3<"$scratch/out"
if ! read -r ready <&3; then
    code=0
    wait "$server" || code=$?
    echo "make serve: the server stopped before it was ready (exit $code)" >&2
    exit 1
fi
cat <&3 &

issue() { # issue WHO...: a token; what the command says about it only where it fails
    "$command" token issue --config "$config" --project demo --ttl 12h "$@" 2>"$scratch/said" || {
        cat "$scratch/said" >&2
        return 1
    }
}
url=http://127.0.0.1:$port
main=$(issue --branch main)
pull_request=$(issue --pull-request 1 --base main)

cat <<TEXT
$ready

As the CI of branch main (trusted: it reads and writes main's entries):

  export NX_NO_CLOUD=true
  export NX_SELF_HOSTED_REMOTE_CACHE_SERVER=$url
  export NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN=$main
  npx nx run-many -t build

As the CI of pull request 1 (it reads main's entries and writes only its own):

  export NX_NO_CLOUD=true
  export NX_SELF_HOSTED_REMOTE_CACHE_SERVER=$url
  export NX_SELF_HOSTED_REMOTE_CACHE_ACCESS_TOKEN=$pull_request
  npx nx run-many -t build

The tokens are good for 12 hours. Nx asks the server only for what its local cache lacks: "npx nx
reset" empties that. Policy, keys and data are in $directory/. Ctrl-C stops the server.
TEXT

wait "$server"
