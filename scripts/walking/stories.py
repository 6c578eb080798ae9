"""The three stories by name."""

from __future__ import annotations

from walking.biologist import biologist
from walking.pathologist import pathologist
from walking.trainer import trainer
from walking.walk import Walk, begin, share_of_slide

STORIES = {"pathologist": pathologist, "biologist": biologist, "trainer": trainer}
__all__ = ["STORIES", "Walk", "begin", "share_of_slide"]
