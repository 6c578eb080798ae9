"""Shader programs whose texts were read before are as vispy reads them."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest
from vispy import gloo
from vispy.gloo import Program, glir
from vispy.visuals import MarkersVisual, TextVisual
from vispy.visuals.shaders.function import Function

from napari_cpnn.ui.canvas import programs

NAME = "_parse_variables_from_code"
VERTEX = """
uniform vec2 u_size; // the size
attribute vec3 a_place;
uniform float u_row[3];
varying float v_depth;
void main() { v_depth = a_place.z; gl_Position = vec4(a_place.xy / u_size + u_row[1], 0, 1); }
"""
FRAGMENT = """
varying float v_depth;
uniform sampler2D u_table;
// uniform float u_not_there;
void main() { gl_FragColor = texture2D(u_table, vec2(v_depth, 0)); }
"""


@pytest.fixture
def unread(monkeypatch):
    """vispy as it comes, which reads every text; returns the texts that it has read."""
    read = []
    plain = inspect.unwrap(getattr(Program, NAME))

    @functools.wraps(plain)
    def noted(self, update_variables=True):
        read.append("".join(shader.code for shader in self._shaders))
        plain(self, update_variables=update_variables)

    del noted.__wrapped__  # it stands for vispy's own
    monkeypatch.setattr(Program, NAME, noted)
    monkeypatch.setattr(Function, "_clean_code", inspect.unwrap(Function._clean_code))
    monkeypatch.setattr(glir, "_convert_desktop_shader", inspect.unwrap(glir._convert_desktop_shader))
    return read


def facts():
    """What is known of programs: two of our own, and those of points and texts with all that they include."""
    texts = [(VERTEX, FRAGMENT), (VERTEX, FRAGMENT.replace("u_table", "u_other"))]
    texts += [(visual._shaders["vertex"], visual._shaders["fragment"]) for visual in (MarkersVisual, TextVisual)]
    found = []
    for vertex, fragment in texts:
        program = Program(Function(vertex)._code, Function(fragment)._code)
        converted = [glir.convert_shader("desktop", shader.code) for shader in program.shaders]
        found.append((sorted(program.variables), dict(program._code_variables), converted))
    return found


def test_each_text_is_read_once_and_has_the_variables_that_vispy_finds(unread):
    wanted = facts()
    n_read = len(unread)
    assert facts() == wanted
    assert len(unread) == 2 * n_read  # as vispy comes
    assert ("uniform", "vec2", "u_size") in wanted[0][0]
    assert "u_not_there" not in wanted[0][1]
    assert "u_other" in wanted[1][1]

    unread.clear()
    programs.read_programs_once()
    assert facts() == wanted
    assert len(unread) == n_read
    assert facts() == wanted
    programs.read_programs_once()  # again, which changes nothing
    assert facts() == wanted
    assert len(unread) == n_read == len(set(unread))


def test_values_that_were_set_before_the_text_is_known_reach_the_program(unread):
    programs.read_programs_once()
    for _ in range(2):
        program = Program()
        program["u_size"] = (2.0, 3.0)
        program.set_shaders(VERTEX, FRAGMENT)
        np.testing.assert_allclose(program["u_size"], (2.0, 3.0))
        with pytest.raises(ValueError, match="u_size"):
            program["u_size"] = (1.0, 2.0, 3.0)
    assert len(unread) == 1


def test_programs_do_not_share_their_variables_and_old_texts_are_forgotten(unread, monkeypatch):
    monkeypatch.setattr(programs, "_MOST", 2)
    programs.read_programs_once()
    first, second = Program(VERTEX, FRAGMENT), Program(VERTEX, FRAGMENT)
    del first._code_variables["u_size"]
    assert "u_size" in second
    for other in ("u_one", "u_two"):
        assert other in Program(VERTEX, FRAGMENT.replace("u_table", other))
    assert len(unread) == 3
    assert "u_size" in Program(VERTEX, FRAGMENT)
    assert len(unread) == 4


def test_another_vispy_is_left_as_it_is(unread, monkeypatch):
    def parse(self, update_variables=True, more=None):
        raise AssertionError

    monkeypatch.setattr(Program, NAME, parse)
    monkeypatch.delattr(Function, "_clean_code")
    programs.read_programs_once()
    assert getattr(Program, NAME) is parse
    assert not hasattr(Function, "_clean_code")
    assert gloo.glir._convert_desktop_shader(VERTEX) == glir._convert_desktop_shader.__wrapped__(VERTEX)
