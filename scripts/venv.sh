#!/bin/sh
# Make a virtual environment with the first Python that is new enough and whole.
#   scripts/venv.sh DIRECTORY
set -eu

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
    then
        exec "$python" -m venv "$1"
    fi
done

echo "secure-cache needs Python 3.11 or newer with its venv module." >&2
echo "On Debian: apt-get install python3 python3-venv; elsewhere: make install PYTHON=/path/to/python3" >&2
exit 1
