"""Pruning of installed libraries: what is removed, and what must stay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fsd_inference.aws.package import prune as module
from fsd_inference.aws.package.prune import SERVICES, prune

KEPT = {
    "botocore/data/endpoints.json",
    *(f"botocore/data/{service}/2012-11-05/service-2.json.gz" for service in SERVICES),
    "boto3/data/sqs/2012-11-05/resources-1.json",
    "numpy/__init__.py",
    "numpy/testing/__init__.py",
    "numpy.libs/libopenblas.so",
    "numpy-2.4.6.dist-info/METADATA",
}
PRUNED = {
    "bin/f2py",
    "boto3/data/ec2/2016-11-15/resources-1.json",
    "boto3/examples/s3.rst",
    "botocore/data/ec2/2016-11-15/service-2.json.gz",
    "numpy/__init__.pyi",
    "numpy/__pycache__/__init__.cpython-313.pyc",
    "numpy/_core/include/numpy/arrayobject.h",
    "numpy/_core/lib/libnpymath.a",
    "numpy/_core/tests/test_umath.py",
    "numpy/f2py/__init__.py",
}


def test_tests_headers_and_unused_services_go_and_the_rest_stays(tmp_path: Path) -> None:
    for name in KEPT | PRUNED:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    prune(tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == KEPT
    prune(tmp_path)  # again does no harm


def test_an_image_can_run_the_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.pyi").touch()
    # Without site-packages, and without the package around it.
    command = [sys.executable, "-I", "-S", str(module.__file__), str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())
