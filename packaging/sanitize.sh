#!/bin/sh
# Run the tests of the data plane and of nodes with the C part and libdora_node under AddressSanitizer and
# UndefinedBehaviorSanitizer: packaging/sanitize.sh ARGUMENT-OF-PYTEST...
#
# It runs in build/sanitize, in a copy of the sources: that extension cannot be loaded
# without the sanitizer's library, so it must not be in the working tree.
set -eu
cd "$(dirname "$0")/.."

compiler=${CC:-gcc}
place=$PWD/build/sanitize
python=$PWD/.venv/bin/python
reports=$place/reports

rm -rf "$place"
mkdir -p "$reports"
tar -c --exclude=__pycache__ --exclude='*.so' dorad dorafleet tests hwtests packaging units docs \
    pyproject.toml README.md LICENSE CHANGELOG.md Makefile | tar -x -C "$place"
cd "$place"
flags="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
# shellcheck disable=SC2086 # several flags
DORAD_NATIVE=1 CC=$compiler "$python" packaging/native.py -- $flags

# Child processes of the tests inherit this environment. With PYTHONMALLOC=malloc each object has
# separate memory, so that the sanitizer detects a use after free. Leaks are not reported, because
# Python itself never frees some memory.
export DORAD_SANITIZE="$flags" DORAD_NATIVE=1 PYTHONPATH="$place:$place/dorad/compat" PYTHONMALLOC=malloc
export ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:log_path=$reports/address"
export UBSAN_OPTIONS="print_stacktrace=1:abort_on_error=1"
LD_PRELOAD=$("$compiler" -print-file-name=libasan.so)
export LD_PRELOAD
"$python" -c 'from dorad.shm import native; print(native.describe(), native.__file__)'
status=0
"$python" -m pytest -n 2 --dist worksteal --timeout 600 "$@" || status=$?

# A test that expects a process to die does not notice its report. (Undefined behaviour is reported
# on stderr, even with `log_path`, and aborts the process.)
for report in "$reports"/*; do
    [ -e "$report" ] || continue
    echo "--- $report" >&2
    head -60 "$report" >&2
    status=1
done
exit $status
