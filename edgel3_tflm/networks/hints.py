"""Hints for error messages: how the user chooses a network and gives its weights."""

import json
from dataclasses import dataclass

from edgel3_tflm.networks.variants import Variant


@dataclass(frozen=True)
class Hints:
    """How the user of a command chooses a network and gives its weights.

    Parameters
    ----------
    weights_option : str
        The option that takes a weight file.
    recipe_table : str, optional
        The table of a recipe that chooses the network. If None, options choose it.
    """

    weights_option: str = "--weights"
    recipe_table: str | None = None

    def describe(self, variant: Variant) -> str:
        """Return the options, or the keys of the recipe, that choose a network."""
        choices: dict[str, str | int] = {"model_type": variant.model_type}
        if variant.model_type == "sea" and not variant.has_own_shape:
            choices["embedding_size"] = variant.embedding_size
        if self.recipe_table is None:
            words = " ".join(f"--{key.replace('_', '-')} {choices[key]}" for key in choices)
        else:
            keys = (f"{self.recipe_table}.{key} = {json.dumps(choices[key])}" for key in choices)
            words = " and ".join(keys)
        if variant.has_own_shape:
            words += f" with the filters {', '.join(map(str, variant.filters))}"
        return words if self.recipe_table is None else f"{words}; change the recipe or the file"


OPTIONS = Hints()
"""Hints for a command with the options ``--model-type`` and ``--weights``."""
