#!/bin/sh
# Lay out a signed apt repository: packaging/apt-repo.sh [PACKAGES [FOLDER]]
#
# It has the .deb files of PACKAGES (dist/), and replaces FOLDER (dist/apt), but no folder that has
# something else. APT_KEY names the key of your GnuPG that signs. Without it, a key is made in
# build/apt-key and used again: it has no passphrase, so it is for a network of your own.
# SOURCE_DATE_EPOCH is the date of the repository.
set -eu
cd "$(dirname "$0")/.."
packages=${1:-dist}
folder=${2:-dist/apt}
suite=stable

missing=""
command -v apt-ftparchive >/dev/null || missing="apt-utils"
command -v gpg >/dev/null || missing="$missing gpg gpg-agent"
if [ -n "$missing" ]; then
    echo "missing; install it: sudo apt-get install $missing" >&2
    exit 1
fi
set -- "$packages"/*.deb
if [ ! -e "$1" ]; then
    echo "there are no packages in $packages; build them: make deb" >&2
    exit 1
fi

if [ -e "$folder" ] && [ ! -e "$folder/dorad.sources" ] && [ -n "$(ls -A "$folder")" ]; then
    echo "$folder is not empty, and no repository of dorad: name another folder" >&2
    exit 1
fi

if [ -z "${APT_KEY:-}" ]; then
    GNUPGHOME=$PWD/build/apt-key
    export GNUPGHOME
    mkdir -p "$GNUPGHOME"
    chmod 700 "$GNUPGHOME"
    trap 'gpgconf --kill all' EXIT
    if ! gpg --batch --quiet --list-secret-keys dorad-packages >/dev/null 2>&1; then
        gpg --batch --quiet --passphrase '' --quick-generate-key dorad-packages ed25519 sign never
    fi
    APT_KEY=dorad-packages
fi

# Made beside it, so that nobody sees a half of it.
new=$folder.new
rm -rf "$new"
mkdir -p "$new/pool"
cp -- "$@" "$new/pool"
architectures=$(for each in "$@"; do dpkg-deb --field "$each" Architecture; done | sort -u)
(
    cd "$new"
    for architecture in $architectures; do
        binary=dists/$suite/main/binary-$architecture
        mkdir -p "$binary"
        apt-ftparchive --arch "$architecture" packages pool >"$binary/Packages"
        gzip -9nk "$binary/Packages"
    done
    apt-ftparchive \
        -o APT::FTPArchive::Release::Origin=dorad \
        -o APT::FTPArchive::Release::Suite=$suite \
        -o APT::FTPArchive::Release::Codename=$suite \
        -o APT::FTPArchive::Release::Components=main \
        -o APT::FTPArchive::Release::Architectures="$(echo "$architectures" | tr '\n' ' ')" \
        -o APT::FTPArchive::MD5=false -o APT::FTPArchive::SHA1=false \
        release dists/$suite >Release
    mv Release dists/$suite/Release
    cd dists/$suite
    gpg --batch --quiet --local-user "$APT_KEY" --digest-algo SHA512 --clear-sign --output InRelease Release
    gpg --batch --quiet --local-user "$APT_KEY" --digest-algo SHA512 --armor --detach-sign --output Release.gpg Release
)
gpg --batch --quiet --export "$APT_KEY" >"$new/dorad.gpg"
cat >"$new/dorad.sources" <<EOF
Types: deb
URIs: https://packages.example.org/dorad
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/dorad.gpg
EOF
rm -rf "$folder"
mv "$new" "$folder"
echo "$folder: $# packages, signed by"
gpg --batch --quiet --list-keys --with-colons "$APT_KEY" | awk -F: '$1 == "fpr" { print $10; exit }'
