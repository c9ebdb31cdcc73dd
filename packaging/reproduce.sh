#!/bin/sh
# Build the packages twice, in two folders and time zones, and compare: packaging/reproduce.sh
set -eu
cd "$(dirname "$0")/.."

python3 packaging/version.py >/dev/null # the copies have no history
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for place in one another/one; do
    tree=$scratch/$place/tree
    mkdir -p "$tree"
    tar -c --exclude=__pycache__ dorad dorafleet packaging units pyproject.toml README.md LICENSE | tar -x -C "$tree"
done
TZ=UTC "$scratch/one/tree/packaging/deb.sh"
TZ=Asia/Tokyo "$scratch/another/one/tree/packaging/deb.sh"
for package in "$scratch"/one/tree/dist/*.deb; do
    cmp "$package" "$scratch/another/one/tree/dist/${package##*/}"
    echo "both builds of ${package##*/} are equal: $(sha256sum "$package" | cut -c1-64)"
done
