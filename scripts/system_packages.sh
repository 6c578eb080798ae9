#!/bin/sh
# napari needs a few system libraries on Linux, and a virtual display where there is no screen.
# As root on Debian or Ubuntu the missing ones are installed; elsewhere they are named in one sentence.
set -eu
[ "$(uname -s)" = Linux ] || exit 0

packages="xvfb xauth libegl1 libgl1 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1
libxcb-shape0 libxcb-xinerama0 libxcb-render-util0 libxcb-image0 libdbus-1-3 libfontconfig1"

if command -v dpkg-query >/dev/null 2>&1; then
    missing=""
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
    if [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
        exit 0
    fi
    echo "Missing system packages; run: sudo apt-get install$missing" >&2
    exit 1
fi

if [ -z "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && ! command -v xvfb-run >/dev/null 2>&1; then
    echo "There is no display and no xvfb-run: install Xvfb and the X11, EGL and XCB libraries that Qt 6 needs." >&2
    exit 1
fi
