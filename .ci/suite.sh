# cargo_test ARGUMENTS: calls `cargo test`, or only builds the tests if the variable BUILD_ONLY is set.
cargo_test() { cargo test ${BUILD_ONLY:+--no-run} "$@"; }
# suite RUN [SELECTION]: calls RUN, which is `cargo test` in some way, with a selection of tests. Some tests measure time, which
# other programs take away: a program with a failed test runs once more, alone, and that run decides.
suite() {
    local run=$1 output failed program
    shift
    output=$(mktemp)
    if $run --no-fail-fast "$@" 2>&1 | tee "$output"; then
        rm "$output"
        return
    fi
    failed=$(sed -n 's/^    `\(-p .*\)`$/\1/p' "$output")
    rm "$output"
    [ -n "$failed" ]
    while read -r program; do
        printf '=== once more: %s\n' "$program"
        # shellcheck disable=SC2086 # Several words.
        $run $program </dev/null
    done <<<"$failed"
}
