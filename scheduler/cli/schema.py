"""`mloc schema`: the spec language for editors."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of specs, for editors.

    Examples:

        mloc schema > mloc.schema.json

    and, in the first line of a spec, for editors with the YAML language server:

        # yaml-language-server: $schema=mloc.schema.json
    """
    from mloc_tasks.spec import json_schema
    from scheduler.cli.terminal import print_json

    print_json(json_schema())
