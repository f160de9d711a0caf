#!/bin/sh
# Debian and Ubuntu ship venv and the C headers apart from Python itself; this installs them where they are missing.
# Usage: scripts/python-parts.sh PYTHON
set -eu
python=$1

complete() {
    "$python" -c 'import os, sys, sysconfig, ensurepip
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "cellfleet needs Python 3.11 or newer; name one with PYTHON=..." >&2; exit 1; }
complete && exit 0
version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
packages="$version-venv $version-dev"
if command -v apt-get >/dev/null; then
    as_root=""
    [ "$(id -u)" = 0 ] || as_root="sudo"
    echo "installing $packages, which $python lacks"
    $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null || true
fi
complete || { echo "$python lacks venv or its C headers; install $packages, or name another with PYTHON=..." >&2; exit 1; }
