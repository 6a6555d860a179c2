"""The deployment package of the Lambda functions, with the same content as a container image and as a zip.

`requirements.txt` pins the libraries by hash (`make lock` writes it); `contents` installs them into a directory;
`prune` removes the parts that the functions do not need; `archive` zips the directory.
"""

from fsd_inference.aws.package.archive import ZipFacts, write_zip
from fsd_inference.aws.package.contents import Target, add_libraries, add_our_package, build_zip

__all__ = ["Target", "ZipFacts", "add_libraries", "add_our_package", "build_zip", "write_zip"]
