"""The TensorFlow Datasets builder and writer of `records`; importing this module registers its name.

TensorFlow itself is not needed: the files are ArrayRecord, read with `tfds.data_source`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from sia_jax.data.set_folder import VERSION
from sia_jax.extras import installed_with

with installed_with("train"):
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.example_serializer import ExampleSerializer


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
            f"{self.data_dir}: there is no set here, and this builder only reads; sia train prepare makes one"
        )

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        raise AssertionError("_split_generators refuses first")


class _OrderedSerializer(ExampleSerializer):
    """Writes the features of an example by name: protobuf's own order is another in each process."""

    def serialize_example(self, example: dict[str, Any]) -> bytes:
        return bytes(self.get_tf_example(example).SerializeToString(deterministic=True))


def set_writer(info: tfds.core.DatasetInfo, records_per_file: int) -> tfds.core.SequentialWriter:
    """What writes a set in ArrayRecord files: the same examples make the same bytes, whatever the process.

    The usual way, download_and_prepare, holds a gigabyte in memory before it writes a file.
    """
    writer = tfds.core.SequentialWriter(info, records_per_file, file_format="array_record")
    writer._serializer = _OrderedSerializer(info.features.get_serialized_info())
    return writer
