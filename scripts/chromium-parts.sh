#!/bin/sh
# Prints the paths of Chromium and of its driver, one a line; installs them by apt when the machine has none.
# The tests of the fleet's pages in a browser call this (tests/support_browser.py).
set -eu

find_programs() {
    browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
    driver=$(command -v chromedriver || true)
    [ -n "$browser" ] && [ -n "$driver" ] || return 1
    echo "$browser"
    echo "$driver"
}

find_programs && exit 0
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null; then
    echo "Chromium, which the tests of the pages need, is missing; installing it" >&2
    $as_root apt-get update -qq >&2 || true
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        chromium chromium-driver fonts-noto-cjk fonts-inter >&2 || true
fi
find_programs || {
    echo "Chromium with chromedriver is missing and could not be installed: the pages are tested in a browser." >&2
    echo "Install them (Debian: apt-get install chromium chromium-driver) and run the tests again." >&2
    exit 1
}
