"""What lies in the package `conf`: groups and their choices."""

from importlib import resources


def groups() -> dict[str, list[str]]:
    """Configuration groups and their choices."""
    found = {}
    for folder in sorted(resources.files("spikeloom.conf").iterdir(), key=lambda f: f.name):
        if folder.is_dir() and folder.name not in ("__pycache__", "hydra"):
            found[folder.name] = sorted(
                f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")
            )
    return found


def describe(group: str, choice: str) -> str:
    """The comment that opens the file of a choice, on one line."""
    lines = (resources.files("spikeloom.conf") / group / f"{choice}.yaml").read_text("utf-8").splitlines()
    comment: list[str] = []
    for line in lines:
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment)
