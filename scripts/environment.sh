# Sourced by scripts/test and scripts/demo: the one place that makes .venv and installs qnas into it.
#
# ensure_environment EXTRAS  makes .venv with the extras of pyproject.toml at the versions of constraints.txt, and
#                            again only after one of those two files has changed.
# CI             where it is set, the files of requirements.lock and no others, if that was made on such a platform
# QNAS_PYTHON    the interpreter that makes .venv (default: python3)
# QNAS_PIP_ARGS  more arguments for pip install, for instance another index; see CONTRIBUTING.md

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
python="$root/.venv/bin/python"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

make_venv() {
    local base=${QNAS_PYTHON:-python3}
    command -v "$base" >/dev/null || fail "$base not found: install Python 3.11 or newer, or set QNAS_PYTHON"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$base is $("$base" -V 2>&1), too old: qnas needs Python 3.11 or newer; set QNAS_PYTHON to one"
    echo "== environment: .venv from $("$base" -V 2>&1)"
    "$base" -m venv --clear .venv || fail "$base cannot make .venv (on Debian and Ubuntu: apt install python3-venv)"
}

pip_install() {
    # shellcheck disable=SC2086  # QNAS_PIP_ARGS is a list of words
    "$python" -m pip install -qq --disable-pip-version-check ${QNAS_PIP_ARGS:-} "$@"
}

locked_here() {
    [ "$(head -n 1 requirements.lock)" = "# $("$python" -c 'import scripts.supply_chain as made; print(made.HERE)')" ]
}

ensure_environment() {
    local extras=$1 fingerprint stamp started=$SECONDS locked=
    "$python" -m pip --version >/dev/null 2>&1 || make_venv
    if [ -n "${CI:-}" ] && locked_here; then
        locked=yes
        extras=all,dev # what the lock holds
    fi
    # The editable install remembers this folder, so a moved checkout is installed again.
    fingerprint=$(printf '%s\n' "$root" | cat - pyproject.toml constraints.txt requirements.lock | cksum)
    for stamp in "$extras" all,dev; do # all,dev holds every other set
        [ "$(cat ".venv/stamp-$stamp" 2>/dev/null)" = "$fingerprint" ] && return
    done
    echo "== environment: installing qnas[$extras] into .venv; the first time takes some minutes"
    if [ -n "$locked" ]; then
        pip_install --require-hashes --no-deps -r requirements.lock && pip_install --no-deps --no-build-isolation -e .
    else
        pip_install -c constraints.txt -e ".[$extras]"
    fi || fail "pip install failed, see above; CONTRIBUTING.md tells about indexes"
    echo "$fingerprint" >".venv/stamp-$extras"
    echo "== environment: ready after $((SECONDS - started)) s"
}
