"""Changes of a file: of its bytes, and of what its format says. Each is a function of the bytes and a random generator.

A mutator that finds nothing to change raises :class:`NothingToChangeError`; another one is taken then.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutator = Callable[[bytes, np.random.Generator], bytes]

_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536, 2**20, 2**24, 2**31 - 1,
            2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**64 - 1)  # fmt: skip
_TEXTS = ("", " ", "nan", "NaN", "inf", "-inf", "-1", "0", "1e308", "1e-320", "0,5", "1_000", "x", "true", "null",
          "\x00", '"', ",", ";", "\t", "\n", "../../etc", "/", "é", "\ufeff", "9" * 400, "x" * 5000, "=1+1", "$x_1$",
          "<img src=x>", "None", "1;2", "-0", "0x10", "²")  # fmt: skip


class NothingToChangeError(Exception):
    """The file has nothing of the kind."""


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, len(changed), rng.choice([1, 1, 2, 4, 16])):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def set_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    start = int(rng.integers(len(changed)))
    n = int(rng.choice([1, 2, 4, 8, 64]))
    changed[start : start + n] = bytes([int(rng.choice([0, 0xFF, rng.integers(256)]))]) * n
    return bytes(changed[: len(data)])


def cut_short(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def put_number(data: bytes, rng: np.random.Generator) -> bytes:
    """An integer at which sizes and offsets overflow, over what was there."""
    form = str(rng.choice(["<H", "<I", "<Q", ">H", ">I", ">Q"]))
    size = struct.calcsize(form)
    if len(data) < size:
        raise NothingToChangeError
    value = int(rng.choice(np.array(_NUMBERS, dtype=object))) & (2 ** (8 * size) - 1)
    start = int(rng.integers(len(data) - size + 1))
    return data[:start] + struct.pack(form, value) + data[start + size :]


def move_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Part of the file twice, left out, or in another place."""
    start = int(rng.integers(len(data)))
    end = min(len(data), start + int(2 ** rng.uniform(0, 10)))
    place = int(rng.integers(len(data)))
    block = data[start:end]
    kind = int(rng.integers(4))
    if kind == 0:
        return data[:place] + block + data[place:]
    if kind == 1:
        return data[:start] + data[end:]
    if kind == 2:
        return (data[:place] + block + data[place + len(block) :])[: len(data)]
    return data[:place] + rng.bytes(int(rng.integers(1, 64))) + data[place:]


# -- JSON --------------------------------------------------------------------------------------------------------------


def strange_value(rng: np.random.Generator) -> Any:
    values: list[Any] = [
        None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324, float("nan"), float("inf"),
        -float("inf"), "", "x", "nan", "1", "é\u0000", "x" * 5000, "../../../etc/passwd", [], {}, [[]], [1, 2],
        [1, "x"], {"a": 1}, [[[[[0]]]]], "<img src=x>", "=1+1", "$x_{1}$", [0] * 500, {"type": "Polygon"}, "2\n3",
        0.5, -3, 1000000,
    ]  # fmt: skip
    return values[int(rng.integers(len(values)))]


def change_json(data: bytes, rng: np.random.Generator) -> bytes:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise NothingToChangeError from error
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        content = _changed(content, rng)
    return json.dumps(content).encode()


def nest_json(data: bytes, rng: np.random.Generator) -> bytes:
    """A value that is endlessly nested in place of a short one."""
    places = [m.span() for m in re.finditer(rb"(?<=[:\[,] )[-\d.]+|(?<=[:\[,])[-\d.]+|\"[^\"]{0,20}\"(?=[,\]}])", data)]
    if not places:
        raise NothingToChangeError
    start, end = places[int(rng.integers(len(places)))]
    depth = int(rng.choice([100, 1000, 100_000]))
    if rng.random() < 0.5:
        return data[:start] + b"[" * depth + b"]" * depth + data[end:]
    return data[:start] + b'{"a":' * depth + b"1" + b"}" * depth + data[end:]


