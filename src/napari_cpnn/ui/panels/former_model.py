"""Which model the present one was fine-tuned from. No Qt here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.viewer import recent_models

_ENDING = ".safetensors"


def started_from(model: Path) -> Path | None:
    """Return the file of the model that a fine-tuned model started from; None if it is not known, or is gone.

    A run folder has the whole path. A model that was copied elsewhere has the name only: that of one known model, not
    of several.
    """
    from napari_cpnn.models import read_card
    from napari_cpnn.training.jobs import job_of_run

    with suppress(CpnnError):
        start = Path(job_of_run(model.parent).settings.weights)
        if start.suffix == _ENDING:
            return start.resolve() if start.is_file() else None
    name = ""
    with suppress(CpnnError):
        name = str(read_card(model)["provenance"].get("settings", {}).get("weights", ""))
    if not name.endswith(_ENDING):
        return None
    found = [path for path in recent_models.known_models() if path.name == name and path.resolve() != model.resolve()]
    return found[0] if len(found) == 1 else None
