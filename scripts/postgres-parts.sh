#!/bin/sh
# Prints the folder of PostgreSQL's server programs (initdb, postgres); installs them by apt when the machine has none.
# The tests of the fleet server call this (tests/support_postgres.py) and start their own server on loopback.
set -eu

find_programs() {
    for folder in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -n -r) \
        /opt/homebrew/opt/postgresql*/bin "$(dirname -- "$(command -v initdb || echo /nowhere/initdb)")"; do
        if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
            echo "$folder"
            return 0
        fi
    done
    return 1
}

find_programs && exit 0
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null; then
    echo "PostgreSQL, which the tests need, is missing; installing it" >&2
    $as_root apt-get update -qq >&2 || true
    # No cluster of its own: the tests make one in a temporary folder.
    $as_root mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2 || true
fi
find_programs || {
    echo "PostgreSQL is missing and could not be installed: the fleet server's tests run on SQLite and on PostgreSQL." >&2
    echo "Install PostgreSQL (Debian, Ubuntu: apt-get install postgresql) and run them again." >&2
    exit 1
}
