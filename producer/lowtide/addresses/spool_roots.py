"""Roots of spools: a folder, or a place in a bucket of an object store."""

from __future__ import annotations

import re
from typing import NamedTuple

from lowtide.addresses.locations import is_bucket
from lowtide.addresses.urls import split_url

_STORES = ("gs", "s3", "az")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*", re.ASCII)
_URL_LIKE = re.compile(r"[a-z][a-z0-9+.-]*:|.*://", re.IGNORECASE | re.ASCII | re.DOTALL)
"""A text that begins like this is rather a misspelt URL than a folder."""
_PASSWORD_LIKE = re.compile(":.*@", re.DOTALL)


class SpoolRoot(NamedTuple):
    """The root of a spool."""

    store: str
    """The scheme of the object store, such as `gs`; empty for a folder."""
    bucket: str
    """Empty for a folder."""
    path: str
    """The path of the folder; in a bucket, the part of each name before a slash, which may be empty."""

    @property
    def url(self) -> str:
        """The root as a URL, without a slash at its end."""
        return f"{self.store or 'file'}://{self.bucket}/{self.path}".rstrip("/")


def parse_spool_root(url: str) -> SpoolRoot:
    """Parses a path, `file:///path`, or `gs://`, `s3://` or `az://` with bucket and folder.

    Raises `ValueError` for any other form, without a part of the URL, because there may be a password in it.
    """
    if not url.isprintable():
        raise ValueError("it has control characters; write it on one line")
    if not _URL_LIKE.match(url):
        return _folder(url)
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "file":
        path = rest.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError("write the whole path of the folder, as in file:///var/spool")
        return _folder(path)
    known = ", ".join(f"{store}://" for store in _STORES)
    if scheme not in _STORES:
        raise ValueError(f"this is no place for the spool; write a folder, such as ./folder, or a URL of {known}")
    example = f"{scheme}://BUCKET/FOLDER"
    parts = split_url(url, example)
    prefix = parts.path.removeprefix("/").removesuffix("/")
    if not is_bucket(parts.netloc) or url.partition("?")[1] or url.partition("#")[1]:
        raise ValueError(f"write {scheme}://BUCKET or {example}, and nothing else")
    if prefix and not is_blob_name(prefix):
        raise ValueError(f"write {example}; the folder may have A-Z a-z 0-9 _ - . in its parts, as in {scheme}://b/a/x")
    return SpoolRoot(scheme, parts.netloc, prefix)


def _folder(path: str) -> SpoolRoot:
    if _PASSWORD_LIKE.search(path):
        raise ValueError("this looks like a URL with a password; write a folder without : and @ in its name")
    return SpoolRoot("", "", path)


def is_blob_name(name: str) -> bool:
    """Returns whether this may be the name of a blob or folder in a spool."""
    return _NAME.fullmatch(name) is not None
