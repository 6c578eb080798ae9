"""Shader programs of vispy whose source texts were read before are not read again.

vispy reads the text of a program whenever a visual is made. It looks for variables with an expression that is quadratic
in the length of a line: 15 to 35 ms of processor time for points, outlines and texts, half of what drawing them for the
first time takes. The same text has the same variables, and what is drawn ahead has the texts of what is drawn later.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from vispy.gloo import Program, glir
from vispy.visuals.shaders.function import Function

_MOST = 500
"""How many texts are kept; all docks together have some 150."""


def read_programs_once() -> None:
    """Let vispy keep what it has read of the last texts, from now on.

    It affects speed only. Where vispy is another and has not these functions, all stays as it is.
    """
    for owner, name, parameters, keeping in (
        (Program, "_parse_variables_from_code", ["self", "update_variables"], _variables_kept),
        (Function, "_clean_code", ["self", "code"], _method_kept),
        (glir, "_convert_desktop_shader", ["shader"], functools.lru_cache(_MOST)),
    ):
        plain = getattr(owner, name, None)
        if (
            plain is not None
            and not hasattr(plain, "__wrapped__")
            and [*inspect.signature(plain).parameters] == parameters
        ):
            setattr(owner, name, keeping(plain))


def _variables_kept(plain: Callable[..., None]) -> Callable[..., None]:
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    @functools.wraps(plain)
    def read(self: Any, update_variables: bool = True) -> None:
        texts = tuple(shader.code for shader in self._shaders)
        if texts in known:
            self._code_variables = dict(known[texts])
        else:
            plain(self, update_variables=False)
            _keep(known, texts, dict(self._code_variables))
        if update_variables:
            self._process_pending_variables()

    return read


def _method_kept(plain: Callable[[Any, str], str]) -> Callable[[Any, str], str]:
    known: dict[str, str] = {}

    @functools.wraps(plain)
    def clean(self: Any, code: str) -> str:
        if code not in known:
            _keep(known, code, plain(self, code))
        return known[code]

    return clean


def _keep(known: dict[Any, Any], key: object, value: object) -> None:
    """Keep a value, and forget the oldest of too many."""
    known[key] = value
    if len(known) > _MOST:
        known.pop(next(iter(known)), None)
