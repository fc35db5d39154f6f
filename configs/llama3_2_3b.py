"""Skywork-Reward-V2-Llama-3.2-3B as a value model by the paper's recipe.

LoRA of rank 16 on q, k, v and o, batches of 16 trajectories, rows of 1024 tokens, 3 epochs.

    python -m configs.llama3_2_3b --data data/wildguardmix --out out/vm-llama3-2-3b-harmless
    python -m configs.llama3_2_3b --data data/ultrafeedback --out out/vm-llama3-2-3b-helpful

Memory of one device: weights 6.43 GB in bfloat16; 9,178,113 trained parameters, 147 MB in
float32 with two moments and a gradient; for a row of 1024 tokens, inputs of the layers 176 MB, one layer
at work 193 MB. Work: 16.91 GFLOP a token, layers recomputed: 3 forward passes of 2 FLOPs a weight,
embeddings left out. 157,000 trajectories of 400 tokens, 3 epochs, are 1.9e+08 tokens: 2.2 hours of an
H100 at 40% of 989 TFLOP/s. These figures are computed from the shapes, not measured.
"""

from pathlib import Path

from sia_jax.runs.cli import read_options
from train.value_model import Args, main

ARGS = Args(
    data=Path("data/trajectories"),
    base="Skywork/Skywork-Reward-V2-Llama-3.2-3B",
    out=Path("out/vm-llama3-2-3b"),
    dtype="bfloat16",
    remat=True,
)

if __name__ == "__main__":
    main(read_options(Args, default=ARGS, description=__doc__))
