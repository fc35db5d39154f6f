"""Loading holds the final weights and, beyond them, no more than the largest tensor of the file.

Each load runs in a process of its own, in which a thread samples the anonymous memory (what is neither shared
nor backed by a file, such as the mapped checkpoint).
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sia_jax.checkpoints.config_json import config_dict
from sia_jax.models.config import ModelConfig
from sia_jax.models.transformer import abstract_model
from sia_jax.types import flatten_names
from tests.support.checkpoints import tiny_config

pytestmark = pytest.mark.optimised

MB = 1 << 20

PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import jax, ml_dtypes, numpy as np
import sia_jax
from safetensors.numpy import load_file
from tests.support.checkpoints import save_tiny_policy

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def read_all_first(folder, dtype):
    tensors = load_file(Path(folder) / "model.safetensors")
    if dtype:
        tensors = {name: array.astype(dtype) for name, array in tensors.items()}
    return jax.block_until_ready({name: jax.numpy.asarray(array) for name, array in tensors.items()})

folder, dtype, loader = sys.argv[1:]
dtype = None if dtype == "stored" else np.dtype(dtype)
save_tiny_policy(Path(folder) / "tiny")
sia_jax.load_policy(Path(folder) / "tiny", dtype=dtype)  # libraries and pools are there before the start
start, peak, done = anonymous(), 0, threading.Event()

def sample():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.002)

sampler = threading.Thread(target=sample)
sampler.start()
if loader == "sia_jax":
    loaded = sia_jax.load_policy(folder, dtype=dtype).params
else:
    loaded = read_all_first(folder, dtype)
done.set()
sampler.join()
final = sum(leaf.nbytes for leaf in jax.tree.leaves(loaded))
print(json.dumps({"final": final, "above_start": max(peak, anonymous()) - start}))
"""


def write_random_checkpoint(folder: Path, config: ModelConfig) -> int:
    """Stream a float32 policy into a folder, chunk by chunk; returns the bytes of its largest tensor."""
    shapes = {name: leaf.shape for name, leaf in flatten_names({"model": abstract_model(config)}).items()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    chunk = np.random.default_rng(0).standard_normal(MB).astype(np.float32).tobytes()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, offset, len(chunk)):
            file.write(chunk[: offset - start])
    raw = config_dict(config, "LlamaForCausalLM", "float32")
    (folder / "config.json").write_text(json.dumps(raw))
    return max(4 * int(np.prod(shape)) for shape in shapes.values())


def measure(folder: Path, dtype: str, loader: str) -> dict[str, int]:
    """Bytes of the final weights, and by how much anonymous memory rose above that before the load."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(folder), dtype, loader]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def excess(figures: dict[str, int], largest: int) -> float:
    """What was held beyond the final weights, in units of the largest tensor of the file."""
    return (figures["above_start"] - figures["final"]) / largest


def report(title: str, figures: dict[str, int], largest: int) -> None:
    mb = {name: round(size / MB) for name, size in {**figures, "largest tensor": largest}.items()}
    print(f"{title}: {mb} MB, {excess(figures, largest):.2f} largest tensors beyond the final weights")


@pytest.mark.long
def test_peak_of_a_load_is_the_weights_and_the_largest_tensor(tmp_path):
    # 1.1 GB, of which the embedding is 256 MB and each of the MLP's matrices 32 MB
    config = tiny_config(
        "llama",
        vocab_size=32768,
        hidden_size=2048,
        intermediate_size=4096,
        num_layers=6,
        num_heads=16,
        num_kv_heads=4,
        head_dim=128,
    )
    largest = write_random_checkpoint(tmp_path, config)
    weights = tmp_path / "model.safetensors"
    try:
        assert 950 * MB < weights.stat().st_size < 1100 * MB
        for dtype in ("stored", "bfloat16"):
            figures = measure(tmp_path, dtype, "sia_jax")
            report(dtype, figures, largest)
            assert figures["final"] == config.num_parameters * (4 if dtype == "stored" else 2)
            assert figures["above_start"] > 0.9 * figures["final"]  # the weights are counted at all
            assert excess(figures, largest) < 1.3
    finally:
        weights.unlink()


def test_measurement_tells_a_loader_that_reads_all_first(tmp_path):
    config = tiny_config(
        "llama",
        vocab_size=4096,
        hidden_size=1024,
        intermediate_size=2048,
        num_layers=4,
        num_heads=16,
        head_dim=64,
    )
    largest = write_random_checkpoint(tmp_path, config)
    figures = measure(tmp_path, "bfloat16", "read all first")
    report("read all first, bfloat16", figures, largest)
    assert figures["final"] == 2 * config.num_parameters
    assert excess(figures, largest) > 1.3
