"""From what a person typed to the one address that is meant, for commands that look at one resource."""

from collections.abc import Collection, Iterable

from mlstack.diagnostics import Diagnostic, MlstackError, did_you_mean
from mlstack.spec.address import Address, Kind, that_can


def one_address(word: str, known: Iterable[Address], *, kinds: Collection[Kind] = ()) -> Address:
    """Return the address that `word` means: in full, or a name that only one resource has.

    Of several, those of `kinds` are meant, which can do what is asked of them.

    Raises `MlstackError` when it means none or several.
    """
    addresses = list(dict.fromkeys(known))
    if word in addresses:
        return Address(word)
    near = [a for a in addresses if a.startswith(f"{word}[")]
    near = near or [a for a in addresses if a.rpartition("/")[2].partition(".")[2] in (word, word.partition("[")[0])]
    near = near or [a for a in addresses if a.partition("[")[0].rpartition(".")[2] == word]
    near = that_can(near, kinds)
    if len(near) == 1:
        return near[0]
    if near:
        shown = ", ".join(near[:8]) + (f" and {len(near) - 8} more" if len(near) > 8 else "")
        raise MlstackError(
            Diagnostic(
                code="ambiguous-address",
                summary="The address means several resources",
                detail=f"{word!r} could be {shown}.",
                hint="Give one of them in full.",
            )
        )
    raise MlstackError(
        Diagnostic(
            code="unknown-address",
            summary="No such resource",
            detail=f"{word!r} is not an address of this project.",
            hint=did_you_mean(word, addresses) or "`mlstack graph` shows every address.",
        )
    )
