#!/usr/bin/env bash
# The README's commands, as a new user types them: in a clean clone of HEAD, with an empty cache folder, on the driver that
# setup finds or installs, every option as it is by default but a number of tokens to end after.
#
#     bash tests/readme.sh [--release]
#
# The binary is made as the tests' is, from the dependencies that theirs have; with --release it is the very build that a
# user waits for, which takes all of them anew.
set -euo pipefail
case "$*" in
'') export BROOKLET_DEV=1 ;;
--release) unset BROOKLET_DEV ;;
*) echo "usage: tests/readme.sh [--release]" >&2 && exit 2 ;;
esac

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
target=$CARGO_TARGET_DIR/readme
tokens=32

say() { printf 'tests/readme.sh: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# What a shell would run of a fenced block `sh`: lines without their comments. Blocks are numbered from 1.
blocks() {
    awk '/^```sh$/ { inside = 1; block++; next } /^```/ { inside = 0 } inside { sub(/[ \t]+#.*$/, ""); if ($0 != "") print block "\t" $0 }' "$1"
}

git -C "$root" rev-parse --quiet --verify HEAD >/dev/null || die "$root is no git clone: there is no HEAD to try the README of"
[ -z "$(git -C "$root" status --porcelain)" ] || say "what is not committed is not in the clone"
# What a clean clone holds and nothing else. Files that are as they were keep their times: what was built of them is found again.
clone=$target/clone
git init --quiet "$clone"
git -C "$clone" fetch --quiet --depth 1 "file://$root" HEAD
git -C "$clone" checkout --quiet --force --detach FETCH_HEAD
git -C "$clone" clean --quiet -ffdx

run='./build.sh run -- -p "Once upon a time"'
test='./build.sh test'
first=$(blocks "$clone/README.md" | awk -F '\t' -v run="$run" '$2 == run { print $1; exit }')
[ -n "$first" ] || die "no block of the README has the line: $run"
found=$(blocks "$clone/README.md" | awk -F '\t' -v block="$first" '$1 == block { print $2 }')
[ "$found" = "$run"$'\n'"$test" ] || die "the README's two commands are no longer those that are tried here: $found"
# `test` would begin this anew. It is what CI runs, word for word.
grep -qxF "step $test" "$clone/.ci/run" || die ".ci/run does not run the README's second command: $test"
# What other blocks say of build.sh is at least a command of it.
blocks "$clone/README.md" | cut -f 2 | sed -n 's|^\./build\.sh \([a-z]*\).*|\1|p' | while read -r command; do
    "$clone/build.sh" help | grep -q "^  $command " || die "the README has ./build.sh $command, which is no command"
done

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
code=0
say "$run -n $tokens"
(
    cd -- "$clone"
    unset BROOKLET_ADAPTER BROOKLET_BINARY VK_DRIVER_FILES VK_ICD_FILENAMES
    export BROOKLET_CACHE=$scratch/cache MESA_SHADER_CACHE_DIR=$scratch/mesa
    mkdir -- "$BROOKLET_CACHE" "$MESA_SHADER_CACHE_DIR"
    eval "$run -n $tokens"
) >"$scratch/stdout" 2>"$scratch/stderr" </dev/null || code=$?
cat -- "$scratch/stderr" >&2
[ "$code" = 0 ] || die "it ended with exit code $code; see above"
grep -q '[[:alpha:]]' "$scratch/stdout" || die "it printed no text: $(cat -- "$scratch/stdout")"
grep -Eq "^generated +$tokens tokens, [0-9.]+ tokens/s" "$scratch/stderr" || die "it printed no statistics of $tokens tokens"
say "it printed: $(cat -- "$scratch/stdout")"
