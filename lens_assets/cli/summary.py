"""What a finished chain found, as text for a terminal."""
from lens_assets.resources.workspace import Workspace
def summary(workspace: Workspace) -> str:
    return ""
