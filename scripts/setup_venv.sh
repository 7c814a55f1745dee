#!/usr/bin/env bash
# Makes .venv and installs the plugin, its tests and EasyEdit's PyPI release into it.
# Safe to interrupt and to run again: what is already there is not fetched twice.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed; found $("$python" --version). Set PYTHON=..." >&2
    exit 2
fi
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    # Debian ships Python without ensurepip unless python3-venv is installed.
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv" .virtualenv
        "$python" -m pip install -q --target .virtualenv virtualenv || {
            echo "No venv module and no pip: run 'apt install python3-venv' and try again." >&2
            exit 2
        }
        PYTHONPATH=.virtualenv "$python" -m virtualenv -q "$venv"
        rm -rf .virtualenv
    fi
fi
echo "Installing into $venv (torch alone is about 2 GB; once only) ..."
"$venv/bin/python" -m pip install -q --progress-bar off -c requirements/constraints.txt \
    -e '.[easyedit,plots,data,dev]'
"$venv/bin/python" -m pip install -q --progress-bar off --no-deps easyeditor==0.0.1.dev0
touch "$venv/.installed"
