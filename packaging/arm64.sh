#!/bin/sh
# Build the Debian packages for arm64 into dist/, install dorad's, and test it: packaging/arm64.sh [TEST...]
#
# Everything runs as root in a Debian for arm64 in build/arm64, emulated by qemu-user, 10 to 20 times
# slower than native. So only the named tests run, by default those of the data plane and the nodes,
# and a short torture. The tests import the installed package with its own Python.
#
# An emulator on x86-64 has that processor's memory order, which is stronger than arm64's. It cannot
# find missing fences; `make model`'s proofs and real boards do.
set -eu
cd "$(dirname "$0")/.."

release=trixie
place=$PWD/build/arm64
root=$place/root
tests=${*:-tests/shm tests/node}

if [ "$(id -u)" != 0 ]; then
    echo "run this as root: sudo make arm64" >&2
    exit 1
fi
needed="mmdebstrap qemu-user qemu-user-binfmt arch-test"
for package in $needed; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed && continue
    apt-get -qq update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $needed >/dev/null
    break
done

# Without systemd the emulator is not registered with the kernel. The kernel opens it right here, so
# the chroot needs no copy.
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then
    tr -d '\n' </usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register
fi

if [ ! -e "$root/ready" ]; then
    rm -rf "$root"
    mkdir -p "$place"
    mmdebstrap --mode=root --variant=minbase --architectures=arm64 \
        --include=build-essential,ca-certificates,dbus,debhelper,dpkg-dev,iproute2,lintian,make,procps,python3,python3-venv \
        $release "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    touch "$root/ready"
fi

# Namespaces of its own, so that no mount and no process outlives this script.
inside() {
    unshare --mount --propagation=private --pid --fork --kill-child sh -euc '
        mount -t proc proc "$1/proc"
        mount -t devtmpfs dev "$1/dev"
        mkdir -p "$1/dev/shm" "$1/dev/pts"
        mount -t tmpfs -o mode=1777 shm "$1/dev/shm"
        mount -t devpts pts "$1/dev/pts"
        for file in etc/resolv.conf etc/pip.conf etc/ssl/certs/ca-certificates.crt; do
            [ -e "/$file" ] || continue
            [ -e "$1/$file" ] || { mkdir -p "$(dirname "$1/$file")"; touch "$1/$file"; }
            mount --bind "/$file" "$1/$file"
        done
        mount --bind "$2" "$1/src"
        root=$1; shift 2
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive PIP_ROOT_USER_ACTION=ignore \
            PIP_DISABLE_PIP_VERSION_CHECK=1 "$@"
    ' sh "$root" "$place/src" "$@"
}

rm -rf "$place/src"
mkdir -p "$place/src" "$root/src" dist
tar -c --exclude=__pycache__ --exclude=.venv dorad dorafleet packaging units tests hwtests docs pyproject.toml README.md \
    LICENSE CHANGELOG.md Makefile | tar -x -C "$place/src"

inside sh -c 'cd /src && packaging/deb.sh'
cp "$place"/src/dist/*_arm64.deb dist/

# The package's dependencies have to suffice: a robot has no build libraries.
depends=$(dpkg-deb --field "$(ls "$place"/src/dist/dorad_*_arm64.deb)" Depends)
case "$depends" in
*libatomic1*) ;;
*) echo "the package does not depend on libatomic1: $depends" >&2; exit 1 ;;
esac
inside sh -c 'apt-get -qq install -y --reinstall --allow-downgrades /src/dist/dorad_*_arm64.deb >/dev/null && dora --version && dora --help >/dev/null'

# The tests run in a folder without the sources, so they import the installed package.
inside sh -eu -c '
    [ -d /opt/tools ] || { python3 -m venv /opt/pip && /opt/pip/bin/pip install --quiet --target /opt/tools \
        pytest pytest-asyncio pytest-timeout pytest-xdist hypothesis blockbuster; }
    rm -rf /suite && mkdir /suite
    cp -r /src/tests /src/hwtests /src/docs /src/pyproject.toml /suite
    cd /suite
    export PYTHONPATH=/suite:/opt/tools:/usr/lib/dorad/lib/$(basename $(ls -d /usr/lib/dorad/lib/python3*))/site-packages/dorad/compat
    /usr/lib/dorad/bin/python3 -c "import dorad, platform; print(dorad.__file__, platform.machine())"
    /usr/lib/dorad/bin/python3 -m pytest -n 2 --timeout 600 -p no:cacheprovider "$@"
    /usr/lib/dorad/bin/python3 -m hwtests.torture --seconds "${TORTURE_SECONDS:-30}"
' sh $tests
