#!/bin/sh
# Prints the first Python on PATH that can make MLOC's virtual environment: 3.11 or newer, with venv and pip in it.
# PYTHON=... names one. When there is none, says what is missing and how to get it, and exits 1.
set -eu

usable='import sys, venv, ensurepip'
recent='import sys; sys.exit(sys.version_info < (3, 11))'
without_pip=''

# A candidate is run, not just looked up: a version switcher's shim exists for versions that are not installed.
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
    "$candidate" -c "$recent" >/dev/null 2>&1 || continue
    if "$candidate" -c "$usable" >/dev/null 2>&1; then
        command -v "$candidate"
        exit 0
    fi
    without_pip="${without_pip:-$candidate}"
done

if [ -n "$without_pip" ]; then
    version=$("$without_pip" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_pip cannot make virtual environments: its module venv or ensurepip is missing." >&2
    echo "On Debian and Ubuntu: apt-get install python$version-venv" >&2
elif [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python of version 3.11 or newer." >&2
else
    echo "MLOC needs Python 3.11 or newer; none of python3, python3.11 ... python3.14 on PATH is." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 demo" >&2
fi
exit 1
