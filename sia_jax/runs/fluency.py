"""The second language model of a run, under which replies' texts have a perplexity; without weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sia_jax
from sia_jax.checkpoints.config_json import read_config
from sia_jax.checkpoints.fingerprint import fingerprint_of_folder, fingerprint_of_rest
from sia_jax.checkpoints.hub import checkpoint_name, resolve_checkpoint
from sia_jax.checkpoints.vocabulary import load_tokenizer
from sia_jax.data.prompts import PromptLine
from sia_jax.text.forms import Prompting, settle
from sia_jax.text.templates import TemplateRefusal
from sia_jax.text.token_ids import with_tokens

_OPTION = "--fluency-model"


@dataclass(frozen=True)
class FluencySource:
    """A causal language model with its own tokenizer and template."""

    path: str
    """Its folder or Hub id."""
    model: sia_jax.Policy
    """Without weights."""
    prompting: Prompting

    def settings(self) -> dict[str, Any]:
        """What its numbers depend on; JSON."""
        folder = resolve_checkpoint(self.path)
        return {
            "fluency": self.model.name,
            "fluency_fingerprint": fingerprint_of_folder(folder)[:16],
            "fluency_files": fingerprint_of_rest(folder)[:16],
            "fluency_form": self.prompting.form,
            "fluency_date_string": self.prompting.date_string,
        }

    def check(self, max_new_tokens: int) -> Callable[[PromptLine], None]:
        """What finds out whether replies to a prompt can be read: by template, and the longest reply.

        The longest reply is taken to have --max-new-tokens tokens here too. One of more has no perplexity,
        and is counted.

        Args:
          max_new_tokens: of a reply.
        """
        held = self.model.config.max_position_embeddings

        def check(prompt: PromptLine) -> None:
            assert prompt.messages is not None
            try:
                ids = self.model.prompt_ids(prompt.messages, self.prompting.form, **self.prompting.variables)
            except TemplateRefusal as error:
                raise ValueError(
                    f"prompt {prompt.id!r}: the template of {_OPTION} refuses it: {error.why}"
                ) from error
            if len(ids) + max_new_tokens > held:
                raise ValueError(
                    f"prompt {prompt.id!r} has {len(ids):,} ids for {_OPTION}, and with the longest reply "
                    f"{len(ids) + max_new_tokens:,}, of at most {held:,}; cut it, or lower --max-new-tokens"
                )

        return check

    def load(self, **options: Any) -> sia_jax.Policy:
        """With its weights.

        Args:
          **options: of `sia_jax.load_policy`.
        """
        return sia_jax.load_policy(self.path, **options)


def find_fluency(path: str | None, date_string: str | None) -> FluencySource | None:
    """The model that options ask for; None: none is asked for.

    Args:
      path: of --fluency-model: a folder, or else a Hub id.
      date_string: of --fluency-date-string, for its template.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: it is no causal language model, has no tokenizer, or a template that writes today's date.
    """
    if path is None:
        return None
    folder = resolve_checkpoint(path)
    checkpoint, tokenizer = read_config(folder), load_tokenizer(folder)
    if checkpoint.kind != "policy":
        raise ValueError(
            f"{folder} is a {checkpoint.architecture}, and {_OPTION} takes a ForCausalLM; name another one"
        )
    if tokenizer is None:
        raise ValueError(f"{folder} has no tokenizer, which {_OPTION} reads texts with; copy it there")
    model = sia_jax.Policy(with_tokens(checkpoint.model, tokenizer), {}, tokenizer, checkpoint_name(path))
    prompting = settle(model.name, tokenizer, date_string=date_string, option="--fluency-date-string")
    return FluencySource(path, model, prompting)
