"""Checks the image, as root on Debian. Takes 2 to 5 minutes, and leaves nothing behind."""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # comes with BentoML, without types

from deploy.check_image.asking import LARGE_BODY_MB, ask, large_images, received, timed
from deploy.check_image.image import make_image
from deploy.check_image.podman import (
    NAME,
    REPOSITORY,
    TAG,
    CommandError,
    Podman,
    end_once,
    run,
    work_folder,
)
from deploy.check_image.telling import FAILED, check, tell

MAX_IMAGE_MB = 470
LARGE_BODIES = 12  # near MAX_BYTES_HELD
LOCK = "requirements-image.txt"
LIST_PACKAGES = """
from importlib.metadata import distributions
for one in distributions():
    print(f"{one.name}=={one.version}")
"""
TOOLS = ("podman", "runc", "debootstrap")


def load(file: str) -> dict[str, Any]:
    """Return a manifest of this folder."""
    manifest: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy" / file).read_text())
    return manifest


def as_in_kubernetes() -> list[str]:
    """Return podman's options for what the Deployment asks of a node."""
    pod = load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = {**pod["securityContext"], **container["securityContext"]}
    memory = container["resources"]["limits"]["memory"].removesuffix("i").lower()
    return [
        f"--user={security['runAsUser']}:{security['runAsGroup']}",
        f"--read-only={security['readOnlyRootFilesystem']}".lower(),
        "--read-only-tmpfs=false",
        f"--security-opt=no-new-privileges={not security['allowPrivilegeEscalation']}".lower(),
        f"--memory={memory}",
        *(f"--cap-drop={name}" for name in security["capabilities"]["drop"]),
        *(f"--tmpfs={mount['mountPath']}" for mount in container["volumeMounts"]),
        *(f"--env={variable['name']}={variable['value']}" for variable in container["env"]),
    ]


def check_contents(podman: Podman) -> None:
    """Check what is in the image, in a container that runs."""
    size = int(podman("image", "inspect", TAG, "--format={{.Size}}")) / 1e6
    check(f"smaller than {MAX_IMAGE_MB} MB", size < MAX_IMAGE_MB, f"{size:.0f} MB")
    user = podman.execute("id", "-u")
    check("not root", user == "1034", f"user {user}")
    refusal = podman.fails("exec", NAME, "touch", "/home/bentoml/bento/file")
    check("works with a read-only root", "Read-only" in refusal, refusal.splitlines()[-1:])
    tools = podman.execute("sh", "-c", "command -v gcc cc make git || true")
    check("no compilers", not tools, tools or "none")
    license_ = podman.execute("sh", "-c", "cat /home/bentoml/bento/src/LICENSE || true")
    inside = license_ == (REPOSITORY / "LICENSE").read_text().rstrip()
    check("LICENSE inside", inside, f"{len(license_)} characters")
    environment = podman.execute("cat", "/proc/1/environ").split("\0")
    check("no usage report", "BENTOML_DO_NOT_TRACK=True" in environment, "BENTOML_DO_NOT_TRACK")
    pins = re.findall(r"^\S+==\S+", (REPOSITORY / LOCK).read_text(), re.MULTILINE)
    listed = podman.execute("/app/.venv/bin/python", "-c", LIST_PACKAGES).split()
    differing = {
        one
        for one in canonical(listed) ^ canonical(pins)
        if not one.startswith("bentoml==")  # comes in the version that builds
    }
    check(f"versions are those of {LOCK}", not differing, differing or f"{len(pins)} packages")


def canonical(pins: Iterable[str]) -> set[str]:
    """Return pins with names as the index spells them."""
    return {re.sub(r"[-_.]+(?=.*==)", "-", pin).lower() for pin in pins}


