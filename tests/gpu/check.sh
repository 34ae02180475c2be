#!/bin/sh
# Everything that only a machine with a card can show, in one command; offline, with python3 and the binary alone.
#
#   tests/gpu/check.sh --tune target/release/tune --device cuda:0
#
# Ends in a table and check.json. Where torch and PEFT are installed for the python3 that PEERS_PYTHON names, they train beside it.
set -eu
exec python3 "$(dirname "$0")/check.py" "$@"
