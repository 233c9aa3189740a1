"""Which names an artifact may have: relative, "/"-separated, and unable to leave the place they are joined to."""

from __future__ import annotations

import re

from mloc_tasks.errors import StoreError

MANIFEST_NAME = "manifest.json"
"""The file whose presence makes a directory of artifacts visible. Written last, by the store alone."""

RESERVED = ".mloc-"
"""Names that begin so are the store's own: staging, temporary files, claims. No artifact may have one."""

MAX_SEGMENT_BYTES = 255  # what every common file system takes
MAX_NAME_BYTES = 900  # an S3 key has at most 1024, and the store's root prefix takes a part of it

_FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x1f\x7f\\]")


def check_name(name: str) -> str:
    """Return `name` unchanged, or raise `StoreError` saying why it cannot be the name of an artifact or a prefix."""
    if not name:
        raise StoreError("an artifact's name is empty")
    reason = _reason_against(name)
    if reason:
        raise StoreError(
            f"artifact name {name!r} {reason}", hint="use a relative name such as run/stage/responses.json"
        )
    return name


def check_object_name(name: str) -> str:
    """As `check_name`, and not a name that only the store itself writes."""
    check_name(name)
    if name.rpartition("/")[2] == MANIFEST_NAME:
        raise StoreError(
            f"artifact name {name!r}: {MANIFEST_NAME} is written by the store itself", hint="use another file name"
        )
    return name


def _reason_against(name: str) -> str:
    if name.startswith("/"):
        return "is absolute"
    if _FORBIDDEN_CHARACTER.search(name):
        return "holds a backslash or a control character"
    try:
        encoded = name.encode("utf-8")
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if len(encoded) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    for segment in name.split("/"):
        if segment in ("", ".", ".."):
            return f"has the segment {segment!r}"
        if segment.startswith(RESERVED):
            return f"has a segment that begins with {RESERVED!r}, which is the store's own"
        if len(segment) * 4 > MAX_SEGMENT_BYTES and len(segment.encode()) > MAX_SEGMENT_BYTES:
            return f"has a segment longer than {MAX_SEGMENT_BYTES} bytes"
    return ""
