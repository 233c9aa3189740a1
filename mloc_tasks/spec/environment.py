"""`${env.NAME}`: values of the machine that loads the spec, for names that its settings allow."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from mloc_tasks.spec.names import did_you_mean
from mloc_tasks.spec.origins import Origin, Origins

_ENV = re.compile(r"(?<!\$)\$\{\s*env\.([A-Za-z0-9_][A-Za-z0-9_-]*)\s*\}")


class Environment:
    """Puts values in. Names that may not be used, or are not set, become problems in `origins`."""

    def __init__(self, values: Mapping[str, str], allowed: Collection[str], origins: Origins) -> None:
        self._values = values
        self._allowed = allowed
        self._origins = origins

    def fill_in(self, document: dict[str, Any]) -> None:
        """Replace every `${env.NAME}` under `spec`, in place, so that values keep their lines and columns."""
        here = self._origins.inside(document, "spec", self._origins.top)
        if isinstance(document.get("spec"), dict | list):
            self._visit(document["spec"], here, set())

    def _visit(self, container: Any, origin: Origin, seen: set[int]) -> None:
        if id(container) in seen:
            return
        seen.add(id(container))
        entries: list[tuple[Any, Any]] = list(
            container.items() if isinstance(container, dict) else enumerate(container)
        )
        for key, value in entries:
            if isinstance(value, dict | list):
                self._visit(value, self._origins.inside(container, key, origin), seen)
            elif isinstance(value, str) and "${" in value and _ENV.search(value):
                here = self._origins.inside(container, key, origin)
                container[key] = _ENV.sub(partial(self._value, here), value)

    def _value(self, here: Origin, match: re.Match[str]) -> str:
        name = match[1]
        if name not in self._allowed:
            near = did_you_mean(name, self._allowed)
            advice = near or "add it to the allow-list in the settings"
            self._origins.report(here, f"`{match[0]}`: this environment variable may not be used in specs", advice)
        elif name not in self._values:
            self._origins.report(here, f"`{match[0]}`: this environment variable is not set")
        else:
            # What comes from outside is text, also where it looks like a reference.
            return self._values[name].replace("${", "$${")
        return ""
