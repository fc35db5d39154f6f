"""torch and our reader and writer of its files agree, without a pickle being run on either side."""

from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from sia_jax.checkpoints.torch_pickle import read_torch_file, write_torch_file

GOLDEN = Path(__file__).parents[1] / "golden"
DTYPES = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float64: np.float64,
    torch.int64: np.int64,
}


def bits(tensor):
    """Shape and bytes, which NumPy can give for bfloat16 too."""
    return tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_we_write_bit_for_bit(tmp_path, dtype, mmap):
    rng = np.random.default_rng(0)
    shapes = {"row": (1, 33), "bias": (1,), "scalar": (), "empty": (0, 3), "cube": (2, 3, 4)}
    arrays = {
        name: np.asarray(rng.normal(size=shape, scale=100)).astype(DTYPES[dtype])
        for name, shape in shapes.items()
    }
    arrays["transposed"] = arrays["cube"].T
    write_torch_file(tmp_path / "a.pt", {"arrays": arrays})
    loaded = torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap)["arrays"]
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype == dtype
        assert bits(loaded[name]) == (array.shape, array.tobytes())


def test_a_torch_linear_takes_a_head_that_we_wrote(tmp_path):
    weight, bias = np.arange(32, dtype=np.float32)[None] / 8, np.full(1, -0.5, np.float32)
    write_torch_file(
        tmp_path / "a.pt", {"token_reward_head": {"weight": weight, "bias": bias}, "hidden_size": 32}
    )
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (type(loaded), type(loaded["token_reward_head"])) == (dict, OrderedDict)
    assert loaded["hidden_size"] == 32
    head = torch.nn.Linear(32, 1)
    head.load_state_dict(loaded["token_reward_head"])
    assert head(torch.ones(32)).item() == 496 / 8 - 0.5


def test_torch_loads_plain_values_as_they_were(tmp_path):
    plain = {
        "int": -3,
        "big": 2**40,
        "low": -(2**63),
        "float": 0.1,
        "str": "größe",
        "yes": True,
        "no": False,
        "none": None,
    }
    write_torch_file(tmp_path / "a.pt", plain)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert loaded == plain
    assert [type(value) for value in loaded.values()] == [type(value) for value in plain.values()]


def test_torch_finds_the_storages_that_we_wrote_where_it_computes_them(tmp_path):
    tree = {str(i): np.full(i, i, np.float32) for i in range(1, 20)}
    write_torch_file(tmp_path / "a.pt", tree)
    reader = torch._C.PyTorchFileReader(str(tmp_path / "a.pt"))
    for i, array in enumerate(tree.values()):
        assert reader.get_record_offset(f"data/{i}") % 64 == 0
        assert reader.get_record(f"data/{i}") == array.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_what_torch_saves_bit_for_bit(tmp_path, dtype):
    base = torch.arange(24).to(dtype).reshape(4, 6)
    tree = {
        "whole": base,
        "part": base[1:, 2:],
        "strided": base[::2, ::3].T,
        "scalar": base[3, 5],
        "empty": base[:0],
        "empty beyond the storage": base[4:, 5:],
        "alone": torch.arange(5).to(dtype),
    }
    torch.save({"tree": tree, "step": 7}, tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")
    assert read["step"] == 7
    for name, tensor in tree.items():
        assert read["tree"][name].dtype == DTYPES[dtype]
        assert (read["tree"][name].shape, read["tree"][name].tobytes()) == bits(tensor)


def test_we_read_a_state_dict_of_several_modules(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LayerNorm(4), torch.nn.BatchNorm1d(4))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    read = read_torch_file(tmp_path / "a.pt")
    assert list(read) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert (read[name].shape, read[name].tobytes()) == bits(tensor)


@pytest.mark.parametrize("name", ["token_reward_head", "token_reward_head_bf16"])
def test_torch_and_we_read_the_golden_files_alike(name):
    loaded = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    read = read_torch_file(GOLDEN / f"{name}.pt")
    assert read.keys() == loaded.keys()
    assert read["hidden_size"] == loaded["hidden_size"]
    for leaf, tensor in loaded["token_reward_head"].items():
        array = read["token_reward_head"][leaf]
        assert (array.shape, array.tobytes()) == bits(tensor)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nn.Parameter(torch.ones(2)), "_rebuild_parameter"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (torch.ones(2, dtype=torch.int32), r"torch\.IntStorage"),
        (torch.ones(2, dtype=torch.complex64).conj(), r"torch\.ComplexFloatStorage"),
        (torch._neg_view(torch.ones(2)), "_rebuild_tensor_v2 has arguments"),
        (torch.ones(1).expand(8), r"save its contiguous\(\)"),
        (torch.float32, r"torch\.float32"),
        (torch.Size([1]), r"torch\.Size"),
        ((1, 2), "is a tuple"),
        ([1, 2], "opcode EMPTY_LIST"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_torch_saves_besides_dense_tensors_is_refused_by_name(tmp_path, value, message):
    torch.save({"x": value}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        read_torch_file(tmp_path / "a.pt")


def test_the_format_of_torch_before_1_6_and_other_protocols_are_refused(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before 1\.6"):
        read_torch_file(tmp_path / "a.pt")
    torch.save({"x": torch.ones(2)}, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(ValueError, match="default pickle_protocol"):
        read_torch_file(tmp_path / "a.pt")
