"""Carry out the steps of the Dockerfile without Docker, and hold the server that comes out of them.

    python -m tests.docker
    python -m tests.docker --python /usr/bin/python3.11     # of an interpreter that others may run

What it does not show: that Docker itself builds the file. What differs from an image is told in
tests/docker/image.py. Carried out by root, the server runs as the user nobody.
"""

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.docker.image import Image
from tests.support.clients import ROOT, curl_of, python_of, said_by_curl, said_by_python

SECONDS = 600
"""That the server may take to be ready."""
PACKAGES = """
import importlib.metadata as metadata, json, re
from packaging.requirements import Requirement
name = lambda text: re.sub(r"[-_.]+", "-", text).lower()
there = {name(one.metadata["Name"]): one for one in metadata.distributions()}
needed, asked = set(), ["sia_jax[serve]", "jax[cpu]"]
while asked:
    wanted = Requirement(asked.pop())
    key = (name(wanted.name), frozenset(wanted.extras))
    if key not in needed:
        needed.add(key)
        for text in there[key[0]].requires or []:
            own = Requirement(text)
            if own.marker is None or any(own.marker.evaluate({"extra": e}) for e in ("", *wanted.extras)):
                asked.append(text.partition(";")[0])
import sia_jax
beside = sorted(set(there) - {key for key, _ in needed})
print(json.dumps({"count": len(there), "beside": beside, "from": sia_jax.__file__}))
"""


def main() -> None:
    """Exits with 1, and what is wrong, if the steps or the server fail."""
    parser = argparse.ArgumentParser(
        prog="tests.docker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = Path(getattr(sys, "_base_executable", sys.executable))
    parser.add_argument("--python", type=Path, default=own, help="the interpreter (default: this one)")
    args = parser.parse_args()
    # Told to end, it ends what it has started and takes away what it has made.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    root = Path(tempfile.mkdtemp(prefix="sia-image-"))
    image = Image(ROOT, root, args.python)
    try:
        root.chmod(0o755)
        began = time.monotonic()
        image.build({}, say)
        say(f"-- the steps took {time.monotonic() - began:.0f} s")
        own_user = image.seal()
        who = "the user nobody" if own_user else "this user, all but the home read-only"
        say(f"-- what runs is {who}")
        check_contents(image, own_user)
        check_refusal(image, own_user)
        check_server(image, own_user)
    except (AssertionError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"tests.docker: {error}")
    finally:
        if root.exists():
            image.unseal()
            shutil.rmtree(root)


def check_contents(image: Image, own_user: bool) -> None:
    """The packages that the server needs and no other, no sources, and two folders to write to."""
    with image.start(["python", "-c", PACKAGES], own_user) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = json.loads(out)
    assert set(found["beside"]) <= {"pip", "setuptools"}, f"packages that nobody needs: {found['beside']}"
    assert Path(found["from"]).is_relative_to(image.venv), found["from"]
    files = [path for path in image.root.rglob("*") if not path.is_relative_to(image.venv)]
    folders = sorted(str(path.relative_to(image.root)) for path in files)
    home = f"home/{image.user}"
    assert folders == ["home", home, f"{home}/compiled", f"{home}/hub", "usr"], folders
    size = sum(path.stat().st_size for path in image.root.rglob("*") if path.is_file())
    say(f"-- {found['count']} packages, {size / 1e6:,.0f} MB, and nothing beside them")


def check_refusal(image: Image, own_user: bool) -> None:
    """Without keys, and without --open, nothing is served."""
    with image.start(image.entrypoint + image.command, own_user) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, process.returncode
    assert "can be reached by others, and there are no keys" in errors, errors
    print("-- without keys it does not start")


def check_server(image: Image, own_user: bool) -> None:
    """It gets healthy, has its page, answers curl and OpenAI's client, and ends with 0 when told to."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--open", "--host", "127.0.0.1", "--port", str(port)]
    began = time.monotonic()
    process = image.start([*image.entrypoint, *options], own_user)
    said: dict[str, str] = {}
    readers = [
        threading.Thread(target=lambda n=name, f=file: said.update({n: f.read()}), daemon=True)
        for name, file in (("out", process.stdout), ("errors", process.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        checks = 0
        while not healthy(image, own_user, port):
            checks += 1
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() - began < SECONDS, f"not healthy after {SECONDS} s"
            time.sleep(1)
        assert checks, "healthy before anything was compiled"
        say(f"-- healthy after {time.monotonic() - began:.0f} s")
        page = httpx.get(f"{url}/")
        assert page.status_code == 200
        assert httpx.get(f"{url}/page/page.js").status_code == 200
        answer = json.loads(said_by_curl(curl_of(), url))
        say(f"-- curl: {answer['choices'][0]['message']['content']}")
        say(f"-- openai: {said_by_python(python_of(), url).strip()}")
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)
        assert status == 0, f"SIGTERM ended it with {status}"
    finally:
        process.kill()
        process.wait()
        for reader in readers:
            reader.join(10)
        if sys.exc_info()[0] is not None:
            print(*said.values(), sep="\n", file=sys.stderr)
    wrong = [line for line in said["errors"].splitlines() if "Traceback" in line or "warning" in line.lower()]
    assert not wrong, wrong
    compiled = {path.name.partition("-")[0] for path in (image.home / "compiled").rglob("jit_*-cache")}
    assert {"jit__window", "jit__admit"} <= compiled, f"of what it has compiled it has kept {compiled}"
    assert sorted(path.name for path in image.home.iterdir()) == ["compiled", "hub"]
    say(f"-- ended by SIGTERM with 0; kept in compiled/: {sorted(compiled)}")


def healthy(image: Image, own_user: bool, port: int) -> bool:
    """What HEALTHCHECK says."""
    words = [word.replace(f":{image.exposed}/", f":{port}/") for word in image.health]
    assert words != image.health
    with image.start(words, own_user) as process:
        process.communicate(timeout=20)
    return process.returncode == 0


def say(line: str) -> None:
    """At once, also into a file."""
    print(line, flush=True)


def free_port() -> int:
    """On the loopback."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
