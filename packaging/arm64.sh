#!/bin/sh
# Build the Debian packages for arm64 into dist/, install dorad's, and test it: packaging/arm64.sh [TEST...]
#
# Everything runs as root in a Debian for arm64 under build/arm64, whose programs qemu-user emulates.
# They are 10 to 20 times slower than on a board, so only the tests in the arguments are run (by default
# those of the data plane and of nodes), and a short torture test. They import the installed package,
# with its Python.
#
# An emulator on x86-64 has that processor's memory order, which is stronger than arm64's. It cannot
# find missing fences; `make model`'s proofs and real boards do.
set -eu
cd "$(dirname "$0")/.."

release=trixie
place=$PWD/build/arm64
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
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $needed >/dev/null
    break
done

# Without systemd the emulator is not registered with the kernel. The kernel opens it right here, so
# the chroot needs no copy.
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc binfmt_misc $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then
    tr -d '\n' </usr/lib/binfmt.d/qemu-aarch64.conf >$binfmt/register
fi

# Two of them: the libraries of the build system must not hide a missing dependency of the package.
make_root() {
    [ -e "$place/$1/ready" ] && return
    rm -rf "${place:?}/$1"
    mkdir -p "$place"
    mmdebstrap --mode=root --variant=minbase --architectures=arm64 --include="$2" \
        "$release" "$place/$1" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    touch "$place/$1/ready"
}
make_root build build-essential,ca-certificates,debhelper,dpkg-dev,lintian,python3,python3-dev,python3-venv
make_root robot ca-certificates

# Separate namespaces, so that no mount and no process outlives this script.
inside() {
    root=$place/$1
    shift
    mkdir -p "$root/src"
    unshare --mount --propagation=private --pid --fork --kill-child sh -euc '
        mount --bind "$1" "$1" # so that tests can unshare mounts of their own
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
mkdir -p "$place/src" dist
python3 packaging/version.py >/dev/null # the copy has no history
tar -c --exclude=__pycache__ --exclude=.venv dorad dorafleet packaging units tests hwtests docs pyproject.toml README.md \
    LICENSE CHANGELOG.md Makefile | tar -x -C "$place/src"

inside build sh -c 'cd /src && packaging/deb.sh'
cp "$place"/src/dist/*_arm64.deb dist/

inside robot sh -euc '
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends --reinstall /src/dist/dorad_*_arm64.deb >/dev/null
    cd /
    dora --version | grep -F "data plane: native"
    dora doctor | grep -F "PASS  memory fences"'

# The tools of the tests have a separate folder. The sources must not be importable in place of the package.
inside build sh -euc '
    rm -rf /src/tools
    python3 -m venv /opt/pip
    /opt/pip/bin/pip install --quiet --target /src/tools \
        blockbuster hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist'
inside robot sh -euc '
    rm -rf /suite
    mkdir /suite
    cp -r /src/tests /src/hwtests /src/docs /src/packaging /src/pyproject.toml /suite
    cd /suite
    site=$(echo /usr/lib/dorad/lib/python3*/site-packages)
    export PYTHONPATH=/suite:/src/tools:$site/dorad/compat PYTHONDONTWRITEBYTECODE=1
    python=/usr/lib/dorad/bin/python3
    $python -c "import dorad, platform; print(dorad.__file__, platform.machine())"
    # qemu does not know how much of a mapping is in memory, does not remove pages, and does not close
    # the descriptors of a packet that is cut off. It is too slow for a signal every 300 us.
    $python -m pytest -n 2 --timeout 900 -p no:cacheprovider --deselect tests/shm/test_mapping.py \
        --deselect tests/shm/test_create.py::test_a_mailbox_whose_pages_were_removed_can_still_be_used \
        --deselect tests/node/test_protocol.py::test_more_descriptors_than_any_packet_has_are_refused_and_closed \
        --deselect tests/node/test_signals.py::test_no_message_is_lost_to_signals_at_any_moment "$@"
    $python -m hwtests.torture --seconds 30
' sh $tests
