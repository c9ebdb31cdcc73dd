#!/bin/sh
# Build the Debian packages for arm64 into dist/, install dorad's there, and try it: packaging/arm64.sh [TEST...]
#
# All of it runs as root in a Debian for arm64 under build/arm64, whose programs qemu-user emulates:
# 10 to 20 times slower than they are, so only the tests that are named are run, by default the data
# plane's, the nodes' and a short torture. The tests import the installed package, by its Python.
#
# An emulator on x86-64 keeps that processor's order of memory, which is stronger than arm64's: that
# fences are missing is found by `make model`'s proofs and on real boards, not here.
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

# Where no systemd has told the kernel of the emulator. The kernel opens it here and now, so the
# chroot needs none.
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

# Namespaces of its own, so that nothing that is mounted or started here outlives this.
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

# What the package says it needs has to be enough: the build's own libraries are no help to a robot.
depends=$(dpkg-deb --field "$(ls "$place"/src/dist/dorad_*_arm64.deb)" Depends)
case "$depends" in
*libatomic1*) ;;
*) echo "the package does not depend on libatomic1: $depends" >&2; exit 1 ;;
esac
inside sh -c 'apt-get -qq install -y --reinstall --allow-downgrades /src/dist/dorad_*_arm64.deb >/dev/null && dora --version && dora --help >/dev/null'

# The sources stay out of the way of the installed package.
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
