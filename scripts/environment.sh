# shellcheck shell=bash
# Make the environment of this checkout, or find that it is there already.
#
#   source scripts/environment.sh      (the other scripts do; nobody runs it by hand)
#
# Sets   checkout   the folder that holds pyproject.toml
#        python     the interpreter in .venv, with the relay and its tools installed
# Gives  need_programs PROGRAM=PACKAGE…   installs Debian packages when root, otherwise says what is missing
#
# Nothing is installed while scripts/constraints.txt and pyproject.toml are as they were the last time. Several
# runs at once wait for each other. An installation that was interrupted, or a checkout that has moved, is redone.

checkout="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
python="$checkout/.venv/bin/python"

say() { printf '%s\n' "$*" >&2; }

# Runs a command while no other run does. The lock is on the folder itself, so that it leaves no file behind.
locked() {
    exec 9<"$checkout"
    flock 9
    "$@"
    exec 9<&-
}

# A Python of 3.11 or newer that can make environments. The one it was developed with comes first.
find_python() {
    local candidate
    for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
    done
    say "No Python 3.11 or newer with its venv module was found (Debian: apt-get install python3 python3-venv)."
    return 1
}

install_debian_packages() {
    local policy=/usr/sbin/policy-rc.d result=0
    # The packages are wanted for their programs; no service of theirs shall start on this machine.
    if [ -e "$policy" ]; then policy=""; else printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"; fi
    {
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
                -o DPkg::Lock::Timeout=300 "$@"
    } >/dev/null 2>&1 9<&- || result=1
    [ -z "$policy" ] || rm -f "$policy"
    return "$result"
}

# Each argument is PROGRAM=PACKAGE. Returns 1, having said which, if a program is still missing at the end.
need_programs() {
    local pair packages=() missing=()
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || packages+=("${pair##*=}")
    done
    [ "${#packages[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing ${packages[*]} …"
        locked install_debian_packages "${packages[@]}" || say "apt-get could not install ${packages[*]}."
    fi
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || missing+=("${pair%%=*} (package ${pair##*=})")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    say "Missing: ${missing[*]}. As root: apt-get install ${packages[*]}"
    return 1
}

install_environment() {
    local stamp="$checkout/.venv/installed-from" wanted base
    wanted="$checkout $(cat "$checkout/scripts/constraints.txt" "$checkout/pyproject.toml" | sha256sum)"
    if [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return 0; fi
    say "Making the environment in .venv (once; a minute or two) …"
    # Scripts in .venv hold its path: after a move of the checkout it is made anew.
    if ! "$python" -m pip --version >/dev/null 2>&1 ||
        { [ -e "$stamp" ] && [ "$(cut -d ' ' -f 1 "$stamp")" != "$checkout" ]; }; then
        base="$(find_python)"
        "$base" -m venv --clear "$checkout/.venv"
    fi
    rm -f "$stamp"
    # setuptools and wheel first, from the same list: the build then takes them instead of fetching newer ones.
    run_pip setuptools wheel
    install_relay test
    printf '%s\n' "$wanted" >"$stamp"
}

# Always as it lies here: a copy would go on being run when the code has changed.
install_relay() {
    run_pip --no-build-isolation --editable "$checkout[$1]"
}

run_pip() {
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --constraint "$checkout/scripts/constraints.txt" "$@"
}

locked install_environment
