#!/bin/sh
# Makes a virtual environment with the pinned packages (once) and runs compare.py in it.
#
#   tests/peers/compare.sh --tune target/release/tune --shapes 4x512 1x2048 --repeats 3
#
# PEERS_VENV names the environment; default /tmp/tune-peers/venv (about 4 GB).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${PEERS_VENV:-/tmp/tune-peers/venv}
if ! "$venv/bin/python" -c 'import torch, transformers, peft, gguf, bitsandbytes' 2>/dev/null; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-deps -r "$here/requirements.txt"
fi
exec "$venv/bin/python" -W ignore "$here/compare.py" "$@"
