#!/usr/bin/env bash
# Whether what is in a release archive works, as far as the tools of this system can tell:
#     bash tools/dist/check.sh ARCHIVE TARGET HOST
set -euo pipefail

archive=$1 target=$2 host=$3
say() { printf 'tools/dist/check.sh: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}
has() { command -v "$1" >/dev/null; }

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT
case $archive in
*.zip) python3 -m zipfile -e "$archive" "$scratch" ;;
*) tar -xzf "$archive" -C "$scratch" ;;
esac
cd -- "$scratch"/brooklet-*

for shell in bash:brooklet.bash zsh:_brooklet fish:brooklet.fish; do
    has "${shell%%:*}" || { say "${shell%%:*} is not installed: its completions were not read" && continue; }
    "${shell%%:*}" -n "completions/${shell#*:}" || die "completions/${shell#*:} is no script of ${shell%%:*}; see above"
done
if [ -d share/man ] && has man && man --version >/dev/null 2>&1; then
    for page in share/man/man1/*.1; do
        # groff's complaints; mandoc, which Macs have, has no such option
        complaints=$(LC_ALL=C.UTF-8 man --warnings -l "$page" 2>&1 >/dev/null) || true
        [ -z "$complaints" ] || [ "$(uname -s)" = Darwin ] || die "$page: $complaints"
    done
fi
if [ -e share/applications/brooklet.desktop ] && has desktop-file-validate; then
    desktop-file-validate share/applications/brooklet.desktop || die "the desktop file is not valid; see above"
fi
if [ -e brooklet.app ] && has plutil; then plutil -lint -s brooklet.app/Contents/Info.plist; fi

said=
case $target in
"$host") said=$(./brooklet --version) ;;
*-windows-gnu)
    # Debian keeps it out of the way where the command "wine" is not installed.
    for wine in wine64 wine /usr/lib/wine/wine64; do
        has "$wine" || continue
        said=$(WINEDEBUG=-all WINEPREFIX=$scratch/wine "$wine" ./brooklet.exe --version 2>/dev/null | tr -d '\r') ||
            say "$wine does not start it (an older Wine has no bcryptprimitives.dll)"
        break
    done
    ;;
aarch64-*-linux-*) if has qemu-aarch64-static; then said=$(qemu-aarch64-static -L /usr/aarch64-linux-gnu ./brooklet --version); fi ;;
esac
case $said in
'brooklet '[0-9]*) say "the binary says: $said" ;;
'') say "the binary was not run: it is for another system" ;;
*) die "the binary does not say its version, but: $said" ;;
esac
if has readelf && [ -e brooklet ] && [[ $target == *-linux-gnu ]]; then
    say "it needs glibc $(readelf -V brooklet | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1 | cut -d _ -f 2) or newer"
fi
