"""The TensorFlow Datasets builder of `records`; importing this module registers its name.

TensorFlow itself is not needed: the files are ArrayRecord, read with `tfds.data_source`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sia_jax.data.records import VERSION


class SiaTrajectories(tfds.core.GeneratorBasedBuilder):
    """Prompts, replies and rewards, in the ids of one tokenizer; see `records.Record` for the fields."""

    VERSION = tfds.core.Version(VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        ids = tfds.features.Tensor(shape=(None,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Replies to prompts, with the reward of each, as a value model learns from them.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "group": tfds.features.Text(),
                    "messages": tfds.features.Text(),
                    "prompt_ids": ids,
                    "reply_ids": ids,
                    # A plain float64 feature comes back rounded to float32, which is all that the record
                    # format has; the bytes come back as they are.
                    "reward": tfds.features.Tensor(shape=(), dtype=np.float64, encoding="bytes"),
                    "has_reward": np.bool_,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        raise ValueError(
            f"{self.data_dir}: there is no set here, and this builder only reads; "
            "python -m train.prepare makes one"
        )

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        raise AssertionError("_split_generators refuses first")
