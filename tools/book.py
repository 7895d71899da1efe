"""Takes the novel that perplexity is measured on out of the R package janeaustenr.

usage: book.py Rdata.rdb SHA256 > book.txt

The file is one compressed object after another, each a novel as lines of at most 80 letters. The one wanted is
known by the sha256 of its text: a paragraph a line, an empty line between two.
"""

import hashlib
import re
import struct
import sys
import zlib


def novels(packed: bytes):
    at = 0
    while at < len(packed):
        # four bytes of length, then zlib
        stream = zlib.decompressobj()
        novel = stream.decompress(packed[at + 4 :])
        at = len(packed) - len(stream.unused_data)
        yield "\n".join(lines(novel))


def lines(novel: bytes):
    """Of R's serialised vector of strings: a header with the encoding's name, type and count, then each string."""
    at = 18 + struct.unpack_from(">I", novel, 14)[0]
    _, count = struct.unpack_from(">II", novel, at)
    at += 8
    for _ in range(count):
        _, length = struct.unpack_from(">II", novel, at)
        yield novel[at + 8 : at + 8 + length].decode()
        at += 8 + length


def main():
    path, wanted = sys.argv[1:]
    with open(path, "rb") as file:
        packed = file.read()
    for novel in novels(packed):
        paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", novel))
        text = ("\n\n".join(part for part in paragraphs if part) + "\n").encode()
        if hashlib.sha256(text).hexdigest() == wanted:
            sys.stdout.buffer.write(text)
            return
    sys.exit(f"{path}: none of its texts has the sha256 {wanted}")


main()
