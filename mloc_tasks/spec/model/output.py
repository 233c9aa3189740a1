"""Where a stage's artifacts go besides the artifact store."""

import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mloc_tasks.spec.model.base import Seconds, SpecModel, Text, refuse

_TYPE_OF_SCHEME = {"s3": "s3", "http": "http", "https": "http", "file": "local"}


class Destination(SpecModel):
    """A further place for the outputs."""

    other_names: ClassVar[dict[str, str]] = {"timeout": "timeout_sec", "timeout_seconds": "timeout_sec"}

    type: Literal["local", "s3", "http"] = Field(description="Kind of place; told by `url` or `path` when left out.")
    path: Text | None = Field(
        None, description="Directory, under the results root; an absolute one needs an operator's `MLOC_OUTPUT_ROOTS`."
    )
    url: Text | None = Field(None, description="`s3://bucket/prefix` or `http://` address.")
    method: Literal["POST", "PUT"] = Field(
        "POST", description="`POST` sends forms, `PUT` each file to its path below `url`."
    )
    headers: dict[str, str] = Field({}, description="HTTP headers of the upload.")
    timeout_sec: Seconds | None = Field(
        None, description="Longest wait for the server to answer, or to take more; default 60 s."
    )

    @model_validator(mode="before")
    @classmethod
    def _infer_type(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") is None:
            url = value.get("url")
            scheme = url.split("://")[0].lower() if isinstance(url, str) and "://" in url else ""
            found = _TYPE_OF_SCHEME.get(scheme, "local" if value.get("path") is not None else None)
            if found is not None:
                return {**value, "type": found}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "http" and self.url is None:
            raise refuse("an http destination needs `url`")
        if self.type != "http" and self.path is None and self.url is None:
            raise refuse(f"a destination of type {self.type} needs `path`" + (" or `url`" if self.type == "s3" else ""))
        if self.url is not None and self.type == "http" and not re.match(r"https?://|\$\{", self.url):
            raise refuse(f"{self.url!r} is not an http address", "write http://... or https://...", at=("url",))
        if self.path is not None and escapes(self.path):
            raise refuse(
                f"{self.path!r} leaves the results root", "write a path without `..` that stays inside", at=("path",)
            )
        return self


class Output(SpecModel):
    """What is kept of a stage's outputs, and where else it goes."""

    destination: Destination | None = Field(None, description="A further place for the outputs.")
    artifacts: tuple[Text, ...] | None = Field(None, description="Names or globs of the outputs to keep; default all.")


def escapes(path: str) -> bool:
    """Whether a relative path climbs out of the directory that it starts in."""
    depth = 0
    for part in re.split(r"[/\\]", path):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return "\0" in path
