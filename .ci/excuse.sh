# Sourced by `run`. One test of the whole run may fail and pass when it is run again by itself: whole
# robots share two cores there with everything else. It is named at the end. A second one fails the run.

excused=""
with_one_excuse() {
    local output failed="" last=.pytest_cache/v/cache/lastfailed
    output=$(mktemp)
    # What an earlier target has left is not this one's.
    rm -f "$last"
    make "$1" 2>&1 | tee "$output" && return
    # pytest's exit code is 1 only if it has run all tests. A process of it that crashes is no excuse.
    if grep -q '^make: .* Error 1$' "$output" && ! grep -q "^worker '.*' crashed" "$output"; then
        failed=$(python3 -c 'import json, sys; print("\n".join(json.load(open(sys.argv[1]))))' "$last" 2>/dev/null) || failed=""
    fi
    # A file without the name of a test could not be collected.
    if [[ $failed != *::* || $failed == *$'\n'* || -n $excused ]]; then
        echo "--- $1 failed: ${failed:-not in a test}; excused before: ${excused:-none} ---"
        exit 1
    fi
    echo "--- $1: once more: $failed ---"
    make "$1" PYTEST_ARGS="--last-failed --last-failed-no-failures none"
    excused=$failed
}