def _changed(content: Any, rng: np.random.Generator) -> Any:
    """One value somewhere inside replaced, left out, doubled or renamed."""
    places = list(_places(content))
    if not places:
        return strange_value(rng)
    holder, key = places[int(rng.integers(len(places)))]
    kind = int(rng.integers(6))
    if kind <= 2:
        holder[key] = strange_value(rng)
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, list):
        holder.extend([holder[key]] * int(rng.integers(1, 5)))
    elif kind == 4:
        holder[str(strange_value(rng))[:300]] = holder.pop(key)
    else:
        other, other_key = places[int(rng.integers(len(places)))]
        if other_key in other if isinstance(other, dict) else other_key < len(other):
            holder[key] = json.loads(json.dumps(other[other_key]))
    return content


def _places(content: Any) -> Any:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items):
        yield content, key
        yield from _places(value)


# -- text --------------------------------------------------------------------------------------------------------------


def change_cell(data: bytes, rng: np.random.Generator) -> bytes:
    """Cells, columns or lines of a table in text, of the header most of all."""
    lines = data.split(b"\n")
    separator = max((b",", b"\t", b" "), key=data.count)
    for _ in range(int(rng.choice([1, 1, 2, 5]))):
        row = 0 if rng.random() < 0.3 else int(rng.integers(len(lines)))
        fields = lines[row].split(separator)
        column = int(rng.integers(len(fields)))
        kind = int(rng.integers(7))
        if kind <= 2:
            fields[column] = str(rng.choice(np.array(_TEXTS, dtype=object))).encode()
        elif kind == 3:
            del fields[column]
        elif kind == 4:
            fields.insert(column, fields[int(rng.integers(len(fields)))])
        elif kind == 5:
            lines.insert(int(rng.integers(len(lines))), lines[row])
        else:
            other = int(rng.integers(len(fields)))
            fields[column], fields[other] = fields[other], fields[column]
        lines[row] = separator.join(fields)
    return b"\n".join(lines)


def change_encoding(data: bytes, rng: np.random.Generator) -> bytes:
    text = data.decode("utf-8", errors="replace")
    kind = int(rng.integers(6))
    if kind < 3:
        return text.encode(["utf-16", "utf-8-sig", "utf-16-be"][kind])
    if kind == 3:
        return text.replace("\n", "\r").encode()
    if kind == 4:
        return text.replace(".", ",").encode()
    return text.replace(",", ";").encode()


# -- TIFF --------------------------------------------------------------------------------------------------------------

_TAGS = (
    254,
    256,
    257,
    258,
    259,
    262,
    270,
    273,
    274,
    277,
    278,
    279,
    282,
    283,
    284,
    296,
    317,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
    347,
)
_SIZES = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}


def change_tag(data: bytes, rng: np.random.Generator) -> bytes:
    """The value, count, type or number of one or two tags of a TIFF."""
    entries = list(_tags(data))
    if not entries:
        raise NothingToChangeError
    order, wide = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"\x2b\x00", b"\x00\x2b")
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2]))):
        place, _, kind, _ = entries[int(rng.integers(len(entries)))]
        count_at, count_form = place + 4, order + ("Q" if wide else "I")
        value_at = place + (12 if wide else 8)
        what = int(rng.integers(8))
        value = int(rng.choice(np.array(_NUMBERS, dtype=object)))
        if what <= 4:
            form = order + _SIZES.get(kind, "I")[0].upper().replace("F", "I").replace("D", "Q")
            size = struct.calcsize(form)
            changed[value_at : value_at + size] = struct.pack(form, value & (2 ** (8 * size) - 1))
        elif what == 5:
            size = struct.calcsize(count_form)
            changed[count_at : count_at + size] = struct.pack(count_form, value & (2 ** (8 * size) - 1))
        elif what == 6:
            changed[place + 2 : place + 4] = struct.pack(order + "H", int(rng.integers(0, 20)))
        else:
            changed[place : place + 2] = struct.pack(order + "H", int(rng.choice(_TAGS)))
    return bytes(changed)


