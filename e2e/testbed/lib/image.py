#!/usr/bin/env python3
"""Writes a container image with a single layer as a docker archive.

The same inputs give the same bytes: no clock, no user names, sorted entries.
The layer holds the given files, their parent directories, a writable /tmp, and
an /etc/passwd that knows root and nobody. There is no shell and nothing else.
"""

import argparse
import hashlib
import io
import json
import os
import tarfile

PASSWD = (
    b"root:x:0:0:root:/:/sbin/nologin\n"
    b"nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
)
GROUP = b"root:x:0:\nnobody:x:65534:\n"


def entry(name, mode, data=None):
    """A tar header without anything that differs between two builds."""
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.mtime = 0
    if data is None:
        info.type = tarfile.DIRTYPE
    else:
        info.size = len(data)
    return info


def archive(out, entries):
    """Writes {name: (mode, data or None for a directory)}, sorted by name."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(entries):
            mode, data = entries[name]
            tar.addfile(entry(name, mode, data), None if data is None else io.BytesIO(data))


def layer(files):
    entries = {
        "tmp": (0o1777, None),
        "etc/passwd": (0o644, PASSWD),
        "etc/group": (0o644, GROUP),
    }
    for source, target in files:
        with open(source, "rb") as file:
            data = file.read()
        # Only the executable bit counts: the umask of whoever built the file does not.
        mode = 0o755 if os.stat(source).st_mode & 0o100 else 0o644
        entries[target.strip("/")] = (mode, data)
    for name in list(entries):
        parent = os.path.dirname(name)
        while parent:
            entries.setdefault(parent, (0o755, None))
            parent = os.path.dirname(parent)
    buffer = io.BytesIO()
    archive(buffer, entries)
    return buffer.getvalue()


def to_json(value):
    return json.dumps(value, sort_keys=True).encode()


def copy_argument(text):
    source, separator, target = text.rpartition(":")
    if not separator or not source or not target.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not source:/target")
    return source, target


def main():
    parser = argparse.ArgumentParser(prog="testbed image", description=__doc__.splitlines()[0])
    parser.add_argument("--user", default="", help="user[:group] of the image, as numbers; default root")
    parser.add_argument("out", metavar="OUT.tar")
    parser.add_argument("reference", metavar="REF", help="the full image name with its tag")
    parser.add_argument("entrypoint", metavar="ENTRYPOINT", help="path in the image; '' for none")
    parser.add_argument("files", metavar="SRC:DST", nargs="+", type=copy_argument)
    arguments = parser.parse_args()

    content = layer(arguments.files)
    settings = {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]}
    if arguments.entrypoint:
        settings["Entrypoint"] = [arguments.entrypoint]
    if arguments.user:
        settings["User"] = arguments.user
    config = to_json({
        "architecture": "amd64",
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
        "history": [{}],
    })
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = to_json([
        {"Config": config_name, "RepoTags": [arguments.reference], "Layers": ["layer.tar"]}
    ])

    partial = f"{arguments.out}.partial-{os.getpid()}"
    try:
        with open(partial, "wb") as out:
            archive(out, {
                config_name: (0o644, config),
                "layer.tar": (0o644, content),
                "manifest.json": (0o644, manifest),
            })
        os.rename(partial, arguments.out)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


if __name__ == "__main__":
    main()
