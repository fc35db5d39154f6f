"""Files of torch.save: what torch wrote and what we write is read; nothing is run or let through besides."""

import pickle
import pickletools
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from sia_jax.checkpoints.torch_pickle import read_torch_file, write_torch_file

GOLDEN = Path(__file__).parents[1] / "golden"
DTYPES = (np.float32, np.float16, ml_dtypes.bfloat16, np.float64, np.int64)
ELEMENTS = np.arange(6, dtype=np.float32).tobytes()
HEADER, STOP = b"\x80\x02", b"."


def push(value):
    """The opcodes with which pickle itself pushes a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def storage(numel=6, cls="FloatStorage", key="0", device="cuda:0", tag="storage"):
    return b"(" + push(tag) + b"ctorch\n%s\n" % cls.encode() + push(key) + push(device) + push(numel) + b"tQ"


def tensor(
    offset=0, size=(2, 3), stride=(3, 1), hooks=b"ccollections\nOrderedDict\n)R", more=b"", **of_storage
):
    arguments = storage(**of_storage) + push(offset) + push(size) + push(stride) + push(False) + hooks + more
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def dict_of(value, key="x"):
    return HEADER + b"}" + push(key) + value + b"s" + STOP


def torch_zip(path, program, entries=None, compression=zipfile.ZIP_STORED):
    entries = {"byteorder": b"little", "data/0": ELEMENTS, "version": b"3\n"} if entries is None else entries
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": program, **entries}.items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize(
    ("name", "dtype"), [("token_reward_head", np.float32), ("token_reward_head_bf16", ml_dtypes.bfloat16)]
)
def test_reads_a_state_dict_that_torch_saved(name, dtype):
    tree = read_torch_file(GOLDEN / f"{name}.pt")
    assert tree.keys() == {"token_reward_head", "hidden_size"}
    assert tree["hidden_size"] == 32
    head = tree["token_reward_head"]
    assert list(head) == ["weight", "bias"]
    assert (head["weight"].dtype, head["bias"].dtype) == (dtype, dtype)
    np.testing.assert_array_equal(
        head["weight"].astype(np.float32), np.arange(32, dtype=np.float32)[None] / 8
    )
    np.testing.assert_array_equal(head["bias"].astype(np.float32), [-0.5])


def test_the_device_and_missing_extra_entries_do_not_matter(tmp_path):
    path = torch_zip(tmp_path / "a.pt", dict_of(tensor(device="cuda:7")), {"data/0": ELEMENTS})
    np.testing.assert_array_equal(read_torch_file(path)["x"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (dict(offset=1, size=(2,), stride=(3,)), [1, 4]),
        (dict(offset=0, size=(3, 2), stride=(1, 3)), [[0, 3], [1, 4], [2, 5]]),
        (dict(offset=5, size=(), stride=()), 5),
        (dict(offset=11, size=(0, 3), stride=(3, 1)), np.zeros((0, 3))),
        (dict(offset=5, size=(1, 1), stride=(100, 100)), [[5]]),
    ],
)
def test_offset_and_stride_select_elements_of_the_storage(tmp_path, view, expected):
    array = read_torch_file(torch_zip(tmp_path / "a.pt", dict_of(tensor(**view))))["x"]
    assert array.shape == np.shape(expected)
    np.testing.assert_array_equal(array, expected)


def test_tensors_of_one_storage_share_memory_and_cannot_be_written_to(tmp_path):
    program = HEADER + b"}(" + push("x") + tensor() + push("y") + tensor(size=(3,), stride=(2,)) + b"u" + STOP
    tree = read_torch_file(torch_zip(tmp_path / "a.pt", program))
    assert np.shares_memory(tree["x"], tree["y"])
    assert not tree["x"].flags.writeable


@pytest.mark.parametrize(
    "view",
    [
        dict(offset=1),
        dict(size=(3, 3), stride=(1, 1)),
        dict(size=(2, 3), stride=(4, 1)),
        dict(size=(6, 1), stride=(2, 1)),
        dict(size=(1000,), stride=(0,)),
        dict(size=(2**40, 2**40), stride=(0, 0)),
        dict(offset=-1),
        dict(size=(-1, 3)),
        dict(stride=(-3, 1)),
        dict(size=(1, 1), stride=(2**80, 1)),
        dict(size=(2, 3), stride=(3,)),
        dict(size=(2, "3")),
        dict(offset=None),
    ],
    ids=str,
)
def test_a_tensor_outside_of_its_storage_is_refused(tmp_path, view):
    path = torch_zip(tmp_path / "a.pt", dict_of(tensor(**view)))
    with pytest.raises(ValueError, match=r"a\.pt: (a tensor of offset|offset, size and stride)"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "of_storage", [dict(numel=5), dict(numel=7), dict(cls="DoubleStorage"), dict(numel=-6)]
)
def test_a_storage_whose_bytes_are_not_its_elements_is_refused(tmp_path, of_storage):
    path = torch_zip(tmp_path / "a.pt", dict_of(tensor(size=(1,), stride=(1,), **of_storage)))
    with pytest.raises(ValueError, match=r"a\.pt: data/0 has 24 bytes, expected -?\d+ of float(32|64)"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (tensor(cls="IntStorage"), r"refers to torch\.IntStorage"),
        (tensor(key="1"), "no entry archive/data/1"),
        (tensor(tag="module"), "persistent id is not"),
        (tensor(hooks=push({"hook": 1})), "_rebuild_tensor_v2 has arguments"),
        (tensor(more=push({"conj": True})), "_rebuild_tensor_v2 has arguments"),
        (b"ctorch\nFloatStorage\n)R", r"torch\.FloatStorage has arguments"),
        (b"ccollections\nOrderedDict\n" + push(((("a", 1),),)) + b"R", r"OrderedDict has arguments"),
        (push("eval") + b")R", "a str is called"),
        (b"ctorch\nFloatStorage\n", "'x' is a global"),
        (storage(), "'x' is a storage"),
        (push((1, 2)), "'x' is a tuple"),
        (push([1]), "opcode EMPTY_LIST"),
        (push({1: 2}), "key of type int"),
        (push(1) + push("a") + push(2) + b"s", "items of a int"),
        (b"ccollections\nOrderedDict\n)R" + push({"update": 1}) + b"b", "attributes are set"),
        (b"ccollections\nOrderedDict\n)R" + push({"_metadata": 1, "update": 1}) + b"b", "attributes are set"),
        (tensor() + push({"_metadata": 1}) + b"b", "attributes are set"),
        (b"ctorch\nFloatStorage\n" + push({"_metadata": 1}) + b"b", "attributes are set"),
    ],
)
def test_anything_but_dense_tensors_in_dicts_is_refused_by_name(tmp_path, value, message):
    path = torch_zip(tmp_path / "a.pt", dict_of(value))
    with pytest.raises(ValueError, match=message) as error:
        read_torch_file(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_state_dicts_metadata_is_dropped(tmp_path):
    state = push({"_metadata": {"": {"version": 1}}})
    value = b"ccollections\nOrderedDict\n)R" + push("bias") + push(0.5) + b"s" + state + b"b"
    assert read_torch_file(torch_zip(tmp_path / "a.pt", dict_of(value))) == {"x": {"bias": 0.5}}


def _attacks():
    call = b"cos\nmkdir\n"
    return {
        "reduce": lambda path: HEADER + call + push((path,)) + b"R" + STOP,
        "system": lambda path: HEADER + b"cos\nsystem\n" + push((f"mkdir '{path}'",)) + b"R" + STOP,
        "eval": lambda path: dict_of(
            b"cbuiltins\neval\n" + push((f"__import__('os').mkdir({path!r})",)) + b"R", "token_reward_head"
        ),
        "a built-in module": lambda path: dict_of(b"cposix\nmkdir\n" + push((path,)) + b"R"),
        "inst": lambda path: HEADER + b"(" + push(path) + b"ios\nmkdir\n" + STOP,
        "obj": lambda path: HEADER + b"(" + call + push(path) + b"o" + STOP,
        "stack_global": lambda path: (
            b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + pickle.dumps((path,), 4)[11:-1] + b"R" + STOP
        ),
        "stack_global of protocol 2": lambda path: (
            HEADER + push("os") + push("mkdir") + b"\x93" + push((path,)) + b"R."
        ),
        "build": lambda path: (
            HEADER
            + b"cfunctools\npartial\n"
            + push((len,))
            + b"R"
            + b"("
            + call
            + push((path,))
            + b"}Ntb)R"
            + STOP
        ),
        "in a discarded state": lambda path: dict_of(
            b"ccollections\nOrderedDict\n)R}" + push("_metadata") + call + push((path,)) + b"Rsb"
        ),
        "below the result": lambda path: HEADER + call + push((path,)) + b"R0}" + STOP,
    }


@pytest.mark.parametrize("attack", _attacks())
def test_pickled_code_is_not_run(tmp_path, attack):
    created = tmp_path / "created"
    program = _attacks()[attack](str(created))
    pickle.loads(program)
    assert created.exists(), "the attack has no teeth: pickle itself does not fall for it"
    created.rmdir() if created.is_dir() else created.unlink()

    path = torch_zip(tmp_path / "a.pt", program)
    with pytest.raises(ValueError, match=r"a\.pt: the pickle (refers to \w+\.\w+|has the opcode \w+)"):
        read_torch_file(path)
    assert not created.exists()


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("os\nsystem", "os.system"),
        ("builtins\neval", "builtins.eval"),
        ("torch._utils\n_rebuild_parameter", "torch._utils._rebuild_parameter"),
        ("torch\nFloatStorage.__init__", "torch.FloatStorage.__init__"),
        ("collections\nCounter", "collections.Counter"),
    ],
)
def test_a_refused_global_is_named(tmp_path, reference, name):
    path = torch_zip(tmp_path / "a.pt", dict_of(f"c{reference}\n".encode()))
    with pytest.raises(ValueError, match=f"refers to {name}, expected dicts of tensors"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "opcode",
    [
        *(
            "INST",
            "OBJ",
            "NEWOBJ",
            "NEWOBJ_EX",
            "EXT1",
            "EXT2",
            "EXT4",
            "PERSID",
            "STACK_GLOBAL",
            "DUP",
            "POP",
        ),
        *("EMPTY_LIST", "LIST", "DICT", "EMPTY_SET", "APPEND", "BYTEARRAY8", "NEXT_BUFFER", "FRAME", "PUT"),
    ],
)
def test_an_opcode_that_torch_does_not_write_is_refused(tmp_path, opcode):
    code = next(known.code for known in pickletools.opcodes if known.name == opcode).encode("latin-1")
    argument = {"INST": b"os\nmkdir\n", "PERSID": b"0\n", "PUT": b"0\n"}.get(opcode, bytes(8))
    path = torch_zip(tmp_path / "a.pt", HEADER + b"}" + code + argument + STOP)
    with pytest.raises(
        ValueError, match=rf"a\.pt: the pickle has the opcode {opcode} \(.*\), which torch.save"
    ):
        read_torch_file(path)


def test_a_pickle_of_another_protocol_is_refused_with_a_remedy(tmp_path):
    path = torch_zip(tmp_path / "a.pt", pickle.dumps({}, 4))
    with pytest.raises(ValueError, match=r"opcode PROTO \(4\), .* default pickle_protocol \(2\)"):
        read_torch_file(path)


def test_a_dict_in_two_places_is_refused_so_that_the_result_is_a_tree(tmp_path):
    cycle = HEADER + b"}q\x63" + push("x") + b"h\x63s" + STOP
    shared = HEADER + b"}(" + push("x") + b"}q\x63" + push("y") + b"h\x63u" + STOP
    for program in (cycle, shared):
        with pytest.raises(ValueError, match="a dict occurs twice"):
            read_torch_file(torch_zip(tmp_path / "a.pt", program))


def test_a_large_memo_index_takes_no_memory(tmp_path):
    path = torch_zip(tmp_path / "a.pt", HEADER + b"}r" + (20_000_000).to_bytes(4, "little") + STOP)
    tracemalloc.start()
    try:
        assert read_torch_file(path) == {}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_deeply_nested_tuple_as_a_key_is_refused_without_hashing_it(tmp_path):
    program = HEADER + b"})" + b"\x85" * 200_000 + push(1) + b"s" + STOP
    with pytest.raises(ValueError, match="key of type tuple"):
        read_torch_file(torch_zip(tmp_path / "a.pt", program))


def test_a_pickle_too_large_for_a_state_dict_is_refused_before_it_is_read(tmp_path):
    path = torch_zip(tmp_path / "a.pt", HEADER + b"N0" * (1 << 19) + b"}" + STOP)
    with pytest.raises(ValueError, match=r"data\.pkl has 1048580 bytes, expected at most 1048576"):
        read_torch_file(path)


@pytest.mark.parametrize("program", [HEADER + tensor() + STOP, HEADER + b"}}" + STOP, HEADER + STOP])
def test_a_pickle_that_does_not_leave_one_dict_is_refused(tmp_path, program):
    with pytest.raises(ValueError, match="expected one dict"):
        read_torch_file(torch_zip(tmp_path / "a.pt", program))


def test_a_compressed_entry_is_refused(tmp_path):
    path = torch_zip(tmp_path / "a.pt", dict_of(tensor()), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"a\.pt: \S+ is compressed"):
        read_torch_file(path)


def test_a_big_endian_file_is_refused(tmp_path):
    path = torch_zip(tmp_path / "a.pt", dict_of(tensor()), {"byteorder": b"big", "data/0": ELEMENTS})
    with pytest.raises(ValueError, match="byteorder is b'big', expected b'little'"):
        read_torch_file(path)


def test_a_zip_without_one_pickle_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", b"3\n")
    with pytest.raises(ValueError, match=r"0 entries <folder>/data\.pkl"):
        read_torch_file(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", HEADER + b"}" + STOP)
        archive.writestr("other/data.pkl", HEADER + b"}" + STOP)
    with pytest.raises(ValueError, match=r"2 entries <folder>/data\.pkl"):
        read_torch_file(path)


def test_a_file_of_torch_before_1_6_is_refused_with_a_remedy(tmp_path):
    path = tmp_path / "legacy.pt"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, {}, [])))
    with pytest.raises(
        ValueError, match=r"legacy\.pt: not a whole file of torch\.save .* before 1\.6 .* later torch"
    ):
        read_torch_file(path)


def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path):
    whole = (GOLDEN / "token_reward_head.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.pt: .*truncated" if length else r"cut\.pt is empty"):
            read_torch_file(path)
    path.write_bytes(whole[:200] + whole[264:])
    with pytest.raises(ValueError, match=r"cut\.pt: "):
        read_torch_file(path)


def test_a_damaged_file_or_pickle_raises_value_error_or_is_read(tmp_path):
    whole = (GOLDEN / "token_reward_head.pt").read_bytes()
    program = dict_of(tensor())
    path, outcomes = tmp_path / "damaged.pt", set()
    for damage in (0x01, 0x80, 0xFF):
        for position in range(0, len(whole), 11):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ damage]) + whole[position + 1 :])
            outcomes.add(_outcome(path))
        for position in range(len(program)):
            changed = program[:position] + bytes([program[position] ^ damage]) + program[position + 1 :]
            outcomes.add(_outcome(torch_zip(path, changed)))
    assert outcomes == {dict, ValueError}


def test_a_missing_file_is_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_torch_file(tmp_path / "absent.pt")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 32), (3,), (), (0, 4), (2, 3, 4)])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, dtype, shape):
    array = np.random.default_rng(0).normal(size=shape, scale=100)
    array = np.asarray(array).astype(dtype)
    write_torch_file(tmp_path / "a.pt", {"head": {"weight": array}})
    read = read_torch_file(tmp_path / "a.pt")["head"]["weight"]
    assert (read.dtype, read.shape) == (array.dtype, shape)
    assert read.tobytes() == array.tobytes()


def test_a_written_file_replaces_the_old_one_and_leaves_no_other(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    write_torch_file(str(path), {"step": 1})
    assert read_torch_file(str(path)) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_strided_arrays_and_plain_values_are_read_back(tmp_path):
    strided = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::-3].T
    plain = {
        "hidden_size": 2560,
        "big": 2**40,
        "low": -(2**63),
        "one": -1,
        "r2": 0.1,
        "name": "größe",
        "": "",
    }
    plain |= {
        "inf": float("inf"),
        "yes": True,
        "no": False,
        "none": None,
        "empty": {},
        "deep": {"a": {"b": 1}},
    }
    write_torch_file(tmp_path / "a.pt", {"strided": strided, **plain})
    tree = read_torch_file(tmp_path / "a.pt")
    np.testing.assert_array_equal(tree.pop("strided"), strided)
    assert tree == plain
    assert [type(value) for value in tree.values()] == [type(value) for value in plain.values()]


def test_the_written_pickle_rebuilds_tensors_and_ordered_dicts_under_pickle_itself(tmp_path):
    class Recorder(pickle.Unpickler):
        def find_class(self, module, name):
            return (
                OrderedDict if name == "OrderedDict" else lambda *arguments: (f"{module}.{name}", *arguments)
            )

        def persistent_load(self, pid):
            return (pid[0], pid[1]()[0], *pid[2:])

    weight = np.ones((2, 3), ml_dtypes.bfloat16)
    write_torch_file(tmp_path / "a.pt", {"head": {"weight": weight}, "hidden_size": 3})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive, archive.open("a/data.pkl") as program:
        tree = Recorder(program).load()
    assert type(tree) is dict
    assert type(tree["head"]) is OrderedDict
    reference = ("storage", "torch.BFloat16Storage", "0", "cpu", 6)
    rebuilt = ("torch._utils._rebuild_tensor_v2", reference, 0, (2, 3), (3, 1), False, OrderedDict())
    assert tree == {"head": {"weight": rebuilt}, "hidden_size": 3}


def test_equal_trees_give_equal_bytes_at_any_time_and_place(tmp_path, monkeypatch):
    tree = {"head": {"weight": np.ones((1, 4), np.float32)}, "hidden_size": 4}
    write_torch_file(tmp_path / "a.pt", tree)
    monkeypatch.setattr("time.time", lambda: 2e9)
    (tmp_path / "sub").mkdir()
    write_torch_file(tmp_path / "sub" / "a.pt", tree)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "sub" / "a.pt").read_bytes()


def test_written_storages_are_aligned_and_uncompressed(tmp_path):
    write_torch_file(tmp_path / "head.pt", {str(i): np.ones(i, np.float16) for i in range(5)})
    raw = (tmp_path / "head.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "head.pt") as archive:
        infos = archive.infolist()
    storages = [info for info in infos if "/data/" in info.filename]
    assert len(storages) == 5
    for info in storages:
        name, extra = (int.from_bytes(raw[info.header_offset + at :][:2], "little") for at in (26, 28))
        assert (info.header_offset + 30 + name + extra) % 64 == 0
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"b": np.ones(2, np.uint8)}}, r"a\.b is an array of uint8, expected .* float32"),
        ({"a": np.ones(2, ">f4")}, "a is an array of >f4"),
        ({"a": np.float32(1)}, "a is a float32"),
        ({"a": [1]}, "a is a list"),
        ({"a": 2**63}, "a is a int, expected .* int of 64 bits"),
        ({"a": {1: 2}}, "a is not a dict whose keys are str"),
        ({1: 2}, "the tree is not a dict whose keys are str"),
        ([1], "the tree is not a dict"),
    ],
)
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(tmp_path, tree, message):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=message) as error:
        write_torch_file(path, tree)
    assert str(error.value).startswith(f"{path}: ")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _outcome(path):
    try:
        return type(read_torch_file(path))
    except ValueError:
        return ValueError
