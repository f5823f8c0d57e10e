#!/bin/sh
# Names every tool that the build needs and that is missing, and how to get it.
# Usage: tools/prerequisites.sh [PYTHON]

python=${1:-python3}
missing=0

lacks() {
    echo "missing: $1" >&2
    echo "   get it: $2" >&2
    missing=1
}

if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.11 or newer" "Debian, Ubuntu: apt-get install python3 python3-venv"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    lacks "Python 3.11 or newer ($python is $("$python" -c 'import platform; print(platform.python_version())'))" \
        "name one with make PYTHON=python3.11, or pyenv install 3.11"
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lacks "Python's venv and ensurepip" "Debian, Ubuntu: apt-get install python3-venv"
fi

command -v cargo >/dev/null 2>&1 ||
    lacks "cargo (stable Rust, 1.88 or newer)" "rustup.rs has the installer; distributions carry older ones"
command -v cc >/dev/null 2>&1 ||
    lacks "cc (a C compiler)" "Debian, Ubuntu: apt-get install gcc libc6-dev; Fedora: dnf install gcc"
command -v c++ >/dev/null 2>&1 ||
    lacks "c++ (a C++ compiler, for the test programs)" \
        "Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++"

exit $missing
