"""What a Lambda function is made of, the same for the image and the zip.

`requirements.txt` pins the libraries by hash (`make lock` writes it); `prune` takes away what they do not need there;
`contents` puts them into a directory; `archive` makes that directory a zip.
"""

from fsd_inference.aws.package.archive import ZipFacts, write_zip
from fsd_inference.aws.package.contents import Target, add_libraries, add_our_package, build_zip

__all__ = ["Target", "ZipFacts", "add_libraries", "add_our_package", "build_zip", "write_zip"]
