"""Copy a model's files, then hash the copy: the least that a checked rebuild can cost.

    python scripts/benchmark/copy_and_sha256.py MODEL OUT

One file after the other, by the kernel's own copying and OpenSSL's SHA-256. It imports
nothing that it does not need, so that its start costs next to nothing.
"""

import hashlib
import shutil
import sys
from pathlib import Path

model, out = map(Path, sys.argv[1:])
if model.is_file():
    out.mkdir()
    shutil.copyfile(model, out / model.name)
else:
    shutil.copytree(model, out)
for path in sorted(out.rglob("*")):
    if path.is_file():
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
