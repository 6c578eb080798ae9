"""Shader programs of vispy whose source text was read before are not read again.

vispy looks for the variables of a program in its text whenever a visual is made, with an expression that is quadratic
in the length of a line: 15 to 35 ms of processor time for points, outlines and texts, half of what drawing them for the
first time takes. The same text has the same variables, and what is drawn ahead has the texts of what is drawn later.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from vispy.gloo import Program

_MOST = 200
_NAME = "_parse_variables_from_code"
_KNOWN: OrderedDict[tuple[str, ...], dict[str, Any]] = OrderedDict()


def read_programs_once() -> None:
    """Let vispy keep the variables of the last programs by their texts, from now on; where it cannot, do nothing."""
    plain = getattr(Program, _NAME, None)
    if plain is None or getattr(plain, "reads_once", False):
        return

    def read(self: Any, update_variables: bool = True) -> None:
        texts = tuple(shader.code for shader in self._shaders)
        known = _KNOWN.get(texts)
        if known is None:
            plain(self, update_variables=False)
            _KNOWN[texts] = dict(self._code_variables)
            if len(_KNOWN) > _MOST:
                _KNOWN.popitem(last=False)
        else:
            _KNOWN.move_to_end(texts)
            self._code_variables = dict(known)
        if update_variables:
            self._process_pending_variables()

    read.reads_once = True  # type: ignore[attr-defined]
    setattr(Program, _NAME, read)
