"""Leaves the release the migrations it knows: one for each release up to its own; the third one's is left out later."""

import os
import pathlib

release = int(os.environ["RELEASE"])
for file in pathlib.Path("migrations/versions").glob("*.py"):
    if int(file.name[:4]) > release or (file.name.startswith("0003") and release != 3):
        file.unlink()