def _tags(data: bytes) -> Any:
    """Where each tag of each directory lies: place, number, type, count."""
    if data[:2] not in (b"II", b"MM") or len(data) < 16:
        return
    order, wide = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"\x2b\x00", b"\x00\x2b")
    offset = struct.unpack_from(order + ("Q" if wide else "I"), data, 8 if wide else 4)[0]
    for _ in range(10):
        try:
            if wide:
                n, step, first = struct.unpack_from(order + "Q", data, offset)[0], 20, offset + 8
            else:
                n, step, first = struct.unpack_from(order + "H", data, offset)[0], 12, offset + 2
            for i in range(min(n, 100)):
                tag, kind = struct.unpack_from(order + "HH", data, first + i * step)
                count = struct.unpack_from(order + ("Q" if wide else "I"), data, first + i * step + 4)[0]
                yield first + i * step, tag, kind, count
            offset = struct.unpack_from(order + ("Q" if wide else "I"), data, first + n * step)[0]
        except struct.error:
            return
        if not offset:
            return


def change_description(data: bytes, rng: np.random.Generator) -> bytes:
    """A number or a word in text inside a binary file, such as the MPP of an SVS; the length stays."""
    found = [m.span() for m in re.finditer(rb"(?<=[ =\"x])\d[\d.]{0,12}(?=[ \"|x\n\]])", data)]
    if not found:
        raise NothingToChangeError
    start, end = found[int(rng.integers(len(found)))]
    n = end - start
    new = str(
        rng.choice(["9" * n, "0" * n, "-" + "9" * (n - 1), "1e" + "9" * (n - 2), "nan", "inf", "0,5", "x" * n, ""])
    )
    return data[:start] + new.encode()[:n].ljust(n) + data[end:]


# -- HDF5 --------------------------------------------------------------------------------------------------------------


def change_hdf5(data: bytes, rng: np.random.Generator) -> bytes:
    """Datasets with other values, shapes, types, fill or links; attributes with other values."""
    import h5py

    buffer = io.BytesIO(data)
    try:
        with h5py.File(buffer, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            for _ in range(int(rng.choice([1, 1, 2]))):
                _change_object(file, names[int(rng.integers(len(names)))], rng)
    except NothingToChangeError:
        raise
    except Exception as error:  # what was changed already may leave HDF5 nothing that it can change
        raise NothingToChangeError from error
    return buffer.getvalue()


def _change_object(file: Any, name: str, rng: np.random.Generator) -> None:
    import h5py

    if name not in file:
        raise NothingToChangeError
    item = file[name]
    kind = int(rng.integers(9))
    if item.attrs and rng.random() < 0.3:
        key = list(item.attrs)[int(rng.integers(len(item.attrs)))]
        values = [
            "csr_matrix",
            "csc_matrix",
            "dataframe",
            "array",
            "",
            "x" * 500,
            -1,
            np.array([3, 2**40]),
            np.nan,
            "é",
        ]
        values += [
            np.array([0, 0]),
            np.array([], dtype=np.int64),
            np.array([-1, 5]),
            "9.9.9",
            np.array(["a", "b"], dtype="S2"),
        ]
        item.attrs[key] = values[int(rng.integers(len(values)))]
    elif kind == 0:
        del file[name]
    elif kind == 1:
        others: list[str] = []
        file.visit(others.append)
        target = others[int(rng.integers(len(others)))]
        del file[name]
        file[name] = h5py.SoftLink("/" + target) if rng.random() < 0.7 else h5py.ExternalLink("other.h5", "/" + target)
    elif not isinstance(item, h5py.Dataset):
        raise NothingToChangeError
    else:
        attributes = dict(item.attrs)
        values = item[()]
        del file[name]
        _replace_dataset(file, name, values, kind, rng)
        file[name].attrs.update(attributes)


def _replace_dataset(file: Any, name: str, values: Any, kind: int, rng: np.random.Generator) -> None:
    import h5py

    array = np.array(values)
    numbers = array.dtype.kind in "iuf"
    if kind == 2 and array.ndim and numbers:
        flat = array.ravel().copy()
        with np.errstate(all="ignore"):
            flat[rng.integers(0, max(1, flat.size), 2) % max(1, flat.size)] = np.array(
                [rng.choice([-1, 2**31 - 1, 10**6, 0, 255])]
            ).astype(flat.dtype)
        file[name] = flat.reshape(array.shape)
    elif kind == 3 and array.ndim:
        file[name] = array[: int(rng.integers(array.shape[0] + 1))]
    elif kind == 4:
        file[name] = np.full(array.shape, np.nan) if rng.random() < 0.5 else np.full(array.shape, -1, dtype=np.int64)
    elif kind == 5:
        file[name] = np.array([b"x"] * max(1, array.size), dtype="S3").reshape(array.shape or (1,))
    elif kind == 6:
        sizes = [(10**6, 10**6), (2**40,), (0,), (10**9,), (2**20, 3)]
        file.create_dataset(name, shape=sizes[int(rng.integers(len(sizes)))], dtype="f4", chunks=True)
    elif kind == 7 and numbers:
        file[name] = array.astype(str(rng.choice(["f8", "i1", "u8", "f2", "c8", "i8"])))
    elif kind == 8 and array.ndim:
        file[name] = array[None] if rng.random() < 0.5 else array.ravel()[::-1]
    elif numbers and array.ndim:
        file[name] = array[::-1].copy()
    else:
        file.create_dataset(name, data=h5py.Empty("f4"))


# -- containers --------------------------------------------------------------------------------------------------------


def inside_gzip(mutators: tuple[Mutator, ...]) -> Mutator:
    def change(data: bytes, rng: np.random.Generator) -> bytes:
        text = gzip.decompress(data)
        return gzip.compress(mutators[int(rng.integers(len(mutators)))](text, rng), mtime=0)

    return change


def safetensors_header(data: bytes, rng: np.random.Generator) -> bytes:
    """The JSON at the beginning, with its length put right; and the JSON inside its metadata."""
    n = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + n])
    except ValueError as error:
        raise NothingToChangeError from error
    if not isinstance(header, dict):
        raise NothingToChangeError
    metadata = header.get("__metadata__", {})
    if isinstance(metadata, dict) and metadata and rng.random() < 0.6:
        key = next(iter(metadata))
        change = nest_json if rng.random() < 0.1 else change_json
        metadata[key] = change(str(metadata[key]).encode(), rng).decode(errors="replace")
    else:
        header = _changed(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + n :]


