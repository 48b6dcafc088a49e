"""The programs that judge deploy/, from an environment of their own (`make deploy-tools`)."""

from pathlib import Path

from tools import missing

BIN = Path(__file__).resolve().parents[2] / ".venv-deploy" / "bin"


def deploy_tool(name: str) -> str:
    """The path of `checkov`, `kubernetes-validate` or `yamllint`."""
    path = BIN / name
    if not path.is_file():
        missing(name, "make deploy-tools")
    return str(path)
