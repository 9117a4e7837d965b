"""What notebooks import: checks, tables as people read them, and scraps."""

import io
from typing import Any

from pulse.execution import show as shown
from pulse.execution.errors import CheckError
from pulse.execution.light import light_import
from pulse.execution.parameters import finite


def expect(condition: bool, sentence: str) -> None:
    """Stop the notebook unless a condition holds.

    Raises:
        CheckError: with the sentence, which says what was expected, what was found and what to do.
    """
    if not condition:
        raise CheckError(sentence)


def show(*what: Any) -> Any:
    """Show a frame or a row as a table with numbers, shares and days as people read them; show texts as messages.

    Meant as the last line of a cell; see `pulse.execution.show`. A table may be transposed: `cells.show(frame).T`.
    """
    return shown.message(*what) if all(isinstance(each, str) for each in what) else shown.table(*what)


def glue(**values: Any) -> None:
    """Hand values on from the notebook as scraps.

    scrapbook refuses numpy's numbers and draws figures in its own way. Here a matplotlib figure becomes the PNG that
    `savefig` writes, at its own size and resolution, and is shown half as wide. NaN and infinity, for which JSON has
    no number, are not handed on; in a list or a dict they become None.
    """
    with light_import():
        import scrapbook  # it imports papermill, which only a notebook that glues should wait for
    for name, value in values.items():
        if hasattr(value, "savefig"):
            from IPython.display import Image

            png = io.BytesIO()
            value.savefig(png, format="png")
            # The resolution is doubled, so at half its width the figure fits a screen and is sharp there.
            half = int.from_bytes(png.getvalue()[16:20]) // 2  # the width is in the PNG's header
            scrapbook.glue(name, Image(data=png.getvalue(), format="png", width=half), encoder="display")
        else:
            plain = finite(value.tolist() if hasattr(value, "tolist") else value)
            if plain is None:
                print(f"{name} is {value}: there is nothing to hand on.")
            else:
                scrapbook.glue(name, plain)
