"""Write mloc_tasks/spec/training_arguments.json from the installed TRL and transformers, by reading their source.

    pip install --no-deps --target /tmp/trl trl==1.16.0
    python scripts/training_arguments.py --trl /tmp/trl --transformers .venv/lib/python3.11/site-packages

Both arguments are directories that hold the package. Nothing of either is imported, so it runs without torch.
"""

from __future__ import annotations

import argparse
import ast
import json
from importlib.metadata import distributions
from pathlib import Path

CONFIGS = {"sft": "SFTConfig", "dpo": "DPOConfig", "grpo": "GRPOConfig", "reward": "RewardConfig"}
TARGET = Path(__file__).parent.parent / "mloc_tasks" / "spec" / "training_arguments.json"
JSON_KINDS = {"int", "float", "bool", "str", "list", "dict"}


def fields_of(path: Path, class_name: str) -> dict[str, list[str]]:
    """Name of each dataclass field -> the JSON kinds that its annotation admits (`any` where it says nothing)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == class_name)
    return {
        node.target.id: sorted(kinds_of(node.annotation))
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and is_argument(node)
    }


def is_argument(node: ast.AnnAssign) -> bool:
    """Whether a field is an argument of the constructor (private, class-level and `init=False` ones are not)."""
    assert isinstance(node.target, ast.Name)
    if node.target.id.startswith("_") or "ClassVar" in ast.unparse(node.annotation):
        return False
    keywords = node.value.keywords if isinstance(node.value, ast.Call) else []
    return not any(word.arg == "init" and ast.unparse(word.value) == "False" for word in keywords)


def kinds_of(annotation: ast.expr) -> set[str]:
    """`int | None` -> {"int"}, `IntervalStrategy | str` -> {"str"}, `Literal["a"]` -> {"str"}."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return kinds_of(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return kinds_of(annotation.left) | kinds_of(annotation.right)
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value)
        inside = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if name in ("Optional", "Union"):
            return set().union(*(kinds_of(part) for part in inside))
        if name == "Literal":
            return {type(part.value).__name__ for part in inside if isinstance(part, ast.Constant)} - {"NoneType"}
        return {"list"} if name in ("tuple", "List") else {name.lower()} & JSON_KINDS or {"any"}
    name = ast.unparse(annotation)
    if name == "None":
        return set()
    if name in JSON_KINDS:
        return {name}
    return {"str"} if name.endswith(("Strategy", "Type", "Names", "Option")) else {"any"}


def version_of(directory: Path, name: str) -> str:
    """Version of a distribution installed in `directory`."""
    return next(found.version for found in distributions(path=[str(directory)]) if found.metadata["Name"] == name)


def main() -> None:
    """Read both packages and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl", type=Path, required=True, help="directory that holds the trl package")
    parser.add_argument(
        "--transformers", type=Path, required=True, help="directory that holds the transformers package"
    )
    given = parser.parse_args()
    trainer = given.trl / "trl" / "trainer"
    common = fields_of(given.transformers / "transformers" / "training_args.py", "TrainingArguments")
    base = fields_of(trainer / "base_config.py", "_BaseConfig")
    table: dict[str, object] = {
        "versions": {
            "trl": version_of(given.trl, "trl"),
            "transformers": version_of(given.transformers, "transformers"),
        },
        "transformers": common,
    }
    for method, class_name in CONFIGS.items():
        own = base | fields_of(trainer / f"{method}_config.py", class_name)
        table[method] = {name: kinds for name, kinds in own.items() if common.get(name) != kinds}
    lines = json.dumps(table, indent=1)
    TARGET.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
