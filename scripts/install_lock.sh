#!/bin/sh
# Installs a lock file into an environment, and says so in one line.
#
#   install_lock.sh ENVIRONMENT LOCK
#
# Makes the environment, for the interpreter in PYTHON, unless there is a working one. Runs uv from
# .uv, whose messages are shown only if it fails. A terminal shows the seconds as they go by.

set -u

environment=$1
lock=$2
uv=.uv/bin/uv
label="Installing $lock into $environment"

install() {
    if ! "$environment/bin/python" -c "" 2>/dev/null; then
        # By its own path, since PYTHON may be a shim of pyenv.
        interpreter=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') || return
        "$uv" venv --quiet --clear "$environment" --python "$interpreter" || return
    fi
    # What builds pyspark, which comes as source, is held to the lock as well. In place of this
    # shell, so that Ctrl-C ends uv.
    exec "$uv" pip sync --no-progress --python "$environment/bin/python" --require-hashes \
        --build-constraints requirements/lock.txt "$lock"
}

messages=$(mktemp) || exit
trap 'rm -f "$messages"' EXIT
trap 'kill "$work" 2>/dev/null; exit 130' INT TERM

started=$(date +%s)
seconds() { echo $(($(date +%s) - started)); }

install >"$messages" 2>&1 &
work=$!
if [ -t 1 ]; then
    while kill -0 "$work" 2>/dev/null; do
        printf '\r%s: %d s ' "$label" "$(seconds)"
        sleep 1
    done
    printf '\r'
else
    echo "$label"
fi
if ! wait "$work"; then
    printf '\n' && cat "$messages" >&2
    exit 1
fi
packages=$(find "$environment" -maxdepth 4 -name '*.dist-info' | wc -l)
echo "$label: $((packages)) packages in $(seconds) s"
