"""Qwen3-1.7B-Base as a value model by the paper's recipe.

LoRA of rank 16 on q, k, v and o, batches of 16 trajectories, rows of 1024 tokens, 3 epochs.

    python -m configs.qwen3_1_7b --data data/wildguardmix --out out/vm-qwen3-1-7b-harmless
    python -m configs.qwen3_1_7b --data data/ultrafeedback --out out/vm-qwen3-1-7b-helpful

Memory of one device: weights 3.44 GB in bfloat16; 6,424,577 trained parameters, 103 MB in
float32 with two moments and a gradient; for a row of 1024 tokens, inputs of the layers 117 MB, one layer
at work 134 MB. Work: 8.46 GFLOP a token, layers recomputed: 3 forward passes of 2 FLOPs a weight,
embeddings left out. 157,000 trajectories of 400 tokens, 3 epochs, are 1.9e+08 tokens: 1.1 hours of an
H100 at 40% of 989 TFLOP/s. These figures are computed from the shapes, not measured.
"""

from pathlib import Path

from sia_jax.runs.cli import read_options
from train.value_model import Args, main

ARGS = Args(
    data=Path("data/trajectories"),
    base="Qwen/Qwen3-1.7B-Base",
    out=Path("out/vm-qwen3-1-7b"),
    dtype="bfloat16",
    remat=True,
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
