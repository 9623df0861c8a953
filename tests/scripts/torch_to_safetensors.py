#!/usr/bin/env python3
"""Turns a torch zip archive that holds a state dict into safetensors, without torch.

usage: torch_to_safetensors.py MODEL.pth MODEL.safetensors

The tensors keep the order of the state dict, in the header and as bytes. The pickle is read by an Unpickler that
knows only what a state dict is made of; whatever else it names is refused, so no code of the file is run.
"""
import collections
import json
import pickle
import struct
import sys
import zipfile

# torch's storage class -> safetensors dtype, bytes of an element
STORAGES = {
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}

Storage = collections.namedtuple("Storage", "dtype width key count")
Tensor = collections.namedtuple("Tensor", "storage offset shape stride")


def rebuild_tensor(storage, offset, shape, stride, *_):
    return Tensor(storage, offset, tuple(shape), tuple(stride))


def rebuild_parameter(data, *_):
    return data


class StateDictUnpickler(pickle.Unpickler):
    KNOWN = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
        **{("torch", name): name for name in STORAGES},
    }

    def find_class(self, module, name):
        try:
            return self.KNOWN[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"refused: {module}.{name}") from None

    def persistent_load(self, pid):
        kind, storage, key, _location, count = pid
        if kind != "storage" or storage not in STORAGES:
            raise pickle.UnpicklingError(f"refused: {pid!r}")
        dtype, width = STORAGES[storage]
        return Storage(dtype, width, str(key), count)


def state_dict(value):
    """The state dict itself, or the one inside a checkpoint."""
    for key in ("model_state_dict", "model_state", "state_dict"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    tensors = {name: x for name, x in value.items() if isinstance(x, Tensor)}
    if not tensors:
        raise ValueError("no tensors")
    return tensors


def is_contiguous(tensor):
    step = 1
    for dim, stride in zip(reversed(tensor.shape), reversed(tensor.stride)):
        if dim != 1 and stride != step:
            return False
        step *= dim
    return True


def count(shape):
    product = 1
    for dim in shape:
        product *= dim
    return product


def data(archive, prefix, tensor):
    if not is_contiguous(tensor):
        raise ValueError(f"not contiguous: {tensor}")
    stored = archive.read(f"{prefix}/data/{tensor.storage.key}")
    width = tensor.storage.width
    begin, end = tensor.offset * width, (tensor.offset + count(tensor.shape)) * width
    if len(stored) != tensor.storage.count * width or end > len(stored):
        raise ValueError(f"the storage is too short: {tensor}")
    return stored[begin:end]


def main(source, target):
    archive = zipfile.ZipFile(source)
    (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    prefix = pickled.rsplit("/", 1)[0]
    order = f"{prefix}/byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("not little-endian")
    with archive.open(pickled) as file:
        tensors = state_dict(StateDictUnpickler(file).load())
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        size = count(tensor.shape) * tensor.storage.width
        header[name] = {"dtype": tensor.storage.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(target, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(data(archive, prefix, tensor))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
