"""Packs a release archive; `./build.sh dist` calls it.

    python3 tools/dist/pack.py TARGET BINARY FILES COMMAND OUT

FILES is what `brooklet dist-files` has written, COMMAND what a desktop begins, OUT the folder of archives. The same
commit and the same binary give the same bytes: names in order, times of the commit, nobody's user.
"""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LICENCES = ("license", "licence", "copying", "notice", "unlicense", "copyright")


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout


def third_party(metadata):
    """The licences of every crate that the binary is made of: each text once, with those that it is of."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, left = set(), [root]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.add(one)
        for dependency in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    found.discard(root)
    crates = sorted((packages[one] for one in found), key=lambda package: (package["name"], package["version"]))
    texts = defaultdict(list)
    lines = []
    for crate in crates:
        name = f"{crate['name']} {crate['version']}"
        lines.append(f"{name}: {crate['license'] or 'see its file'}")
        for path in sorted(Path(crate["manifest_path"]).parent.iterdir()):
            if path.is_file() and path.name.lower().startswith(LICENCES):
                texts[path.read_text("utf8", "replace").strip()].append(name)
    parts = ["brooklet is made of these crates too, by their licences:", "\n".join(lines)]
    for text, names in texts.items():
        parts.append(f"{'-' * 100}\nOf {', '.join(names)}:\n\n{text}")
    return "\n\n".join(parts) + "\n"


def contents(target, binary, files, command, metadata):
    """What is in the archive: a path within it, with its bytes and whether it is run, or a link."""
    version = next(p["version"] for p in metadata["packages"] if p["id"] == metadata["resolve"]["root"])
    words = {"@COMMAND@": command, "@TERMINAL@": "false" if command == "app" else "true", "@VERSION@": version}

    def filled(name):
        text = (HERE / name).read_text("utf8")
        for word, value in words.items():
            text = text.replace(word, value)
        return text.encode()

    inside = {name: ((ROOT / name).read_bytes(), False) for name in ("README.md", "LICENSE-APACHE", "LICENSE-MIT")}
    inside["THIRD-PARTY.txt"] = (third_party(metadata).encode(), False)
    made = {path.relative_to(files).as_posix(): path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}
    inside |= {name: (data, False) for name, data in made.items() if name.startswith("completions/")}
    program = (binary.read_bytes(), True)
    if "windows" in target:
        inside["brooklet.exe"] = program
        inside["brooklet.ico"] = (made["brooklet.ico"], False)
        inside["Add-to-Start-Menu.ps1"] = (filled("Add-to-Start-Menu.ps1").replace(b"\n", b"\r\n"), False)
        return version, inside
    inside |= {f"share/{name}": (data, False) for name, data in made.items() if name.startswith("man/")}
    if "apple" in target:
        bundle = "brooklet.app/Contents"
        inside[f"{bundle}/Info.plist"] = (filled("Info.plist"), False)
        inside[f"{bundle}/MacOS/brooklet"] = program
        inside[f"{bundle}/MacOS/open-brooklet"] = (filled("open-brooklet"), True)
        inside[f"{bundle}/Resources/brooklet.icns"] = (made["brooklet.icns"], False)
        inside["brooklet"] = f"{bundle}/MacOS/brooklet"
    else:
        inside["brooklet"] = program
        inside["share/applications/brooklet.desktop"] = (filled("brooklet.desktop"), False)
        inside |= {f"share/{name}": (data, False) for name, data in made.items() if name.startswith("icons/")}
    return version, inside


def write_tar(path, folder, inside, at):
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, at) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, what in sorted(inside.items()):
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.mtime = at
                if isinstance(what, str):
                    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, what, 0o777
                    archive.addfile(entry)
                    continue
                data, runs = what
                entry.size, entry.mode = len(data), 0o755 if runs else 0o644
                archive.addfile(entry, io.BytesIO(data))


def write_zip(path, folder, inside, at):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (data, runs) in sorted(inside.items()):
            entry = zipfile.ZipInfo(f"{folder}/{name}", time.gmtime(at)[:6])
            entry.external_attr = (0o755 if runs else 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def main():
    target, binary, files, command, out = sys.argv[1:]
    at = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    version, inside = contents(target, Path(binary), Path(files), command, metadata)
    folder = f"brooklet-{version}-{target}"
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if "windows" in target:
        archive = out / f"{folder}.zip"
        write_zip(archive, folder, inside, at)
    else:
        archive = out / f"{folder}.tar.gz"
        write_tar(archive, folder, inside, at)
    archives = sorted(path for path in out.iterdir() if path.name.endswith((".zip", ".tar.gz")))
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in archives]
    (out / "SHA256SUMS").write_text("".join(sums), "utf8")
    print(archive)


main()
