#!/bin/sh
# Build the Debian packages into dist/: packaging/deb.sh [VERSION]
#
# VERSION replaces the version of the tree, to test upgrades. As root, this installs missing build
# dependencies. The build runs in build/deb, in a copy of the sources, so the working tree is not
# changed.
set -eu
cd "$(dirname "$0")/.."

needed="build-essential debhelper dpkg-dev lintian python3 python3-dev python3-venv"
# shellcheck disable=SC2086
if ! dpkg-query -W -f '${db:Status-Status}\n' $needed 2>/dev/null | awk '$1 != "installed" { exit 1 } END { exit NR < 7 }'; then
    if [ "$(id -u)" != 0 ]; then
        echo "missing; install it: sudo apt-get install $needed" >&2
        exit 1
    fi
    echo "Installing what the build needs" >&2
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $needed >/dev/null
fi

listed=$(sed -n '1s/.*(\(.*\)).*/\1/p' packaging/debian/changelog)
version=$(python3 packaging/version.py --debian)
if [ "${listed%%[-+~]*}" != "${version%%[-+~]*}" ]; then
    echo "packaging/debian/changelog is at $listed, packaging/version.py at $version; make them agree" >&2
    exit 1
fi

version=${1:-$version}
echo "Building the Debian packages of $version, which takes two minutes and fetches 100 MB from PyPI" >&2
tree=build/deb/dorad
rm -rf build/deb
mkdir -p "$tree" dist
tar -c --exclude=__pycache__ dorad dorafleet packaging units pyproject.toml README.md LICENSE | tar -x -C "$tree"
mv "$tree/packaging/debian" "$tree/debian"
sed -i "1s/(.*)/($version)/" "$tree/debian/changelog"

(
    cd "$tree"
    umask 022
    # The caller's Python variables must not affect the build.
    unset PYTHONPATH PYTHONHOME VIRTUAL_ENV MAKEFLAGS MAKELEVEL
    # Prints dots meanwhile.
    python3 packaging/heartbeat.py sh -c 'exec dpkg-buildpackage --no-sign --build=binary >../build.log 2>&1' >&2
) || {
    tail -40 build/deb/build.log >&2
    echo "the build failed; see build/deb/build.log" >&2
    exit 1
}
echo "Checking them with lintian" >&2
for name in libdora-node1 libdora-node-dev dorafleet dorad; do
    architecture=$(dpkg --print-architecture)
    package=${name}_${version}_$architecture.deb
    # Each commit makes files of other names: dist/ holds one package of each kind.
    rm -f dist/"$name"_*~dev*_"$architecture".deb
    python3 packaging/heartbeat.py lintian --fail-on error --tag-display-limit 0 --allow-root "build/deb/$package" >&2
    mv "build/deb/$package" dist/
    echo "dist/$package"
done
rm -rf "$tree"
