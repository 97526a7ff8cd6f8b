"""How the image is made where no registry of images can be reached."""

import re
import shutil
import sys

from deploy.check_image.podman import TAG, Podman, run
from deploy.check_image.telling import tell

DEBIAN = "bookworm"  # whose Python is the image's, 3.11

# A slim image of Python is Debian without documents, with commands in /usr/local. pip and uv are
# told to trust the authorities that this machine trusts.
SETUP = r"""
set -euo pipefail
root={root}
cp /usr/local/share/ca-certificates/*.crt $root/usr/local/share/ca-certificates/ || true
chroot $root update-ca-certificates
mkdir -p $root/etc/uv
echo 'native-tls = true' >$root/etc/uv/uv.toml
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >$root/etc/pip.conf
echo 'break-system-packages = true' >>$root/etc/pip.conf
ln -s /usr/bin/python3 $root/usr/local/bin/python
ln -s /usr/bin/pip3 $root/usr/local/bin/pip
tar -C $root -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' \
    --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' . | podman import - {name}
"""


def make_base(podman: Podman, name: str) -> None:
    """Import a Debian with its Python under the name of the base image."""
    root = podman.folder / "root"
    targets = ("--format=$(REPO_URI)", "Created-By: Packages", "Label: Debian")
    mirror = run("apt-get", "indextargets", *targets).splitlines()[0]
    packages = "--include=ca-certificates,python3,python3-pip"
    run("debootstrap", "--variant=minbase", packages, DEBIAN, str(root), mirror)
    run("bash", "-c", SETUP.format(root=root, name=name), env=podman.env)
    shutil.rmtree(root)


def make_image(podman: Podman) -> None:
    """Build the bento and its image."""
    bentoml = (sys.executable, "-m", "bentoml")
    run(*bentoml, "build", env=podman.env)
    tell("the bento is built")
    store = podman.folder / "bentoml/bentos/openai_emulator"
    dockerfile = store / (store / "latest").read_text().strip() / "env/docker/Dockerfile"
    (base,) = re.findall(r"^FROM (\S+) AS", dockerfile.read_text(), re.MULTILINE)
    make_base(podman, f"docker.io/library/{base}")
    tell(f"a stand-in for {base} is made")
    containerize = ("containerize", TAG, "-t", TAG, "--backend", "podman", "--network", "host")
    run(*bentoml, *containerize, env=podman.env)
    tell("the image is made")