def check_environment(podman: Podman, port: int) -> None:
    """Check an image that the environment sets up, as in Kubernetes."""
    variables = ("--env=EMULATOR_TTFT_MS=700", "--env=EMULATOR_RPM=3")
    with podman.running(port, *as_in_kubernetes(), *variables, command=["serve"]):
        check_contents(podman)
        workers = set(re.findall(r"--worker-id (\d+)", podman("top", NAME, "args")))
        check("EMULATOR_WORKERS=1: one worker", workers == {"1"}, f"workers {sorted(workers)}")
        health = load("compose.yaml")["x-emulator"]["healthcheck"]["test"]
        test = [word.replace(":3000", f":{port}") for word in health[1:]]
        failure = podman.fails("exec", NAME, *test)
        check("compose's health check passes", not failure, failure or "exit code 0")
        seen_s = timed(port)
        check("EMULATOR_TTFT_MS=700 counts", seen_s >= 0.7, f"{seen_s * 1000:.0f} ms")
        statuses = [ask(port).status for _ in range(3)]
        check("EMULATOR_RPM=3: the 4th is refused", statuses == [200, 200, 429], statuses)


def check_arguments(podman: Podman, port: int) -> None:
    """Check an image that arguments set up, its memory and its end."""
    command = ["serve", "--arg", "ttft_ms=300"]
    options = [*as_in_kubernetes(), "--env=EMULATOR_TTFT_MS=700"]
    with podman.running(port, *options, command=command):
        seen_s = timed(port)
        check("--arg ttft_ms=300 wins", 0.3 <= seen_s < 0.7, f"{seen_s * 1000:.0f} ms")
        statuses = large_images(port, LARGE_BODIES)
        memory = podman("stats", "--no-stream", "--format={{.MemUsage}}", NAME)
        claim = f"the memory is enough for {LARGE_BODIES} bodies of {LARGE_BODY_MB} MB at once"
        check(claim, statuses == [200] * LARGE_BODIES, f"{statuses}, then {memory}")
        answer = ask(port, X_OUTPUT_LENGTH="60", X_ITL_MS="200")
        grace = load("compose.yaml")["x-emulator"]["stop_grace_period"].removesuffix("s")
        stopping = threading.Thread(target=podman, args=("stop", f"--time={grace}", NAME))
        stopping.start()
        start_s = time.monotonic()
        text = received(answer)
        seen = f"[DONE] after {time.monotonic() - start_s:.0f} s"
        check("a stream survives stop", text.rstrip().endswith("data: [DONE]"), seen)
        stopping.join()
        code = podman("inspect", NAME, "--format={{.State.ExitCode}}")
        check("ends by itself", code == "0", f"exit code {code}")


def check_refusals(podman: Podman) -> None:
    """Check that settings that are wrong stop the start."""
    for options, command, named in (
        (["--env=EMULATOR_TTFT_MS=-1"], ["serve"], "EMULATOR_TTFT_MS=-1"),
        (["--env=EMULATOR_TTFT=1"], ["serve"], "EMULATOR_TTFT_MS"),
        ([], ["serve", "--arg", "ttft_ms=-1"], "--arg ttft_ms=-1"),
    ):
        message = podman.fails("run", "--rm", "--timeout=20", *options, TAG, *command)
        seen = message.splitlines()[-1] if message else "it started"
        check(f"{' '.join(options + command)} stops the start", named in seen, seen)


def reason_to_skip() -> str:
    """Return why the image cannot be checked here, having installed what can be; nothing if not."""
    if os.geteuid() or "ID=debian" not in Path("/etc/os-release").read_text().splitlines():
        return "it needs root on Debian"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        try:
            run("apt-get", "update")
            run("apt-get", "install", "--yes", "--no-install-recommends", *missing)
        except CommandError as error:
            return f"cannot install {', '.join(missing)}: {error}"
    return ""


def main() -> int:
    """Check the image; return the exit code."""
    end_once()
    reason = reason_to_skip()
    if reason:
        tell(f"skipped: {reason}")
        return 0
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 13500
    with work_folder() as folder:
        podman = Podman(folder)
        try:
            make_image(podman)
            check_environment(podman, port)
            check_arguments(podman, port)
            check_refusals(podman)
        except (CommandError, OSError, HTTPException) as error:
            check("nothing breaks off", False, error)
    tell("FAILED: " + "; ".join(FAILED) if FAILED else "all checks passed")
    return bool(FAILED)


if __name__ == "__main__":
    sys.exit(main())