_BYTES: tuple[Mutator, ...] = (flip_bits, set_bytes, cut_short, put_number, move_block)
_JSON: tuple[Mutator, ...] = (change_json,) * 6 + (nest_json, change_encoding)
_TEXT: tuple[Mutator, ...] = (change_cell,) * 5 + (change_encoding,)
_TIFF: tuple[Mutator, ...] = (change_tag,) * 6 + (change_description,) * 2
_BY_ENDING: dict[str, tuple[Mutator, ...]] = {
    ".json": _JSON,
    ".geojson": _JSON,
    ".jsonl": (change_cell, change_json, nest_json),
    ".csv": _TEXT,
    ".tsv": _TEXT,
    ".txt": _TEXT,
    ".mtx": _TEXT,
    ".svs": _TIFF,
    ".tif": _TIFF,
    ".btf": _TIFF,
    ".h5": (change_hdf5,) * 6,
    ".h5ad": (change_hdf5,) * 6,
    ".gz": (inside_gzip(_TEXT),) * 4 + (inside_gzip(_BYTES),),
    ".safetensors": (safetensors_header,) * 5,
}


def mutators_of(path: Path) -> tuple[Mutator, ...]:
    """What can be done to a file of this name; changes of bytes are always among it."""
    return _BYTES + _BY_ENDING.get(path.suffix, ())


def mutate(data: bytes, path: Path, rng: np.random.Generator) -> tuple[bytes, list[str]]:
    """Changed bytes, and the names of what was done to them."""
    kinds, done = mutators_of(path), []
    for _ in range(int(rng.choice([1, 1, 1, 2]))):
        if not data:
            break
        change = kinds[int(rng.integers(len(kinds)))]
        try:
            data = change(data, rng)
        except (NothingToChangeError, EOFError, OSError, ValueError, OverflowError, RecursionError, zlib.error):
            change = flip_bits
            data = flip_bits(data, rng)
        done.append(change.__name__)
    return data, done
