"""Memory that training keeps: pages are not taken from the system anew, until the block ends."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")

# In a process of its own, in which nothing else has left free memory behind.
SCRIPT = """
import json, resource
from napari_cpnn.training.fit.memory import kept_memory

def step():
    maps = [b"x" * 40_000_000 for _ in range(2)]
    return len(maps)

def faults():
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

outside = faults()
with kept_memory():
    inside = faults()
    with kept_memory():
        pass
    nested, kept = faults(), resident()
print(json.dumps([outside, inside, nested, kept - resident()]))
"""


def test_pages_are_used_again_inside_and_given_back_at_the_end():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    outside, inside, nested, given_back = json.loads(done.stdout)
    assert outside >= 3 * 2 * 15  # pages of 2 MB, where the system has them
    assert max(inside, nested) < outside / 10
    assert given_back > 70_000_000
